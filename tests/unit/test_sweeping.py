"""Swept horizons against marched ones, and the vision field against walls placed within it and beyond."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant
from inference.forward_model import (
    MARCHED,
    SWEPT,
    Swept,
    captured_fractions,
    linear_response,
    near_border,
    vision_field_px,
)

PIXEL_M = 5e-9
ALWAYS = Swept(near_px=8, worthwhile_px=0.0)
FLAT = float(linear_response(four_quadrant())[0, 2])

seeds = st.integers(0, 2**32 - 1)


def with_part(part: str, **changes: object) -> Instrument:
    instrument = four_quadrant()
    return instrument.model_copy(update={part: getattr(instrument, part).model_copy(update=changes)})


def relief(seed: int, slope: float, length_px: float, shape: tuple[int, int] = (96, 128)) -> NDArray[np.float64]:
    """Random smooth relief of the given rms slope and correlation length."""
    rows, columns = shape
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns))
    noise = np.random.default_rng(seed).normal(size=shape)
    heights: NDArray[np.float64] = np.fft.irfft2(
        np.fft.rfft2(noise) * np.exp(-((math.pi * length_px * frequency) ** 2)), s=shape
    )
    rms_slope = math.sqrt(np.mean(np.square(np.gradient(heights)).sum(axis=0)))
    return heights * (PIXEL_M * slope / rms_slope)


def terraces(seed: int, step_px: float) -> NDArray[np.float64]:
    rough = relief(seed, 1.0, 24.0)
    levels: NDArray[np.float64] = np.floor(5 * (rough - rough.min()) / np.ptp(rough))
    return levels * step_px * PIXEL_M


def error_pct(swept: NDArray[np.float32], marched: NDArray[np.float32]) -> NDArray[np.float64]:
    return 100 * (swept.astype(np.float64) - marched) / FLAT


@pytest.mark.parametrize(
    ("heights", "rms_pct"),
    [
        (relief(1, 1.0, 6.0), 0.05),
        (relief(2, 1.0, 24.0), 0.05),
        (relief(3, 1.7, 24.0), 0.1),
        (relief(4, 1.0, 24.0, (128, 96)), 0.05),
        (terraces(5, 12.0), 0.1),
        (terraces(6, 40.0), 1.5),
    ],
)
def test_swept_agrees_with_marched(heights: NDArray[np.float64], rms_pct: float) -> None:
    instrument = four_quadrant()
    error = error_pct(captured_fractions(heights, instrument, ALWAYS), captured_fractions(heights, instrument))
    assert 0.0 < math.sqrt(np.mean(error**2)) < rms_pct


def test_marching_farther_before_sweeping_errs_less() -> None:
    heights, instrument = terraces(7, 40.0), four_quadrant()
    marched = captured_fractions(heights, instrument)
    errors = [
        error_pct(captured_fractions(heights, instrument, Swept(near, 0.0)), marched).std() for near in (2, 8, 32, 128)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4 < errors[-2]


def test_default_sweep_stays_below_half_a_percent() -> None:
    instrument = four_quadrant()
    for heights in (relief(8, 1.0, 48.0, (256, 256)), terraces(9, 24.0)):
        error = error_pct(captured_fractions(heights, instrument, SWEPT), captured_fractions(heights, instrument))
        assert 0.0 < math.sqrt(np.mean(error**2)) < 0.5


@pytest.mark.parametrize("heights", [np.zeros((32, 32)), relief(10, 0.5, 6.0), relief(11, 1.0, 4.0)])
def test_shallow_relief_is_marched(heights: NDArray[np.float64]) -> None:
    swept = captured_fractions(heights, four_quadrant(), SWEPT)
    np.testing.assert_array_equal(swept, captured_fractions(heights, four_quadrant(), MARCHED))


@pytest.mark.parametrize("turn", range(4))
def test_floor_before_an_infinite_wall_sees_what_stays_above_it(turn: int) -> None:
    """The floor 20 pixels before a wall 60 pixels high: a sum over azimuths, on whatever side the wall stands."""
    heights = np.zeros((161, 161))
    heights[:, 120:] = 60 * PIXEL_M
    distance_px = 20

    def kept(azimuth: float) -> float:
        rise = max(60 * math.cos(azimuth) / distance_px, 0.0)
        high = min(36 / 100, 1 / (1 + rise**2))
        return max(high - 1.5**2 / (1.5**2 + 64), 0) / (2 * math.pi)

    segments = tuple(segment.model_copy(update={"gap_m": 0.0}) for segment in four_quadrant().detector.segments)
    swept = captured_fractions(np.rot90(heights, turn), with_part("detector", segments=segments), ALWAYS)
    floor = np.rot90(swept, -turn, axes=(1, 2))[turn, 75:86, 100].mean()
    expected = quad(kept, -math.pi / 4, math.pi / 4, epsabs=1e-9)[0]
    assert floor == pytest.approx(expected, abs=2e-3 * FLAT)
    assert expected < 0.5 * FLAT


def test_slanted_pixels_and_biased_specimens_are_swept_too() -> None:
    for instrument in (with_part("scan", pixel_size_y_m=2 * PIXEL_M), with_part("specimen", bias_v=-5000.0)):
        heights = relief(12, 1.5, 32.0)
        error = error_pct(captured_fractions(heights, instrument, ALWAYS), captured_fractions(heights, instrument))
        assert 0.0 < math.sqrt(np.mean(error**2)) < 0.1


@settings(max_examples=5, deadline=None)
@given(seeds, st.integers(2, 40), st.integers(2, 40), st.floats(1.0, 200.0))
def test_any_frame_is_swept_without_harm(seed: int, rows: int, columns: int, roughness_px: float) -> None:
    """White noise of any frame size: a share of the emission, near the marched one, and the same where it must be."""
    heights = np.random.default_rng(seed).normal(scale=roughness_px * PIXEL_M, size=(rows, columns))
    marched = captured_fractions(heights, four_quadrant())
    swept = captured_fractions(heights, four_quadrant(), Swept(1, 0.0))
    assert swept.shape == (4, rows, columns) and (swept >= 0).all() and (swept.sum(axis=0) <= 1).all()
    everything = captured_fractions(heights, four_quadrant(), Swept(64, 0.0))
    np.testing.assert_array_equal(everything, marched)


@settings(max_examples=12, deadline=None)
@given(seeds, st.integers(8, 40), st.integers(8, 56))
def test_nothing_beyond_the_vision_field_changes_a_pixel(seed: int, row: int, column: int) -> None:
    heights = relief(seed, 1.5, 6.0, (48, 64))
    radius_px = vision_field_px(heights, four_quadrant())[row, column]
    distance_px = np.hypot(*np.ogrid[-row : 48 - row, -column : 64 - column])
    changed = heights.copy()
    beyond = distance_px > max(radius_px, 1.0) + math.sqrt(2.0)
    changed[beyond] = np.random.default_rng(seed + 1).uniform(heights.min(), heights.max(), int(beyond.sum()))
    before, after = (captured_fractions(surface, four_quadrant())[:, row, column] for surface in (heights, changed))
    np.testing.assert_allclose(after, before, atol=2e-6)


def test_wall_blocks_just_within_the_vision_field_and_not_just_beyond() -> None:
    """A wall 24 pixels high reaches 18 pixels far, at a detector that ends at 6 mm to the side and 8 mm above."""
    shown = []
    for distance_px in (17, 18):
        heights = np.zeros((9, 60))
        heights[:, 20 + distance_px :] = 24 * PIXEL_M
        np.testing.assert_allclose(vision_field_px(heights, four_quadrant())[4, 20], 18.0, rtol=1e-6)
        flat, pixel = captured_fractions(heights, four_quadrant())[0, 4, [2, 20]]
        shown.append(pixel / flat)
    within, beyond = shown
    assert within < 1 - 1e-4 and beyond == pytest.approx(1.0, abs=1e-6)


def test_tilted_specimens_see_farther_and_without_bound_once_their_plane_blocks() -> None:
    heights = np.zeros((4, 4))
    heights[0, 0] = 24 * PIXEL_M
    tilted = vision_field_px(heights, with_part("specimen", tilt_x_deg=20.0))
    np.testing.assert_allclose(tilted[2, 2], 24 / (4 / 3 - math.tan(math.radians(20))), rtol=1e-5)
    assert np.isinf(vision_field_px(heights, with_part("specimen", tilt_x_deg=45.0, tilt_y_deg=45.0))).all()
    assert near_border(heights, with_part("specimen", tilt_x_deg=60.0)).all()


def test_short_working_distances_see_farther() -> None:
    heights = relief(13, 1.0, 6.0)
    near, far = (vision_field_px(heights, with_part("detector", working_distance_m=d)) for d in (4e-3, 8e-3))
    np.testing.assert_allclose(near, 2 * far, rtol=1e-5)


def test_strongest_bias_leaves_no_bound() -> None:
    instrument = four_quadrant()
    strong = instrument.model_copy(
        update={
            "specimen": instrument.specimen.model_copy(update={"bias_v": -5000.0}),
            "beam": instrument.beam.model_copy(update={"energy_ev": 500.0}),
        }
    )
    assert np.isinf(vision_field_px(np.zeros((4, 4)), strong)).all()


@settings(max_examples=12, deadline=None)
@given(seeds, st.integers(0, 30), st.integers(0, 30))
def test_pixels_away_from_the_border_show_the_same_whatever_surrounds_the_frame(seed: int, up: int, left: int) -> None:
    world = relief(seed, 1.5, 6.0, (80, 90))
    frame = np.s_[up : up + 44, left : left + 52]
    safe = ~near_border(world[frame], four_quadrant(), relief_outside_m=float(world.max()))
    safe[[0, -1]] = safe[:, [0, -1]] = False
    shown, alone = (
        captured_fractions(world, four_quadrant())[:, *frame],
        captured_fractions(world[frame], four_quadrant()),
    )
    np.testing.assert_allclose(alone[:, safe], shown[:, safe], atol=2e-6)


def test_border_reaches_as_far_into_the_frame_as_what_lies_outside_is_high() -> None:
    flat = np.zeros((40, 50))
    assert not near_border(flat, four_quadrant()).any()
    flagged = near_border(flat, four_quadrant(), relief_outside_m=8 * 4 / 3 * PIXEL_M * 1.01)
    inner = np.zeros((40, 50), bool)
    inner[9:-9, 9:-9] = True
    np.testing.assert_array_equal(flagged, ~inner)
    tall = near_border(flat, with_part("scan", pixel_size_y_m=2 * PIXEL_M), relief_outside_m=8 * 4 / 3 * PIXEL_M * 1.01)
    assert tall[4].all() and not tall[5, 9:-9].any()


@pytest.mark.parametrize("level_m", [math.nan, math.inf])
def test_surroundings_without_a_level_are_refused(level_m: float) -> None:
    with pytest.raises(BadInput, match=f"relief_outside_m {level_m:g}"):
        near_border(np.zeros((4, 4)), four_quadrant(), level_m)
