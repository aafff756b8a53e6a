"""Trained networks as ONNX graphs that fit their slots."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from inference.networks.dsm import Dsm
from inference.networks.slopes import SlopeNet
from inference.networks.twin_tables import Tables
from inference.networks.vft import Vft
from inference.registry import SLOTS, TENSORS, Slot

OPSET = 20
EXAMPLE_PX = (70, 90)
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
    ) -> tuple[Tensor, ...]:
        numbers = (response, inversion, gain_counts_per_electron, dark_counts, flat_share, saturation_counts)
        batched = (values.unsqueeze(0) for values in (images.to(torch.float32), *numbers, beam_sigma_px))
        found = self.net(*batched)
        maps = (found.p, found.q, found.sigma_p, found.sigma_q)
        return *(values.squeeze(0) for values in maps), found.rejected.squeeze(0).to(torch.uint8)


class RerenderGraph(nn.Module):
    """The slot `rerender` around a `Dsm`, one frame."""

    def __init__(self, net: Dsm) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        images: Tensor,
        response: Tensor,
        gain_counts_per_electron: Tensor,
        dark_counts: Tensor,
        flat_share: Tensor,
        beam_sigma_px: Tensor,
        p: Tensor,
        q: Tensor,
    ) -> tuple[Tensor, ...]:
        numbers = (response, gain_counts_per_electron, dark_counts, flat_share, beam_sigma_px, p, q)
        found = self.net(*(values.unsqueeze(0) for values in (images.to(torch.float32), *numbers)))
        return tuple(values.squeeze(0) for values in found)


class VftGraph(nn.Module):
    """A `Vft` with the detector's `Tables`: fractions (S, P) that its segments capture of what `places` (P, 2) emit."""

    def __init__(self, net: Vft) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        height_px: Tensor,
        places: Tensor,
        azimuth_rad: Tensor,
        response: Tensor,
        blocked: Tensor,
        sin2_low: Tensor,
        sin2_step: Tensor,
    ) -> Tensor:
        tables = Tables(azimuth_rad, response, blocked, sin2_low, sin2_step)
        found: Tensor = self.net.at(height_px[None], places[None], tables)
        return found[0].T


def export_slopes(net: SlopeNet, path: Path) -> None:
    """Write the graph; any number of segments from three and any frame size."""
    _export(SlopeGraph(net), SLOTS["slopes"], [n for n in SLOTS["slopes"].inputs if not n.startswith("pixel")], path)


def export_rerender(net: Dsm, path: Path) -> None:
    """Write the graph; any number of segments from three and any frame size."""
    names = [name for name in signature(RerenderGraph.forward).parameters if name != "self"]
    _export(RerenderGraph(net), SLOTS["rerender"], names, path)


def export_vft(net: Vft, path: Path) -> None:
    """Write the graph of `VftGraph`: any frame, any pixels of it, any detector."""
    height, width, pixels, bins, steps, segments = *EXAMPLE_PX, 50, 130, 257, 4
    inputs: dict[str, tuple[Tensor, dict[int, str]]] = {
        "height_px": (torch.zeros(height, width), {0: "H", 1: "W"}),
        "places": (torch.zeros(pixels, 2, dtype=torch.int64), {0: "P"}),
        "azimuth_rad": (torch.zeros(bins), {0: "K"}),
        "response": (torch.ones(segments, 3), {0: "S"}),
        "blocked": (torch.zeros(bins, steps, segments, 3), {0: "K", 1: "U", 2: "S"}),
        "sin2_low": (torch.tensor(0.1), {}),
        "sin2_step": (torch.tensor(0.01), {}),
    }
    dynamic = {axis: torch.export.Dim(axis, min=low) for axis, low in zip("HWPKUS", (16, 16, 2, 16, 3, 3), strict=True)}
    examples = tuple(example for example, _ in inputs.values())
    shapes = {name: {place: dynamic[axis] for place, axis in axes.items()} for name, (_, axes) in inputs.items()}
    _write(VftGraph(net), examples, list(inputs), ["fractions"], shapes, path)


def _export(graph: nn.Module, slot: Slot, names: Sequence[str], path: Path) -> None:
    """`names`: the slot's inputs that the graph takes, in its order."""
    sizes = {"S": 4, "H": EXAMPLE_PX[0], "W": EXAMPLE_PX[1]}
    sizes |= {"U": sizes["H"] - 1, "V": sizes["W"] - 1}
    dynamic: dict[str, Any] = {axis: torch.export.Dim(axis, min=low) for axis, low in (("S", 3), ("H", 16), ("W", 16))}
    dynamic |= {"U": dynamic["H"] - 1, "V": dynamic["W"] - 1}
    examples, shapes = [], {}
    for name in names:
        kind, axes = TENSORS[name]
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in axes]
        examples.append(torch.ones(shape, dtype=ELEMENTS[kind]))
        shapes[name] = {place: dynamic[axis] for place, axis in enumerate(axes) if isinstance(axis, str)}
    _write(graph, tuple(examples), names, slot.outputs, shapes, path)


def _write(
    graph: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: dict[str, Any],
    path: Path,
) -> None:
    program = torch.onnx.export(
        graph.eval(),
        examples,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.ir_version = 10
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
