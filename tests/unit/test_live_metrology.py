"""Live metrology: what is known of a surface is found in its frames as they come, and what is not determined is left
out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from acquisition.frames import Frame, JoinedValue, Result, ResultHeader
from acquisition.instrument import four_quadrant
from inference.metrology.height_map import HeightMap
from inference.metrology.live import MOST_KEPT, LiveMetrology
from recordings import frame
from surfaces_of_steps import PIXEL_M, TERRACE_M, as_map, spiral_m, straight_m

SIZE_PX = 128
CORE_PX = (62.0, 67.0)
PACE_M_PER_S = 8e-9
INTERVAL_S = 1.5
WHENEVER = 1e9


def at(number: int, interval_s: float = INTERVAL_S, run_id: str = "run", stage_x_m: float = 0.0) -> Frame:
    start_ns = round(number * interval_s * 1e9)
    shot = frame(number)
    state = {f"stage.{axis}_m": JoinedValue(value, True, 0.0) for axis, value in (("x", stage_x_m), ("y", 0.0))}
    times = {"exposure_start_ns": start_ns, "exposure_end_ns": start_ns + 10**9}
    return replace(shot, header=replace(shot.header, run_id=run_id, state=state, **times))


def measure(live: LiveMetrology, shot: Frame, map: HeightMap) -> dict[str, float]:
    return live.add(shot, map, passed_s=1.0)


def growing(number: int, drift_px: tuple[float, float] = (0.0, 0.0), interval_s: float = INTERVAL_S) -> HeightMap:
    core = (CORE_PX[0] + drift_px[0] * number, CORE_PX[1] + drift_px[1] * number)
    grown_m = PACE_M_PER_S * interval_s * number
    return as_map(spiral_m(SIZE_PX, core, 1.0, grown_m), dose=10_000, seed=number)


def test_velocity_density_and_spirals_of_a_growing_spiral_are_found() -> None:
    live = LiveMetrology(WHENEVER)
    first = measure(live, at(0), growing(0))
    assert "step_velocity_m_per_s" not in first
    figures = [measure(live, at(number), growing(number)) for number in range(1, 6)][-1]
    assert figures["step_velocity_m_per_s"] == pytest.approx(PACE_M_PER_S, rel=0.05)
    assert 0 < figures["step_velocity_error_m_per_s"] < 0.05 * PACE_M_PER_S
    assert figures["step_density_per_m"] == pytest.approx(1 / TERRACE_M, rel=0.2)
    assert figures["spirals"] == 1


def test_drift_is_told_from_growth_and_adds_up() -> None:
    live, drift_px = LiveMetrology(WHENEVER), (-0.06, 0.1)
    for number in range(8):
        figures = measure(live, at(number), growing(number, drift_px))
    assert figures["step_velocity_m_per_s"] == pytest.approx(PACE_M_PER_S, rel=0.05)
    assert figures["drift_x_m"] == pytest.approx(7 * drift_px[1] * PIXEL_M, rel=0.2)
    assert figures["drift_y_m"] == pytest.approx(7 * drift_px[0] * PIXEL_M, rel=0.2)


def test_steps_that_all_run_one_way_tell_no_drift_and_a_velocity_that_is_less_sure() -> None:
    live = LiveMetrology(WHENEVER)
    for number in range(4):
        grown_m = PACE_M_PER_S * INTERVAL_S * number
        figures = measure(live, at(number), as_map(straight_m(SIZE_PX, 20.0, grown_m), dose=10_000, seed=number))
    assert "drift_x_m" not in figures
    assert figures["step_velocity_m_per_s"] == pytest.approx(PACE_M_PER_S, abs=0.5e-9)
    assert figures["step_velocity_error_m_per_s"] > 0.3e-9


def test_a_slow_step_is_measured_over_several_frames() -> None:
    live, interval_s = LiveMetrology(WHENEVER), 0.1
    for number in range(MOST_KEPT + 3):
        figures = measure(live, at(number, interval_s), growing(number, interval_s=interval_s))
    assert figures["step_velocity_m_per_s"] == pytest.approx(PACE_M_PER_S, rel=0.15)


def test_a_flat_surface_and_a_frame_that_comes_late_tell_no_velocity() -> None:
    live = LiveMetrology(WHENEVER)
    for number in range(3):
        flat = measure(live, at(number), as_map(np.zeros((SIZE_PX, SIZE_PX)), dose=600, seed=number))
        assert "step_velocity_m_per_s" not in flat
    live = LiveMetrology(WHENEVER)
    for number in (4, 5):
        measure(live, at(number), growing(number))
    late = measure(live, at(2), growing(2))
    assert "step_velocity_m_per_s" not in late and late["spirals"] == 1
    assert "step_velocity_m_per_s" in measure(live, at(6), growing(6))


@pytest.mark.parametrize("elsewhere", [at(3, stage_x_m=1e-6), at(3, run_id="another")])
def test_another_view_begins_anew(elsewhere: Frame) -> None:
    live = LiveMetrology(WHENEVER)
    for number in range(3):
        seen = measure(live, at(number), growing(number))
    assert "step_velocity_m_per_s" in seen
    assert "step_velocity_m_per_s" not in measure(live, elsewhere, growing(3))


def test_it_leaves_frames_out_where_its_share_of_the_time_is_spent() -> None:
    live = LiveMetrology(0.3)
    first, second, late = (
        live.add(at(number), growing(number), passed) for number, passed in enumerate((1, 1e-6, 1e6))
    )
    assert "step_density_per_m" in first and "spirals" in first
    assert second == {}
    assert "step_velocity_m_per_s" in late and "spirals" in late


def test_a_result_keeps_its_own_figures_and_tells_what_measuring_took() -> None:
    before = result(0)
    after = LiveMetrology(WHENEVER).measured(at(0), four_quadrant(), before)
    assert after.header.figures["consistency_residual"] == 1.0
    assert after.header.figures["step_density_per_m"] == pytest.approx(1 / TERRACE_M, rel=0.2)
    assert after.header.timing_s["metrology"] > 0
    assert after.height_m is before.height_m


def result(number: int) -> Result:
    at_ns = number * 10**9
    header = ResultHeader(
        run_id="run",
        source="test",
        sequence=number,
        monotonic_ns=at_ns,
        utc_ns=at_ns,
        model="test",
        model_hashes={},
        provider="cpu",
        calibration_hash="",
        pixel_size_m=PIXEL_M,
        figures={"consistency_residual": 1.0},
        timing_s={},
    )
    return Result(header, {"height": growing(number).height_m.astype(np.float32)})
