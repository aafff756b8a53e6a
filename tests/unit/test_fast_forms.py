"""What was rewritten to be fast gives what plain forms give, at odd sizes too; shipped graphs hold their weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, load
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array
from onnx.reference import ReferenceEvaluator
from torch.nn import functional

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant
from inference.calibration import calibrate
from inference.networks.dsm import Dsm, blurred, centred, harmonics_of_directions, horizons, normals, that_counts
from inference.networks.export import LEARNED, OPSET, _slice_at_once
from inference.networks.graphs import RerenderGraph
from inference.networks.poisson import cosines, folded_cosines, from_modes, integrate, to_modes
from inference.networks.scales import BINOMIAL, coarser
from inference.networks.slopes import SlopeNet
from inference.networks.unet import LEAK, Block, summed, times_one
from inference.networks.weights import read_rerender, read_slopes, write_slopes
from inference.networks.wiener import _around
from inference.registry import CALIBRATION, MODELS, SLOTS, find_model_set
from inference.session import OnnxSession
from inference.training import nets
from inference.training.nets import write_again

SHAPES = [(2, 3), (17, 31), (64, 64), (33, 50)]
UNET = MODELS / "unet"


@pytest.mark.parametrize("shape", SHAPES)
def test_folded_cosines_are_the_whole_matrix(shape: tuple[int, int]) -> None:
    maps = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    along = folded_cosines(shape[0])
    torch.testing.assert_close(to_modes(maps, along), cosines(shape[0]) @ maps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(from_modes(to_modes(maps, along), along), maps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_means_of_modes_are_those_of_a_pooling_layer(shape: tuple[int, int]) -> None:
    power = torch.rand(2, *shape, generator=torch.Generator().manual_seed(2)) + 0.1
    means = []
    for count in (9, 15):
        lines = functional.avg_pool2d(power, (1, count), 1, (0, count // 2), count_include_pad=False)
        means.append(functional.avg_pool2d(lines, (count, 1), 1, (count // 2, 0), count_include_pad=False))
    rows, columns = (torch.arange(float(count)) for count in shape)
    fine = ((rows[:, None] ** 2 + columns**2).sqrt() / 10.0 - 1.0).clamp(0.0, 1.0)
    torch.testing.assert_close(_around(power), means[0] + fine * (means[1] - means[0]), rtol=1e-5, atol=1e-6)


def test_a_convolution_of_parts_is_that_of_the_whole() -> None:
    torch.manual_seed(3)
    layer, whole = torch.nn.Conv2d(17, 8, 4, stride=2, padding=2), torch.randn(2, 17, 33, 50)
    parts = [whole[:, :10], whole[:, 10:13], whole[:, 13:]]
    torch.testing.assert_close(summed(layer, parts), layer(whole), rtol=1e-5, atol=1e-5)


def test_a_block_adds_its_share_of_what_it_mixes() -> None:
    torch.manual_seed(6)
    block, values = Block(8), torch.randn(2, 8, 9, 14)
    with torch.no_grad():
        block.share.copy_(torch.randn(8, 1, 1))
        block.narrow.bias.copy_(torch.randn(8))
    mixed = block.narrow(functional.leaky_relu(block.widen(block.around(values)), LEAK))
    torch.testing.assert_close(block(values), values + block.share * mixed, rtol=1e-5, atol=1e-5)
    assert torch.equal(times_one(values), values)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_means_on_a_coarser_grid_are_of_each_channel_alone(shape: tuple[int, int]) -> None:
    maps, line = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(7)), torch.tensor(BINOMIAL)
    kernel = torch.outer(line, line).expand(1, 1, 4, 4)
    alone = [functional.conv2d(maps[:, one : one + 1], kernel, stride=2, padding=2) for one in range(3)]
    torch.testing.assert_close(coarser(maps), torch.cat(alone, dim=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("second_axis", "cuts"), [(1, 1), (0, 2)])
def test_cuts_through_two_axes_become_one_and_those_through_the_same_do_not(second_axis: int, cuts: int) -> None:
    names = ("start", "end", "axis", "step")
    values = {"first": (1, 6, 0, 1), "second": (1, 4, second_axis, 2)}
    held = [from_array(np.array([v]), f"{cut}_{n}") for cut in values for n, v in zip(names, values[cut], strict=True)]
    nodes = [
        make_node("Slice", ["x", *(f"first_{name}" for name in names)], ["between"]),
        make_node("Slice", ["between", *(f"second_{name}" for name in names)], ["y"]),
    ]
    given, found = (make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in "xy")
    model = make_model(make_graph(nodes, "cut", [given], [found], held), opset_imports=[make_opsetid("", OPSET)])
    maps = np.arange(56.0, dtype=np.float32).reshape(7, 8)
    expected = ReferenceEvaluator(model).run(None, {"x": maps})[0]
    _slice_at_once(model.graph)
    assert sum(node.op_type == "Slice" for node in model.graph.node) == cuts
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": maps})[0], expected)


@pytest.mark.parametrize("segments", [3, 5])
def test_segments_shares_are_those_of_harmonics_worked_out_at_every_pixel(segments: int) -> None:
    """The definition: what is hidden, harmonic by harmonic at every pixel, before segments weigh it."""
    torch.manual_seed(4)
    net, batch, shape = Dsm(width=8, depth=2, blocks=1), 2, (21, 34)
    with torch.no_grad():
        for values in net.parameters():
            values.add_(0.1 * torch.randn_like(values))
    p, q = 0.5 * torch.randn(batch, shape[0], shape[1] - 1), 0.5 * torch.randn(batch, shape[0] - 1, shape[1])
    response = torch.rand(batch, segments, 3) * 0.2
    share, sigma_px = torch.tensor([1.0, 0.8]), torch.tensor([0.0, 1.2])
    normal = normals(p, q)
    lost = net._lost(horizons(integrate(p, q)), torch.stack(centred(p, q), dim=1), normal, response)
    tilt, level = (torch.linalg.vector_norm(part.flatten(1), dim=1) for part in (response[..., :2], response[..., 2]))
    numbers = torch.stack([sigma_px, tilt / level], dim=1)[:, :, None, None].expand(-1, -1, *shape)
    guess = torch.einsum("hd,bdrc->bhrc", harmonics_of_directions(), lost)
    guess = torch.stack([-10.0 * net.trust * guess, torch.zeros_like(guess)], dim=2).flatten(1, 2)
    hidden = guess + 0.1 * net.net(normal, lost, numbers)
    weights = torch.cat([response, net._harmonics(response)], dim=2)
    seen = torch.einsum("bsc,bchw->bshw", weights, torch.cat([that_counts(normal, share), hidden], dim=1))
    found = net.shares(p, q, response, share, sigma_px)
    torch.testing.assert_close(found, blurred(seen, sigma_px), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slot", ["slopes", "rerender"])
def test_the_shipped_graphs_hold_their_weights_under_their_own_names(slot: str) -> None:
    net = read_slopes(UNET / "slopes.onnx") if slot == "slopes" else read_rerender(UNET / "rerender.onnx")
    held = {tensor.name for tensor in load(str(UNET / f"{slot}.onnx")).graph.initializer}
    assert {LEARNED + name for name in net.state_dict()} <= held


@pytest.mark.parametrize("shape", [(17, 31), (64, 50)])
def test_the_shipped_dsm_read_from_its_graph_gives_what_the_graph_gives(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    images = rng.poisson(900.0, (4, *shape)).astype(np.uint16) * 8 + 200
    numbers = calibrate(four_quadrant(), images)
    values = {"images": images, "frames_held": np.ones(shape, np.float32)}
    values |= {name: np.asarray(getattr(numbers, name), np.float32) for name in CALIBRATION}
    values["p"] = rng.normal(0.0, 0.4, (shape[0], shape[1] - 1)).astype(np.float32)
    values["q"] = rng.normal(0.0, 0.4, (shape[0] - 1, shape[1])).astype(np.float32)
    names = ("images", "response", "gain_counts_per_electron", "dark_counts", "flat_share", "beam_sigma_px")
    with torch.no_grad():
        given = [torch.as_tensor(values[name]) for name in (*names, "frames_held", "p", "q")]
        ours = RerenderGraph(read_rerender(UNET / "rerender.onnx"))(*given)
    graphs = OnnxSession(UNET / "rerender.onnx", SLOTS["rerender"], "cpu", 1).run(values)
    np.testing.assert_allclose(ours[0].numpy(), graphs["predicted"], rtol=1e-4)
    np.testing.assert_allclose(ours[1].numpy(), graphs["residual"], rtol=1e-3, atol=1e-4)


def test_a_graph_written_again_keeps_weights_and_figures_and_says_so_on_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(UNET, tmp_path / "unet")
    before = find_model_set("unet", tmp_path)

    def export(net: torch.nn.Module, path: Path) -> None:  # without the exporter's half a minute
        assert isinstance(net, SlopeNet)
        write_slopes(net, UNET / "slopes.onnx", path)

    monkeypatch.setattr(nets, "NETS", {**nets.NETS, "slopes": replace(nets.NETS["slopes"], export=export)})
    for _ in range(2):
        write_again("slopes", tmp_path, "unet")
    after = find_model_set("unet", tmp_path)  # which checks the hashes
    part = after.parts["slopes"]
    assert part.figures == before.parts["slopes"].figures and after.parts["rerender"] == before.parts["rerender"]
    assert part.command.count("eclips train slopes --again --name unet") == 1
    again = read_slopes(after.graph("slopes")).state_dict()
    assert all(
        torch.equal(again[name], values) for name, values in read_slopes(UNET / "slopes.onnx").state_dict().items()
    )


def test_what_cannot_be_read_from_its_graph_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="slopes, dsm can"):
        write_again("pinn", tmp_path, "unet")
    with pytest.raises(BadInput, match="no DSM"):
        read_rerender(MODELS / "classical" / "rerender.onnx")
