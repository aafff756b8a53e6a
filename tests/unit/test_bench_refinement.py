"""Whether refining together brings back known truth: a few steps on a small frame, each arm with what it may move."""

from __future__ import annotations

import numpy as np
import pytest

from service.benchmarks import refinement
from service.benchmarks.measured import Measured, Request
from service.benchmarks.refinement import ARMS, GAINS, ROTATION_DEG, Refined, measure, refine

STEPS = 6


@pytest.fixture(scope="module")
def found() -> dict[str, Refined]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(refinement, "SIZE", 32)
        patched.setattr(refinement, "FRAMES", 3)
        return {one.arm: one for one in refine(STEPS)}


def test_what_an_arm_may_not_move_stays_as_stated(found: dict[str, Refined]) -> None:
    wrong = float(np.std(np.log(GAINS)))
    assert list(found) == list(ARMS)
    for arm in ("as stated", "network"):
        assert found[arm].rotation_error_deg == pytest.approx(ROTATION_DEG, abs=1e-4)
        assert found[arm].gain_error == pytest.approx(wrong, abs=1e-4)
    assert found["network"].slope_error_deg != found["as stated"].slope_error_deg


def test_physical_parameters_move_towards_the_truth_with_and_without_the_network(found: dict[str, Refined]) -> None:
    start = found["as stated"]
    for arm in ("physics", "both"):
        assert found[arm].rotation_error_deg < start.rotation_error_deg - 0.5
        assert found[arm].gain_error < 0.9 * start.gain_error
        assert found[arm].slope_error_deg < start.slope_error_deg


def test_rows_are_of_both_together_beside_physical_parameters_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [Refined(arm, 4.0 - n, 0.04 - 0.01 * n, 8.0 - n) for n, arm in enumerate(ARMS)]
    asked: list[int] = []

    def refined(steps: int, model: str) -> list[Refined]:
        asked.append(steps)
        return arms

    monkeypatch.setattr(refinement, "refine", refined)
    rows = {quick: measure(Request(quick, None, ("unet",))).rows for quick in (False, True)}
    assert asked == [refinement.STEPS, refinement.QUICK_STEPS]
    gains = rows[False]["gain_error_pct"]
    assert isinstance(gains, Measured)
    assert (gains.value, gains.peer_value) == pytest.approx((1.0, 3.0))
    assert set(rows[True]) == {"rotation_error_deg", "gain_error_pct", "slope_error_deg"}
