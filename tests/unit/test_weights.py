"""A network's weights out of its graph and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant
from inference.calibration import calibrate
from inference.networks.graphs import SlopeGraph
from inference.networks.slopes import SlopeNet
from inference.networks.weights import read_slopes, write_slopes
from inference.registry import CALIBRATION, MODELS, SLOTS
from inference.session import OnnxSession

SHIPPED = MODELS / "unet" / "slopes.onnx"


def shown() -> dict[str, np.ndarray]:
    images = np.random.default_rng(4).poisson(900.0, (4, 34, 40)).astype(np.uint16) * 8 + 200
    numbers = calibrate(four_quadrant(), images)
    values = {name: np.asarray(getattr(numbers, name)) for name in CALIBRATION}
    return {"images": images, "frames_held": np.ones(images.shape[1:], np.float32), **values}


def by_torch(net: SlopeNet) -> list[np.ndarray]:
    values = shown()
    order = ("images", *CALIBRATION, "frames_held")
    with torch.no_grad():
        found = SlopeGraph(net)(*(torch.as_tensor(values[name]) for name in order))
    return [values.numpy() for values in found[:4]]


def by_runtime(path: Path) -> list[np.ndarray]:
    found = OnnxSession(path, SLOTS["slopes"], "cpu", 1).run(shown())
    return [found[name] for name in ("p", "q", "sigma_p", "sigma_q")]


def test_the_shipped_network_read_from_its_graph_gives_what_the_graph_gives() -> None:
    for ours, graphs in zip(by_torch(read_slopes(SHIPPED)), by_runtime(SHIPPED), strict=True):
        np.testing.assert_allclose(ours, graphs, rtol=1e-3, atol=1e-4)


def test_changed_weights_are_what_the_written_graph_runs_and_what_is_read_again(tmp_path: Path) -> None:
    net, before = read_slopes(SHIPPED), by_runtime(SHIPPED)
    torch.manual_seed(2)
    with torch.no_grad():
        for values in net.parameters():
            values.add_(0.05 * values.std(correction=0) * torch.randn_like(values))
    write_slopes(net, SHIPPED, tmp_path / "slopes.onnx")
    after = by_runtime(tmp_path / "slopes.onnx")
    assert np.abs(after[0] - before[0]).max() > 1e-3
    for ours, graphs in zip(by_torch(net), after, strict=True):
        np.testing.assert_allclose(ours, graphs, rtol=1e-3, atol=1e-4)
    again = read_slopes(tmp_path / "slopes.onnx").state_dict()
    assert all(torch.equal(again[name], values) for name, values in net.state_dict().items())


def test_the_classical_graph_is_told_to_hold_no_network() -> None:
    with pytest.raises(BadInput, match="no slope network"):
        read_slopes(MODELS / "classical" / "slopes.onnx")


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "slopes.onnx").write_bytes(b"\x00garbage")
    with pytest.raises(BadInput, match=r"slopes\.onnx"):
        read_slopes(tmp_path / "slopes.onnx")
