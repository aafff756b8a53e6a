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


def export_slopes(net: SlopeNet, path: Path) -> None:
    """Write the graph; any number of segments from three and any frame size."""
    _export(SlopeGraph(net), SLOTS["slopes"], [n for n in SLOTS["slopes"].inputs if not n.startswith("pixel")], path)


def export_rerender(net: Dsm, path: Path) -> None:
    """Write the graph; any number of segments from three and any frame size."""
    names = [name for name in signature(RerenderGraph.forward).parameters if name != "self"]
    _export(RerenderGraph(net), SLOTS["rerender"], names, path)


def _export(graph: nn.Module, slot: Slot, names: Sequence[str], path: Path) -> None:
    """`names`: the slot's inputs that the graph takes, in its order."""
    graph.eval()
    sizes = {"S": 4, "H": EXAMPLE_PX[0], "W": EXAMPLE_PX[1]}
    sizes |= {"U": sizes["H"] - 1, "V": sizes["W"] - 1}
    dynamic: dict[str, Any] = {
        axis: torch.export.Dim(axis, min=low) for axis, low in (("S", 3), ("H", 16), ("W", 16))
    }
    dynamic |= {"U": dynamic["H"] - 1, "V": dynamic["W"] - 1}
    examples, shapes = [], {}
    for name in names:
        kind, axes = TENSORS[name]
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in axes]
        examples.append(torch.ones(shape, dtype=ELEMENTS[kind]))
        shapes[name] = {place: dynamic[axis] for place, axis in enumerate(axes) if isinstance(axis, str)}
    program = torch.onnx.export(
        graph,
        tuple(examples),
        dynamo=True,
        opset_version=OPSET,
        input_names=names,
        output_names=list(slot.outputs),
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.ir_version = 10
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
