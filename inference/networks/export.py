"""Trained networks as ONNX graphs that fit their slots."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from inference.networks.integrator import IntegratorNet
from inference.networks.slopes import SlopeNet
from inference.registry import CALIBRATION, SLOTS, TENSORS

OPSET = 20
EXAMPLE = {"S": 4, "H": 70, "W": 90, "V": 89, "U": 69}
ELEMENTS = {"float": torch.float32, "uint8": torch.uint8, "uint16": torch.uint16}


class SlopeGraph(nn.Module):
    """The slot `slopes` around a `SlopeNet`: one frame, counts as they come, rejected pixels as bytes."""

    def __init__(self, net: SlopeNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        images: Tensor,
        response: Tensor,
        inversion: Tensor,
        gain_counts_per_electron: Tensor,
        dark_counts: Tensor,
        flat_share: Tensor,
        saturation_counts: Tensor,
        beam_sigma_px: Tensor,
        frames_held: Tensor,
    ) -> tuple[Tensor, ...]:
        numbers = (response, inversion, gain_counts_per_electron, dark_counts, flat_share, saturation_counts)
        batched = (values.unsqueeze(0) for values in (images.to(torch.float32), *numbers, beam_sigma_px, frames_held))
        found = self.net(*batched)
        maps = (found.p, found.q, found.sigma_p, found.sigma_q)
        return *(values.squeeze(0) for values in maps), found.rejected.squeeze(0).to(torch.uint8)


class IntegratorGraph(nn.Module):
    """The slot `integrate` around an `IntegratorNet`: heights in metres."""

    def __init__(self, net: IntegratorNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        pixel_size_m: Tensor,
        pixel_size_y_m: Tensor,
        p: Tensor,
        q: Tensor,
        sigma_p: Tensor,
        sigma_q: Tensor,
        rejected: Tensor,
        residual: Tensor,
    ) -> tuple[Tensor, Tensor]:
        maps = (p, q, sigma_p, sigma_q, rejected.to(torch.float32), residual)
        found = self.net(*(values.unsqueeze(0) for values in maps), pixel_size_m / pixel_size_y_m)
        return found.height.squeeze(0) * pixel_size_m, found.misfit.squeeze(0)


def export_slopes(net: SlopeNet, path: Path) -> None:
    """Write the graph; any number of segments from three and any frame size."""
    _export(SlopeGraph(net), "slopes", lambda name: not name.startswith("pixel_size"), path)


def export_integrator(net: IntegratorNet, path: Path) -> None:
    """Write the graph; any frame size."""
    calibration = ("pixel_size_m", "pixel_size_y_m")
    _export(IntegratorGraph(net), "integrate", lambda name: name in calibration or name not in CALIBRATION, path)


def _export(graph: nn.Module, slot: str, taken: Callable[[str], bool], path: Path) -> None:
    """`taken` says which of the slot's inputs the graph takes, in the slot's order."""
    rows, columns = (torch.export.Dim(axis, min=16, max=16_384) for axis in "HW")
    dynamic = {"S": torch.export.Dim("S", min=3), "H": rows, "W": columns, "U": rows - 1, "V": columns - 1}
    names = [name for name in SLOTS[slot].inputs if taken(name)]
    examples, shapes = [], {}
    for name in names:
        kind, axes = TENSORS[name]
        shape = [EXAMPLE[axis] if isinstance(axis, str) else axis for axis in axes]
        examples.append(torch.ones(shape, dtype=ELEMENTS[kind]))
        shapes[name] = {place: dynamic[axis] for place, axis in enumerate(axes) if isinstance(axis, str)}
    with warnings.catch_warnings(), _quiet(logging.getLogger("torch.onnx")):
        warnings.simplefilter("ignore")  # the exporter's, about its own insides
        program = torch.onnx.export(
            graph.eval(),
            tuple(examples),
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=list(SLOTS[slot].outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = 10
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
