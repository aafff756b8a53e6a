"""Trained networks as ONNX graphs that fit their slots."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from inference.networks.slopes import SlopeNet
from inference.registry import SLOTS, TENSORS

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
        frames_held: Tensor,
    ) -> tuple[Tensor, ...]:
        numbers = (response, inversion, gain_counts_per_electron, dark_counts, flat_share, saturation_counts)
        batched = (values.unsqueeze(0) for values in (images.to(torch.float32), *numbers, beam_sigma_px, frames_held))
        found = self.net(*batched)
        maps = (found.p, found.q, found.sigma_p, found.sigma_q)
        return *(values.squeeze(0) for values in maps), found.rejected.squeeze(0).to(torch.uint8)


def export_slopes(net: SlopeNet, path: Path) -> None:
    """Write the graph; any number of segments from three and any frame size."""
    slot = SLOTS["slopes"]
    graph = SlopeGraph(net).eval()
    names = [name for name in slot.inputs if not name.startswith("pixel_size")]
    sizes = {"S": 4, "H": EXAMPLE_PX[0], "W": EXAMPLE_PX[1]}
    dynamic = {axis: torch.export.Dim(axis, min=low) for axis, low in (("S", 3), ("H", 16), ("W", 16))}
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
