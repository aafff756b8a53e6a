"""The DSM starts as classical re-rendering for any detector, fits its slot at any size, and learns what is hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.instrument import Instrument, four_quadrant
from inference.calibration import calibrate
from inference.forward_model import expected_electrons, render
from inference.networks.dsm import Dsm, linear_shares, of_sum
from inference.networks.export import export_rerender
from inference.networks.poisson import slopes_of
from inference.registry import CALIBRATION, MODELS, SLOTS
from inference.session import OnnxSession
from inference.training.batches import TURNS, Batch, batch_of, turned, turned_back, turned_maps
from inference.training.dsm import LEAST_ERROR, DsmLesson, given, share_errors
from inference.training.exact import exact_images
from inference.training.frames import Conditions, geometry_of_pool, make_sample
from inference.training.run import Recipe, Run

TINY = Recipe(100_000, size_px=32, batch=4, width=8, depth=2, muon_rate=1.2e-2, adam_rate=2e-3, hard_every=0)


def ring_of(count: int) -> Instrument:
    detector = four_quadrant().detector
    span = 360.0 / count
    segments = tuple(
        detector.segments[0].model_copy(
            update={"name": f"S{place}", "azimuth_from_deg": span * place + 10.0, "azimuth_to_deg": span * place + span}
        )
        for place in range(count)
    )
    return four_quadrant().model_copy(update={"detector": detector.model_copy(update={"segments": segments})})


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "rerender.onnx"
    torch.manual_seed(0)
    export_rerender(Dsm(width=8, depth=2, blocks=1), path)
    return path


@pytest.fixture(scope="module")
def steep() -> Batch:
    conditions = Conditions(geometry=geometry_of_pool(3), doses=(1e5, 2e5), sharp_share=1.0)
    rng = np.random.default_rng(2)
    return batch_of([make_sample(rng, 32, "pits", conditions) for _ in range(4)])


@pytest.mark.parametrize(("segments", "shape"), [(3, (17, 31)), (4, (64, 64)), (5, (33, 50)), (6, (40, 21))])
def test_untrained_it_is_classical_for_any_detector_and_size(
    untrained: Path, segments: int, shape: tuple[int, int]
) -> None:
    instrument, rng = ring_of(segments), np.random.default_rng(1)
    images = render(rng.normal(size=shape) * 2e-9, instrument, rng)
    calibration = calibrate(instrument, images)
    values = {"images": images, **{name: getattr(calibration, name) for name in CALIBRATION}}
    values["frames_held"] = rng.uniform(1.0, 16.0, shape).astype(np.float32)
    values["p"] = rng.normal(0.0, 0.2, (shape[0], shape[1] - 1)).astype(np.float32)
    values["q"] = rng.normal(0.0, 0.2, (shape[0] - 1, shape[1])).astype(np.float32)
    slot = SLOTS["rerender"]
    ours = OnnxSession(untrained, slot, "cpu", 1).run(values)
    theirs = OnnxSession(MODELS / "classical" / "rerender.onnx", slot, "cpu", 1).run(values)
    np.testing.assert_allclose(ours["predicted"], theirs["predicted"], rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(ours["residual"], theirs["residual"], rtol=1e-3, atol=1e-3)


def test_where_nothing_is_hidden_linear_shares_are_bsesm_beam_included() -> None:
    instrument = four_quadrant()
    instrument = instrument.model_copy(update={"beam": instrument.beam.model_copy(update={"sigma_px": 0.8})})
    row, column = np.indices((40, 40))
    height = 2.0 * np.sin(column / 5.0) + np.cos(row / 7.0)
    true = torch.from_numpy(expected_electrons(height * instrument.scan.pixel_size_m, instrument, 1.0))
    response = torch.from_numpy(calibrate(instrument, np.ones((4, 40, 40), np.uint16)).response)
    p, q = slopes_of(torch.from_numpy(height.astype(np.float32))[None])
    found = linear_shares(p, q, response[None], torch.ones(1), torch.full((1,), 0.8))[0]
    torch.testing.assert_close(found[:, 8:-8, 8:-8], true[:, 8:-8, 8:-8], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("turn", range(TURNS))
def test_what_is_turned_can_be_turned_back(turn: int) -> None:
    maps = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(turned_back(turned_maps(maps, turn), turn), maps)


@pytest.mark.parametrize("turn", [1, 2, 4, 7])
def test_a_turned_scene_has_turned_exact_images_that_its_turned_detector_explains(steep: Batch, turn: int) -> None:
    """Flattened until nothing is hidden, the linear shares of turned slopes before the turned response are exact."""
    before = exact_images(steep, steep.height)
    after = turned(steep, turn)
    torch.testing.assert_close(exact_images(after, after.height), turned_maps(before, turn))
    heights = 0.02 * after.height
    flat = torch.ones(len(heights))
    seen = linear_shares(*slopes_of(heights), after.numbers["response"], flat, after.numbers["beam_sigma_px"])
    torch.testing.assert_close(seen, exact_images(after, heights), rtol=1e-4, atol=1e-5)


def test_examples_of_detectors_with_other_numbers_of_segments_go_together() -> None:
    rng = np.random.default_rng(4)
    shapes = []
    for number in (0, 1):
        sample = make_sample(rng, 24, "grains", Conditions(geometry=geometry_of_pool(number)))
        examples = DsmLesson().examples(batch_of([sample]))
        shapes.append({name: values.shape for name, values in examples.items()})
    assert len(geometry_of_pool(0).detector.segments) != len(geometry_of_pool(1).detector.segments)
    assert shapes[0] == shapes[1]


def test_the_lesson_starts_from_the_error_of_classical_and_steps_lower_it(steep: Batch) -> None:
    lesson = DsmLesson()
    examples = lesson.examples(steep)
    run = Run(lesson, replace(TINY))
    true = examples["shares"]
    linear = of_sum(linear_shares(**given(examples)), true.sum(dim=1, keepdim=True))
    squares = share_errors(linear, true, examples["response"]) ** 2
    classical = float((squares / (squares + LEAST_ERROR**2)).mean())
    run.samples = 10_000
    losses = []
    for _ in range(30):
        run.learn(examples)
        losses.append(run.mean_losses()["shares"])
    assert losses[0] == pytest.approx(classical, rel=1e-4)
    assert min(losses[-5:]) < losses[0] - 0.05


def test_errors_of_given_slopes_are_no_errors_of_the_network(steep: Batch) -> None:
    """With the true hidden part added to what noisy slopes show, nothing is left to learn: the lesson's target asks
    for the hidden part alone."""
    sure = steep._replace(height=0.02 * steep.height)
    examples = DsmLesson().examples(sure)
    true = examples["shares"]
    changed = (examples["p"] - slopes_of(sure.height)[0]).abs().mean(dim=(1, 2))
    errors = share_errors(linear_shares(**given(examples)), true, examples["response"])
    assert float(changed.max()) > 0.002
    assert float(errors.max()) < 2e-3
