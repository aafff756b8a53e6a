"""Trained networks as ONNX graphs that fit their slots."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import onnx
import onnxscript.optimizer
import torch
from onnx import numpy_helper
from onnxscript import ir
from torch import Tensor, nn

from inference.networks.dsm import Dsm
from inference.networks.finetune import FinetuneNet
from inference.networks.graphs import FinetuneGraph, IntegratorGraph, RerenderGraph, SlopeGraph, VftGraph
from inference.networks.integrator import IntegratorNet
from inference.networks.slopes import SlopeNet
from inference.networks.vft import Vft
from inference.registry import SLOTS, TENSORS

OPSET = 20
LEARNED = "net."
AXES = 3
"""Place of the axes among a slice's inputs."""
EXAMPLE = {"S": 4, "H": 70, "W": 90, "U": 69, "V": 89}
MOST_PX = 16_384
ELEMENTS = {"float": torch.float32, "uint8": torch.uint8, "uint16": torch.uint16}


def export_slopes(net: SlopeNet, path: Path) -> None:
    """Write the graph; any number of segments from three and any frame size."""
    _export(SlopeGraph(net), "slopes", path)


def export_rerender(net: Dsm, path: Path) -> None:
    """Write the graph; any number of segments from three and any frame size."""
    _export(RerenderGraph(net), "rerender", path)


def export_integrator(net: IntegratorNet, path: Path) -> None:
    """Write the graph; any frame size."""
    _export(IntegratorGraph(net), "integrate", path)


def export_vft(net: Vft, path: Path) -> None:
    """Write the graph of `VftGraph`: any frame, any pixels of it, any detector."""
    height, width, pixels, bins, steps, segments = EXAMPLE["H"], EXAMPLE["W"], 50, 130, 257, 4
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


def export_finetune(net: FinetuneNet, path: Path) -> None:
    """Write the graph of `FinetuneGraph`: any frame size, the instrument's own segments."""
    segments, height, width = len(net.offset), EXAMPLE["H"], EXAMPLE["W"]
    rows, columns = (torch.export.Dim(axis, min=16, max=MOST_PX) for axis in "HW")
    inputs: dict[str, tuple[Tensor, dict[int, Any]]] = {
        "shares": (torch.ones(segments, height, width), {1: rows, 2: columns}),
        "p": (torch.zeros(height, width - 1), {0: rows, 1: columns - 1}),
        "q": (torch.zeros(height - 1, width), {0: rows - 1, 1: columns}),
        "response": (torch.ones(segments, 3), {}),
    }
    examples = tuple(example for example, _ in inputs.values())
    shapes = {name: axes for name, (_, axes) in inputs.items()}
    _write(FinetuneGraph(net), examples, list(inputs), ["shown"], shapes, path)


def _export(graph: nn.Module, slot: str, path: Path) -> None:
    """The graph takes those of the slot's inputs that its `forward` names."""
    rows, columns = (torch.export.Dim(axis, min=16, max=MOST_PX) for axis in "HW")
    dynamic: dict[str, Any] = {"S": torch.export.Dim("S", min=3), "H": rows, "W": columns}
    dynamic |= {"U": rows - 1, "V": columns - 1}
    names = list(signature(graph.forward).parameters)
    examples, shapes = [], {}
    for name in names:
        kind, axes = TENSORS[name]
        shape = [EXAMPLE[axis] if isinstance(axis, str) else axis for axis in axes]
        examples.append(torch.ones(shape, dtype=ELEMENTS[kind]))
        shapes[name] = {place: dynamic[axis] for place, axis in enumerate(axes) if isinstance(axis, str)}
    _write(graph, tuple(examples), names, SLOTS[slot].outputs, shapes, path)


def _write(
    graph: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: dict[str, Any],
    path: Path,
) -> None:
    with warnings.catch_warnings(), _quiet(logging.getLogger("torch.onnx")):
        warnings.simplefilter("ignore")  # the exporter's, about its own insides
        program = torch.onnx.export(
            graph.eval(),
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            verbose=False,
            optimize=False,
        )
        assert program is not None
        onnxscript.optimizer.optimize_ir(program.model, should_fold=_unless_learned)
    model = program.model_proto
    _slice_at_once(model.graph)
    model.ir_version = 10
    for told in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input):
        del told.metadata_props[:]  # where in whose folders each came from: most of a small graph's bytes
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _unless_learned(node: ir.Node) -> bool | None:
    """What is made of weights alone is left to the runtime, that does it once as it loads: so the weights lie in the
    graph as they were trained, under their own names, to be read and changed."""
    names = (value.name or "" for value in node.inputs if value is not None)
    return False if any(name.startswith(LEARNED) for name in names) else None


def _slice_at_once(graph: onnx.GraphProto) -> None:
    """A cut through several axes is written as one cut after the other: each copies the whole map."""
    known = {tensor.name: tuple(numpy_helper.to_array(tensor).ravel()) for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node if node.op_type == "Slice"}
    uses = Counter(name for node in graph.node for name in node.input)
    for node in list(graph.node):
        first = made.get(node.input[0]) if node.op_type == "Slice" else None
        if first is None or uses[first.output[0]] > 1 or not len(node.input) == len(first.input) > AXES:
            continue
        axes = [known.get(other.input[AXES], (-1,)) for other in (first, node)]
        if min(*axes[0], *axes[1]) < 0 or set(axes[0]) & set(axes[1]):
            continue
        place = list(graph.node).index(node)
        for number, parts in enumerate(zip(first.input[1:], node.input[1:], strict=True), start=1):
            both = f"{node.output[0]}_{number}"
            graph.node.insert(place, onnx.helper.make_node("Concat", parts, [both], axis=0))
            node.input[number] = both
        node.input[0] = first.input[0]
        graph.node.remove(first)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
