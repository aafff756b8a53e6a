"""The slope network starts as a filter of classical slopes, fits its slot, learns, and goes on where it stopped."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant
from inference.calibration import calibrate
from inference.forward_model import render
from inference.networks.export import export_slopes
from inference.networks.moments import moments
from inference.networks.poisson import integrate, slopes_of
from inference.networks.slopes import SlopeNet, classical
from inference.networks.unet import parameters_of
from inference.registry import CALIBRATION, SLOTS, find_model_set
from inference.session import OnnxSession
from inference.training.batches import TURNS, Examples, batch_of, examples, turned
from inference.training.frames import Conditions, sample_stream
from inference.training.rehearsal import Rehearsal
from inference.training.run import Recipe, Run, logged, train
from inference.training.slopes import GIVEN, SlopeLesson, coverage
from inference.training.surface_errors import rms_angle

MOMENTS_OF = tuple(name for name in CALIBRATION if not name.startswith("pixel_size"))
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
def test_the_graph_gives_what_the_network_gives_at_any_size(
    untrained: Path, shape: tuple[int, int], instrument: Instrument
) -> None:
    rng = np.random.default_rng(1)
    images = render(rng.normal(size=shape) * 2e-9, instrument, rng)
    calibration = calibrate(instrument, images)
    values = {"images": images, **{name: np.asarray(getattr(calibration, name), np.float32) for name in CALIBRATION}}
    values["frames_held"] = rng.uniform(1.0, 16.0, shape).astype(np.float32)
    values["pixel_size_y_m"] = np.float32(1.25 * values["pixel_size_m"])
    slot = SLOTS["slopes"]
    found = OnnxSession(untrained, slot, "cpu", 1).run(values)
    given = [
        torch.from_numpy(np.asarray(values[name], np.float32))[None] for name in ("images", *MOMENTS_OF, "frames_held")
    ]
    expected = SlopeNet(width=8, depth=2, blocks=1)(*given, torch.tensor(0.8))
    for name in slot.outputs:
        torch.testing.assert_close(
            torch.from_numpy(found[name]).to(torch.float32),
            getattr(expected, name)[0].to(torch.float32),
            atol=2e-4,
            rtol=1e-3,
        )


def test_untrained_it_is_the_filter_of_the_classical_slopes() -> None:
    seen = lessons(3)
    net = SlopeNet(width=8, depth=2, blocks=1)
    p, q, *_ = net.correct(*(seen[name] for name in GIVEN))
    start = net.start(*(seen[name] for name in GIVEN), 1.0)
    torch.testing.assert_close(p, start.p)
    torch.testing.assert_close(q, start.q)


def lessons(seed: int, start: int = 0) -> Examples:
    return next(examples(seed, 32, 16, 0, SlopeLesson().examples, start))


def test_examples_are_the_same_for_the_same_place_in_the_stream() -> None:
    first, again, later = lessons(3, 2), lessons(3, 2), lessons(3, 3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(first["height"]) == 16 and not torch.equal(first["height"], later["height"])


@pytest.mark.parametrize("turn", range(TURNS))
def test_a_turned_scene_has_turned_slopes(turn: int) -> None:
    """The classical slopes of what is turned are the turned heights' slopes, detector and all."""
    batch = batch_of(list(islice(sample_stream(5, 24, Conditions(doses=(1e6, 2e6))), 4)))
    before, after = batch, turned(batch, turn)
    for seen in (before, after):
        found = moments(seen.images, **seen.numbers)
        p, q = classical(found)[:2]
        true_p, true_q = slopes_of(seen.height)
        assert torch.corrcoef(torch.stack([p.flatten(), true_p.flatten()]))[0, 1] > 0.8
        assert torch.corrcoef(torch.stack([q.flatten(), true_q.flatten()]))[0, 1] > 0.8
    errors = [
        rms_angle(*classical(moments(seen.images, **seen.numbers))[:2], *slopes_of(seen.height))
        for seen in (before, after)
    ]
    assert bool((errors[0] > 0).all())
    torch.testing.assert_close(errors[0], errors[1], rtol=0.15, atol=0.0)


def test_the_integrating_layer_gives_the_surface_whose_slopes_it_takes() -> None:
    height = torch.randn(2, 21, 34, dtype=torch.float32).cumsum(dim=1).cumsum(dim=2)
    height = height - height.mean(dim=(1, 2), keepdim=True)
    aspect = 0.8
    torch.testing.assert_close(integrate(*slopes_of(height, aspect), aspect), height, rtol=1e-3, atol=2e-3)


def test_steps_lower_the_losses_on_what_they_see() -> None:
    run = Run(SlopeLesson(), replace(TINY, samples=100_000, hard_every=0))
    seen, totals = lessons(5), []
    run.samples = 10_000
    for _ in range(25):
        run.learn(seen)
        means = run.mean_losses()
        totals.append(means["coverage"] + means["angle"] + means["height"])
    assert min(totals[-5:]) < totals[0] - 0.05


def test_the_sigma_that_is_learned_covers_two_thirds_of_heavy_tailed_errors() -> None:
    torch.manual_seed(0)
    errors = torch.distributions.StudentT(2.0).sample((1, 200, 200))
    log_sigma = torch.zeros(1, requires_grad=True)
    for _ in range(300):
        coverage(errors, torch.exp(log_sigma)).mean().backward()
        with torch.no_grad():
            log_sigma -= 0.1 * log_sigma.grad
            log_sigma.grad = None
    assert float((errors.abs() < torch.exp(log_sigma)).float().mean()) == pytest.approx(0.6827, abs=0.01)


def test_the_hardest_examples_are_rehearsed_once() -> None:
    rehearsal = Rehearsal(4)
    for hardness in ([1.0, 5.0, 2.0], [4.0, 0.0, 3.0]):
        rehearsal.offer({"which": torch.tensor(hardness)}, torch.tensor(hardness))
    assert rehearsal.take(2)["which"].tolist() == [5.0, 4.0]
    assert rehearsal.take(2)["which"].tolist() == [3.0, 2.0]
    assert len(rehearsal) == 0


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    done: list[int] = []

    def progress(samples: int, most: int) -> None:
        done.append(samples)

    train(SlopeLesson(), tmp_path / "run", TINY, 0, progress, 0.0)
    assert done == [16]
    train(SlopeLesson(), tmp_path / "run", TINY, 0, progress)
    assert done[1:] == [32, 48, 64]
    last = logged(tmp_path / "run")[-1]
    assert last["samples"] == 64 and last["error_vs_classical"] > 0 and last["hours"] > 0
    assert (tmp_path / "run" / "progress.png").stat().st_size > 1000
    with pytest.raises(BadInput, match="width = 8"):
        train(SlopeLesson(), tmp_path / "run", replace(TINY, width=16), 0, lambda samples, most: None)


def test_a_minute_of_training_is_better_than_classical_and_becomes_part_of_a_set(tmp_path: Path) -> None:
    arguments = ["train", "slopes", "--quick", "--out", str(tmp_path / "models"), "--state", str(tmp_path / "run")]
    subprocess.run([sys.executable, "-m", "service.cli", *arguments], check=True, timeout=600)
    card = find_model_set("unet", tmp_path / "models")
    part = card.parts["slopes"]
    assert part.figures["error_vs_classical"] < 0.8
    assert 0.5 < part.figures["within_sigma"] < 0.85
    assert f"--samples {part.figures['samples']:.0f}" in part.command and part.hours > 0
    assert card.parts["integrate"] == find_model_set("classical").parts["integrate"]


def test_the_network_is_small_enough_to_ship() -> None:
    assert parameters_of(SlopeNet()) * 4 < 10_000_000
