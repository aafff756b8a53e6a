"""Uncertainty budgets: they cover what they say, name their largest term, and use that frames are level."""

from __future__ import annotations

import math

import numpy as np
import pytest

from acquisition.instrument import CalibratedNumber, CalibrationRecord, Instrument, four_quadrant
from inference.metrology.budget import ADVICE, Budget, Circumstances, Term, mixed_px, step_budget
from inference.metrology.instrument_error import NAMES, instrument_error, pixel_error
from inference.metrology.step_height import StepHeight
from inference.training.frames import calibrated
from service.benchmarks.metrology_budget import errors_over_sigma
from service.budgets import budget_lines, budget_trees

STEP = StepHeight(20e-9, 0.1e-9, "counting noise", "straight faces", (1e-6,), (), (), 0.0, 0.0, (0.5,), "images", 1.21)


def instrument(record: CalibrationRecord | None = None) -> Instrument:
    made = calibrated(four_quadrant(), 3000.0, 0.7, [8.0] * 4, [300.0] * 4)
    return made.model_copy(update={"calibration": record})


def level(gains: tuple[float, ...] = (8.0,) * 4) -> np.ndarray:
    """A level specimen as a detector of these gains shows it."""
    counts = 750.0 * np.array(gains)[:, None, None] + 300.0
    return np.rint(np.broadcast_to(counts, (4, 40, 40))).astype(np.uint16)


def budget_of(made: Instrument, images: np.ndarray) -> Budget:
    at = Circumstances(instrument_error(made, images), *pixel_error(made), 0.001, "from the frame beside it")
    return step_budget(STEP, (1.0, 0.0), 0.76, 10e-9, at)


def sigmas(budget: Budget) -> dict[str, float]:
    return {term.name: term.sigma for term in budget.terms}


def test_steps_lie_within_their_budgets_as_often_as_they_should() -> None:
    off = errors_over_sigma(10)
    assert 0.5 < math.sqrt(np.mean(off**2)) < 1.6
    assert np.mean(np.abs(off) < 2) >= 0.8


def test_terms_add_in_squares_and_the_largest_is_named_with_what_to_do() -> None:
    budget = Budget("step", 1.0, "m", "images", (Term("gains", 3.0, "here"), Term("drift", 4.0, "there")))
    assert budget.sigma == pytest.approx(5.0)
    (tree,) = budget_trees([budget])
    assert (tree["largest"], tree["advice"]) == ("drift", ADVICE["drift"])
    assert [term["name"] for term in tree["terms"]] == ["gains", "drift"]
    assert any("drift" in line and "there" in line for line in budget_lines([budget]))
    assert set(NAMES.values()) < set(ADVICE)


def test_what_a_chi_square_widened_is_the_models_part() -> None:
    found = sigmas(budget_of(instrument(), level()))
    assert math.hypot(found["counting noise"], found["model residual"]) == pytest.approx(STEP.sigma_m)
    assert found["counting noise"] == pytest.approx(STEP.sigma_m / 1.1)
    assert found["pixel size"] == pytest.approx(0.02 * STEP.height_m)
    assert found["drift"] == pytest.approx(0.001 * STEP.height_m)


def test_a_calibration_takes_its_own_errors_and_says_so() -> None:
    number = CalibratedNumber(value=8e-3, sigma=8e-6, prior=8e-3, prior_sigma=1e-3, identifiable=True)
    record = CalibrationRecord(
        version=7, date="", based_on="", runs={}, reduced_chi2={}, parameters={"working_distance_m": number}
    )
    found, stated = budget_of(instrument(record), level()), budget_of(instrument(), level())
    told = {term.name: term.told for term in found.terms}
    assert told["working distance"] == "calibration 7" and "not calibrated" in told["gains"]
    # A thousandth where five percent are stated.
    assert sigmas(found)["working distance"] == pytest.approx(0.02 * sigmas(stated)["working distance"], rel=0.1)


def test_gains_may_be_off_no_further_than_the_frame_looks_tilted() -> None:
    def inclined_deg(images: np.ndarray) -> float:
        found = instrument_error(instrument(), images)
        return math.degrees(
            math.hypot(*(sigma for _, sigma, _ in found.shares(found.along(np.zeros(1), (1.0, 0.0))[:, 0])))
        )

    assert inclined_deg(level()) == pytest.approx(1.0, abs=0.05)
    assert inclined_deg(level((10.0, 8.0, 6.5, 8.0))) > 8.0


def test_an_edge_takes_from_a_map_what_its_two_normals_mixed_lack() -> None:
    slope, at = math.tan(math.radians(25.0)), np.linspace(-6.0, 6.0, 4001)
    passed = 0.5 * (1.0 + np.array([math.erf(one / math.sqrt(2.0)) for one in at]))
    sine, cosine = math.sin(math.radians(25.0)), math.cos(math.radians(25.0))
    lacking = passed * slope - passed * sine / (1.0 - passed + passed * cosine)
    assert mixed_px(slope, 0.76) == pytest.approx(0.76 * float(np.sum(lacking)) * (at[1] - at[0]), rel=1e-3)
