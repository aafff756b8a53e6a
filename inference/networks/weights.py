"""The weights of a network, read from its graph and written into it: no second copy of them is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from acquisition.errors import BadInput
from inference.networks.dsm import Dsm
from inference.networks.slopes import SlopeNet

Network = TypeVar("Network", bound=nn.Module)

OWN = "net."
WEIGHT, BIAS = ".weight", ".bias"


def read_slopes(path: Path) -> SlopeNet:
    """The network whose graph `path` holds, of whatever size, bit for bit.

    Raises `BadInput` for a graph that is no slope network, such as the classical one, and for a file that cannot be
    read.
    """
    graph = _model(path).graph
    held, places = _held(graph), _places(graph)
    depth = sum(name.startswith("net.heads.") and name.endswith(BIAS) for name in places)
    if depth < 1 or "net.body.enter.weight" not in places:
        raise BadInput(f"{path} is no slope network: nothing can be adapted; name a set whose slopes are learned")
    width = held[places["net.body.enter.weight"]].dims[0]
    return _filled(SlopeNet(width, depth, _blocks(places, depth)), held, places, path)


def read_rerender(path: Path) -> Dsm:
    """The DSM whose graph `path` holds. Raises `BadInput` as `read_slopes` does."""
    graph = _model(path).graph
    held, places = _held(graph), _places(graph)
    depth = sum(name.startswith("net.body.shrink.") and name.endswith(BIAS) for name in places) + 1
    if "weaken.0.weight" not in places or "net.body.enter.weight" not in places:
        raise BadInput(f"{path} is no DSM; name a set whose re-rendering is learned")
    width = held[places["net.body.enter.weight"]].dims[0]
    return _filled(Dsm(width, depth, _blocks(places, depth)), held, places, path)


def write_slopes(net: SlopeNet, like: Path, path: Path) -> None:
    """The graph of `like`, from which `net` was read, with its weights as they are now: the same graph otherwise, and
    without the exporter's half a minute. Raises `BadInput` as `read_slopes` does."""
    model = _model(like)
    names = {place: name for name, place in _places(model.graph).items()}
    state = net.state_dict()
    for tensor in model.graph.initializer:
        name = names.get(tensor.name)
        if name in state:
            values = state[name].detach().numpy().reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(model.SerializeToString(deterministic=True))


def _held(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def _blocks(places: dict[str, str], depth: int) -> int:
    """Of the U-Net's deepest level."""
    deepest = f"net.body.down.{depth - 1}."
    return len({name.split(".")[4] for name in places if name.startswith(deepest)})


def _filled(net: Network, held: dict[str, onnx.TensorProto], places: dict[str, str], path: Path) -> Network:
    state = {}
    for name, values in net.state_dict().items():
        if name not in places:
            raise BadInput(f"{path} lacks the weights {name} of its network: train it anew")
        read = np.array(numpy_helper.to_array(held[places[name]])).reshape(values.shape)
        state[name] = torch.from_numpy(read)
    net.load_state_dict(state)
    return net.eval()


def _model(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # its parser raises types of its own
        raise BadInput(f"{path} cannot be read as a graph: {error}") from error


def _places(graph: onnx.GraphProto) -> dict[str, str]:
    """Where each of the network's weights lies: under its own name, but in graphs of before `eclips train --again` for
    matrices, which a convolution takes as (O, I, 1, 1) under a new name, beside a bias that has kept its own."""
    held = {tensor.name for tensor in graph.initializer}
    places = {name.removeprefix(OWN): name for name in held if name.startswith(OWN)}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2].startswith(OWN) and node.input[1] in held:
            name = node.input[2].removeprefix(OWN).removesuffix(BIAS) + WEIGHT
            places.setdefault(name, node.input[1])
    return places
