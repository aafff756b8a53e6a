"""The VFT shows flat surfaces flat, shadows where walls stand, gradients to heights, and learns exact horizons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from acquisition.errors import ComponentFailed
from acquisition.instrument import four_quadrant
from inference.forward_model import captured_fractions, linear_response
from inference.networks.export import export_vft
from inference.networks.vft import AZIMUTHS, Vft, load_vft, save_vft, tables_of
from inference.registry import Part, list_model_sets
from inference.training.batches import batch_of
from inference.training.frames import Conditions, geometry_of_pool, make_sample
from inference.training.model_set import install_alone
from inference.training.run import Recipe, Run
from inference.training.vft import VftLesson, exact_horizons

PIXEL_M = four_quadrant().scan.pixel_size_m
FLAT = torch.from_numpy(linear_response(four_quadrant())[:, 2])


def wall_to_the_right(wall_px: float = 12.0) -> torch.Tensor:
    heights = torch.zeros(24, 24, dtype=torch.float64)
    heights[:, 16:] = wall_px
    return heights * PIXEL_M


def test_a_flat_surface_gives_the_flat_signal() -> None:
    found = Vft().fractions(torch.full((20, 30), 3e-9, dtype=torch.float64), four_quadrant())
    torch.testing.assert_close(found.double(), FLAT[:, None, None].expand(4, 20, 30), rtol=1e-5, atol=1e-7)


def test_a_wall_to_the_right_shadows_the_right_segment() -> None:
    """As BSESM has it, within some percent of the flat signal before any training."""
    with torch.no_grad():
        found = Vft().fractions(wall_to_the_right(), four_quadrant()).double()
    true = torch.from_numpy(captured_fractions(wall_to_the_right().numpy(), four_quadrant()))
    centres = [segment.centre_azimuth_deg % 360.0 for segment in four_quadrant().detector.segments]
    right, left = (min(range(4), key=lambda s: abs((centres[s] - at + 180) % 360 - 180)) for at in (0.0, 180.0))
    at_foot = (found[:, 12, 13] / FLAT).tolist()
    assert at_foot[right] < 0.5 and at_foot[left] > 0.99
    assert float(((found - true) / FLAT[:, None, None]).abs()[:, 4:-4, 4:-4].mean()) < 0.02


def test_horizons_turn_from_the_right_by_way_of_the_top() -> None:
    heights = np.zeros((25, 25), np.float32)
    heights[:6] = 20.0  # a wall at the image's top
    net, place = Vft(), torch.tensor([[[10, 12]]])
    with torch.no_grad():
        horizon = net(torch.from_numpy(heights)[None], place)[0, 0]
    reach = np.full((25, 25), 25, np.int32)
    exact = exact_horizons(heights, place[0].numpy(), reach, np.full((25, 25), 20.0, np.float32), 0.5)[0]
    top, bottom = AZIMUTHS // 4, 3 * AZIMUTHS // 4
    assert float(horizon[top]) > 0.9 and abs(float(horizon[bottom])) < 1e-6
    assert exact[top] > 0.9 and exact[bottom] == pytest.approx(0.5 / np.hypot(1.0, 0.5))


def test_the_gradient_reaches_the_wall_that_hides_and_the_foot_that_is_hidden() -> None:
    heights = wall_to_the_right().requires_grad_(True)
    found = Vft().fractions(heights, four_quadrant())
    torch.autograd.backward(found[:, 12, 12].sum() * 1e-6)
    assert heights.grad is not None
    assert float(heights.grad[12, 16]) < 0.0 < float(heights.grad[12, 12])
    assert torch.isfinite(heights.grad).all()


def lesson_of_walls() -> dict[str, torch.Tensor]:
    conditions = Conditions(geometry=geometry_of_pool(3), doses=(1e4, 2e4))
    rng = np.random.default_rng(3)
    return VftLesson().examples(batch_of([make_sample(rng, 32, "pits", conditions) for _ in range(4)]))


def test_steps_lower_the_losses_on_what_they_see() -> None:
    tiny = Recipe(100_000, size_px=32, batch=4, width=8, depth=1, muon=False, adam_rate=2e-3, hard_every=0)
    run = Run(VftLesson(), tiny)
    seen, totals = lesson_of_walls(), []
    run.samples = 10_000
    for _ in range(30):
        run.learn(seen)
        totals.append(sum(value for name, value in run.mean_losses().items() if name != "hardness"))
    assert min(totals[-5:]) < totals[0] - 0.03


def test_the_graph_gives_any_pixels_of_any_frame_before_any_detector(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Vft(8)
    torch.nn.init.normal_(net.leave.weight)
    card = install_alone(tmp_path / "vft", lambda path: export_vft(net, path), Part("", "", 1, 0.1, {}))
    assert (tmp_path / "vft" / "vft.toml").is_file() and list_model_sets(tmp_path) == []
    assert onnx.load(tmp_path / "vft" / "vft.onnx").opset_import[0].version == 20
    session = onnxruntime.InferenceSession(card.folder / "vft.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(5)
    for number, shape in ((0, (30, 41)), (1, (24, 19))):
        tables = tables_of(geometry_of_pool(number))
        heights = 4.0 * rng.normal(size=shape).astype(np.float32)
        places = rng.integers(0, min(shape), (7 + number, 2))
        values = {name: part.numpy() for name, part in tables._asdict().items()}
        found = session.run(None, {"height_px": heights, "places": places, **values})[0]
        with torch.no_grad():
            expected = net.at(torch.from_numpy(heights)[None], torch.from_numpy(places)[None], tables)[0].T
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_weights_come_back_whatever_their_size(tmp_path: Path) -> None:
    net = Vft(8, depth=2)
    torch.nn.init.normal_(net.leave.weight)
    save_vft(net, tmp_path / "vft.pt")
    again = load_vft(tmp_path / "vft.pt")
    heights, places = torch.randn(1, 20, 20), torch.tensor([[[3, 4], [10, 12]]])
    torch.testing.assert_close(again(heights, places), net(heights, places))
    with pytest.raises(ComponentFailed, match="eclips train vft"):
        load_vft(tmp_path / "missing.pt")
