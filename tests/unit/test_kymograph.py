"""Velocities of steps that flow at a known speed, at three doses of noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from inference.metrology.height_map import FrameMap, HeightMap
from inference.metrology.kymograph import kymograph, step_motion

PIXEL_M, STEP_M, TERRACE_PX, SECOND_NS = 5e-9, 10e-9, 30.0, 1_000_000_000
SPEED_PX = 0.37
FRAMES = 30
Y, X = np.mgrid[:60, :140].astype(np.float64)


def flow(
    noise_m: float,
    seed: int = 1,
    drift_px: tuple[float, float] = (0.0, 0.0),
    sense: float = 1.0,
    speed_px: float = SPEED_PX,
) -> Iterator[FrameMap]:
    """Steps that move to the right, one frame a second, each frame with noise of its own; the view may drift."""
    rng = np.random.default_rng(seed)
    for number in range(FRAMES):
        x = X - number * drift_px[1]
        within = (np.arange(10) - 4.5)[:, None, None] / 10.0  # a pixel is the mean of what lies in it
        stairs = np.floor((x[0] + within - 41.0 - speed_px * number) / TERRACE_PX).mean(axis=0)
        noise = gaussian_filter(rng.normal(size=X.shape), 1.0)
        height_m = (
            gaussian_filter(np.broadcast_to(-sense * STEP_M * stairs, X.shape), (0, 1.0))
            + noise_m * noise / noise.std()
            + 1e-6 * rng.normal()
        )
        yield FrameMap(number, 0, (7 + number) * SECOND_NS, HeightMap(height_m, PIXEL_M, PIXEL_M), {})


@pytest.mark.parametrize(("noise_m", "sense"), [(0.1e-9, 1.0), (0.4e-9, -1.0), (1.5e-9, 1.0)])
def test_velocity_is_right_to_two_percent_and_as_certain_as_told(noise_m: float, sense: float) -> None:
    errors, told = [], []
    for seed in range(3):
        seen = kymograph(flow(noise_m, seed, sense=sense), [(5.0, 30.0), (135.0, 30.0)], 15)
        found = step_motion(seen, start_m=66.5 * PIXEL_M)
        assert found.missed == () and abs(found.rise_m) == pytest.approx(STEP_M, rel=0.1)
        errors.append(found.velocity_m_per_s / (SPEED_PX * PIXEL_M) - 1.0)
        told.append(found.sigma_m_per_s / (SPEED_PX * PIXEL_M))
    assert np.sqrt(np.mean(np.square(errors))) < 0.02
    assert 0.3 < np.sqrt(np.mean(np.square(told)) / np.mean(np.square(errors))) < 3.0


def test_a_line_that_follows_the_drift_sees_none_of_it() -> None:
    drift = (0.0, -0.5)
    shifts = np.outer(np.arange(FRAMES), drift)
    seen = kymograph(flow(0.3e-9, drift_px=drift), [(30.0, 30.0), (130.0, 30.0)], 15, shifts)
    found = step_motion(seen, start_m=41.5 * PIXEL_M)
    assert found.velocity_m_per_s == pytest.approx(SPEED_PX * PIXEL_M, rel=0.02)


def test_a_step_that_moves_by_most_of_its_reach_is_followed() -> None:
    frames = list(flow(0.1e-9, speed_px=8.0))[:8]
    found = step_motion(kymograph(frames, [(5.0, 30.0), (135.0, 30.0)], 15), start_m=36.5 * PIXEL_M)
    assert found.missed == () and found.velocity_m_per_s == pytest.approx(8.0 * PIXEL_M, rel=0.02)


def test_a_frame_without_the_step_is_missed_and_not_believed() -> None:
    frames = list(flow(0.1e-9))
    blank = HeightMap(1e-12 * X * Y, PIXEL_M, PIXEL_M)
    frames[11] = FrameMap(11, 0, frames[11].monotonic_ns, blank, {})
    found = step_motion(kymograph(frames, [(5.0, 30.0), (135.0, 30.0)], 5), start_m=66.5 * PIXEL_M)
    assert found.missed == (11,)
    assert found.velocity_m_per_s == pytest.approx(SPEED_PX * PIXEL_M, rel=0.02)


def test_each_frame_is_seen_about_its_own_mean_with_its_uncertainty() -> None:
    seen = kymograph(flow(0.1e-9), [(5.0, 30.0), (135.0, 30.0)], 9)
    assert seen.height_m.shape == seen.sigma_m.shape == (FRAMES, 131)
    assert np.abs(seen.height_m.mean(axis=1)).max() < 1e-12
    np.testing.assert_allclose(seen.time_s, np.arange(FRAMES))
    lines = seen.csv().splitlines()
    assert lines[0].startswith("sequence,time_s,0.0") and len(lines) == FRAMES + 1


def test_too_few_frames_or_shifts_are_refused() -> None:
    line = [(5.0, 30.0), (135.0, 30.0)]
    with pytest.raises(BadInput, match="takes 3"):
        step_motion(kymograph(list(flow(0.1e-9))[:2], line))
    for shifts in (np.zeros((2, 2)), np.zeros((FRAMES + 1, 2))):
        with pytest.raises(BadInput, match="shift"):
            kymograph(flow(0.1e-9), line, 1, shifts)
