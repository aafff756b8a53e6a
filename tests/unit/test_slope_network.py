"""The slope network starts as classical inversion, fits its slot at any size, learns, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.instrument import Instrument, four_quadrant
from inference.calibration import calibrate
from inference.forward_model import render
from inference.networks.export import export_slopes
from inference.networks.slopes import SlopeNet
from inference.networks.unet import parameters_of
from inference.registry import CALIBRATION, MODELS, SLOTS, find_model_set
from inference.session import OnnxSession
from inference.training.batches import batches
from inference.training.model_set import write_slope_set
from inference.training.slopes import Recipe, last_figures, slope_loss, train_slopes

TINY = Recipe(samples=64, size_px=32, batch=16, width=8, depth=2, blocks=1, validation_batches=1)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "slopes.onnx"
    torch.manual_seed(0)
    export_slopes(SlopeNet(width=8, depth=2, blocks=1), path)
    return path


def three_segments() -> Instrument:
    detector = four_quadrant().detector
    segments = tuple(
        segment.model_copy(update={"azimuth_from_deg": 120.0 * place, "azimuth_to_deg": 120.0 * place + 120.0})
        for place, segment in enumerate(detector.segments[:3])
    )
    return four_quadrant().model_copy(update={"detector": detector.model_copy(update={"segments": segments})})


@pytest.mark.parametrize("instrument", [four_quadrant(), three_segments()], ids=["four", "three"])
@pytest.mark.parametrize("shape", [(17, 31), (64, 64), (33, 50)])
def test_the_untrained_network_is_classical_at_any_size(
    untrained: Path, shape: tuple[int, int], instrument: Instrument
) -> None:
    rng = np.random.default_rng(1)
    images = render(rng.normal(size=shape) * 2e-9, instrument, rng)
    calibration = calibrate(instrument, images)
    values = {"images": images, **{name: getattr(calibration, name) for name in CALIBRATION}}
    values["frames_held"] = rng.uniform(1.0, 16.0, shape).astype(np.float32)
    slot = SLOTS["slopes"]
    ours = OnnxSession(untrained, slot, "cpu", 1).run(values)
    theirs = OnnxSession(MODELS / "classical" / "slopes.onnx", slot, "cpu", 1).run(values)
    for name in slot.outputs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-4)


def test_batches_are_the_same_for_the_same_place_in_the_stream() -> None:
    first, again = (next(batches(3, 24, 16, 0, start=2)) for _ in range(2))
    later = next(batches(3, 24, 16, 0, start=3))
    assert torch.equal(first.images, again.images) and torch.equal(first.height, again.height)
    assert first.images.shape[0] == 16 and not torch.equal(first.height, later.height)


def test_steps_lower_the_loss_on_what_they_see() -> None:
    torch.manual_seed(1)
    batch = next(batches(5, 32, 16, 0))
    net = SlopeNet(width=8, depth=2, blocks=1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = slope_loss(net(batch.images, **batch.numbers), batch.height)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < losses[0] - 0.05


def test_a_run_that_was_stopped_goes_on_and_becomes_a_model_set(tmp_path: Path) -> None:
    done: list[int] = []
    state = tmp_path / "run"
    train_slopes(state, TINY, 0, lambda samples, most: done.append(samples), until_s=0.0)
    assert done == [16]
    trained = train_slopes(state, TINY, 0, lambda samples, most: done.append(samples))
    assert done[1:] == [32, 48, 64]
    figures = last_figures(state)
    assert figures["samples"] == 64 and figures["error_vs_classical"] > 0
    write_slope_set(trained, tmp_path / "models" / "tiny", TINY, "eclips train slopes", figures)
    card = find_model_set("tiny", tmp_path / "models")
    assert card.figures["error_deg"] == pytest.approx(figures["error_deg"])


def test_the_network_is_small_enough_to_ship() -> None:
    assert parameters_of(SlopeNet()) * 4 < 4_000_000
