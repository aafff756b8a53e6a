"""An integrator that is told the truth: what it then takes off, and that shadows are found where they fall."""

from __future__ import annotations

import numpy as np
import pytest

from acquisition.instrument import four_quadrant
from inference.training.frames import MARGIN_PX, SUBPIXELS, calibration_of
from inference.training.held_out import Scene, exposures
from service.benchmarks.integrator_bounds import LIT, SHADOWED, WEIGHTS, bounds, shadowed_pixels
from service.benchmarks.judged import CLASSICAL, Seen
from service.benchmarks.model_sets import ModelSet

SIZE_PX, WALL_PX, STEP_PX = 48, 24, 10


@pytest.fixture(scope="module")
def beside_a_wall() -> Seen:
    """A step 10 pixels high between two levels: only its foot lies in its shadow."""
    fine = np.zeros((SUBPIXELS * (SIZE_PX + 2 * MARGIN_PX),) * 2, np.float32)
    fine[:, SUBPIXELS * (MARGIN_PX + WALL_PX) :] = STEP_PX
    scene = Scene("wall", "wall", 0, fine, four_quadrant(), (10_000.0,))
    case = next(exposures(scene))
    calibration = calibration_of(case.sample)
    slopes, height = ModelSet(CLASSICAL).answer(case.sample.images, calibration)
    truth = case.sample.height.astype(np.float64)
    return Seen(case, scene, calibration, truth, True, {CLASSICAL: slopes}, {CLASSICAL: height})


def test_shadows_fall_at_the_foot_of_a_wall_and_not_on_top(beside_a_wall: Seen) -> None:
    shadowed = shadowed_pixels(beside_a_wall)
    assert shadowed[:, WALL_PX - 3 : WALL_PX].all()
    assert not shadowed[:, :WALL_PX].all() and not shadowed[:, WALL_PX + 3 :].any()


def test_the_truth_in_shadow_takes_off_more_than_weights_do(beside_a_wall: Seen) -> None:
    slopes, shadowed = beside_a_wall.slopes[CLASSICAL], shadowed_pixels(beside_a_wall)
    found = bounds(beside_a_wall, slopes, shadowed)
    assert found[SHADOWED] < 0.2 < found[LIT]
    assert found[SHADOWED] < found[WEIGHTS]
    everywhere = bounds(beside_a_wall, slopes, np.ones_like(shadowed))
    assert everywhere[SHADOWED] == pytest.approx(0.0, abs=1e-6) and everywhere[LIT] == pytest.approx(1.0)
