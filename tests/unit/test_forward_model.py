"""The electron-optics truth against what can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import dblquad, quad

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, Segment, four_quadrant
from inference.forward_model import (
    acceptance,
    captured_fractions,
    expected_counts,
    expected_electrons,
    linear_response,
    render,
)

PIXEL_M = 5.0e-9
RIGHT, TOP, LEFT, BOTTOM = range(4)
CENTRE = (slice(None), 20, 20)


def with_detector(**changes: object) -> Instrument:
    instrument = four_quadrant()
    return instrument.model_copy(update={"detector": instrument.detector.model_copy(update=changes)})


def with_segments(**changes: object) -> Instrument:
    segments = four_quadrant().detector.segments
    return with_detector(segments=tuple(segment.model_copy(update=changes) for segment in segments))


def with_part(part: str, **changes: object) -> Instrument:
    instrument = four_quadrant()
    return instrument.model_copy(update={part: getattr(instrument, part).model_copy(update=changes)})


def plane(p: float, q: float, size: int = 41) -> NDArray[np.float64]:
    row, column = np.mgrid[:size, :size] - size // 2
    return PIXEL_M * (p * column + q * row)


def unit_normal(p: float, q: float) -> NDArray[np.float64]:
    return np.array([-p, -q, 1.0]) / math.sqrt(1 + p * p + q * q)


def hills(seed: int, steepest: float, size: int = 64) -> NDArray[np.float64]:
    """Random smooth relief whose steepest slope is as given."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    noise = np.random.default_rng(seed).normal(size=(size, size))
    relief = np.fft.irfft2(np.fft.rfft2(noise) * np.exp(-((8 * frequency) ** 2)))
    return relief * (PIXEL_M * steepest / np.hypot(*np.gradient(relief)).max())


def slopes(heights_m: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    q, p = np.gradient(heights_m, PIXEL_M)
    return p, q


def test_flat_surface_gives_the_analytic_capture() -> None:
    """The integral over the annulus of sin(2 theta) times the share of each circle that no gap covers."""
    segment = four_quadrant().detector.segments[0]
    assert segment.inner_radius_m and segment.outer_radius_m
    distance = four_quadrant().detector.working_distance_m

    def density(r: float) -> float:
        open_share = 1 - 4 * 2 * math.asin(segment.gap_m / 2 / r) / (2 * math.pi)
        return 2 * r * distance**2 / (r * r + distance**2) ** 2 * open_share

    expected = quad(density, segment.inner_radius_m, segment.outer_radius_m)[0]
    assert expected == pytest.approx(0.314, abs=5e-4)
    fractions = captured_fractions(np.zeros((8, 9)), four_quadrant())
    assert fractions.dtype == np.float32 and fractions.shape == (4, 8, 9)
    np.testing.assert_allclose(fractions.sum(axis=0), expected, rtol=1e-4)
    np.testing.assert_allclose(fractions, expected / 4, rtol=1e-4)


def test_segments_without_gaps_sum_to_the_annulus() -> None:
    total = linear_response(with_segments(gap_m=0.0))[:, 2].sum()
    assert total == pytest.approx(math.sin(math.atan(6 / 8)) ** 2 - math.sin(math.atan(1.5 / 8)) ** 2, rel=1e-9)


@given(
    cuts=st.lists(st.integers(0, 359), min_size=3, max_size=8, unique=True),
    rotation_deg=st.floats(-180, 180),
    offsets_mm=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
)
@settings(max_examples=25, deadline=None)
def test_however_the_annulus_is_cut_no_direction_counts_twice_or_gets_lost(
    cuts: list[int], rotation_deg: float, offsets_mm: tuple[float, float]
) -> None:
    starts = sorted(cuts)
    template = four_quadrant().detector.segments[0].model_copy(update={"gap_m": 0.0})
    place = {"offset_x_m": offsets_mm[0] * 1e-3, "offset_y_m": offsets_mm[1] * 1e-3}

    def annulus(edges: list[float], rotation: float) -> NDArray[np.float64]:
        segments = tuple(
            template.model_copy(update={"name": str(start), "azimuth_from_deg": start, "azimuth_to_deg": stop})
            for start, stop in zip(edges, [*edges[1:], edges[0] + 360.0], strict=True)
        )
        return linear_response(with_detector(segments=segments, rotation_deg=rotation, **place)).sum(axis=0)

    whole = annulus([0.0, 120.0, 240.0], 0.0)
    np.testing.assert_allclose(annulus([float(start) for start in starts], rotation_deg), whole, atol=2e-4 * whole[2])


@given(seed=st.integers(0, 50), steepness=st.floats(0.5, 6.0))
@settings(max_examples=15, deadline=None)
def test_a_surface_never_gives_more_than_it_emits_and_shadows_only_take(seed: int, steepness: float) -> None:
    heights = hills(seed, steepness, size=32)
    p, q = slopes(heights)
    normal = np.stack([-p, -q, np.ones_like(p)]) / np.sqrt(1 + p**2 + q**2)
    inside = np.s_[:, 1:-1, 1:-1]
    captured = captured_fractions(heights, four_quadrant())[inside]
    free = np.einsum("sc,cyx->syx", linear_response(four_quadrant()), normal)[inside]
    shallow = np.hypot(p, q)[1:-1, 1:-1] < acceptance(four_quadrant()).occluding_slope
    assert captured.min() >= 0 and captured.sum(axis=0).max() <= 1
    assert (captured <= free + 2e-6)[:, shallow].all()


def test_turning_detector_and_surface_together_changes_nothing() -> None:
    upright = linear_response(four_quadrant())
    angle = math.radians(33)
    turned = linear_response(with_detector(rotation_deg=33.0))
    turn = np.array([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_allclose(turned, upright @ turn.T, atol=1e-9)


def test_quarter_turn_moves_each_segment_to_the_next() -> None:
    """Counter-clockwise as seen in the image: what was at the right stands at the top."""
    turned = captured_fractions(hills(1, 3.0), with_detector(rotation_deg=90.0))
    upright = captured_fractions(hills(1, 3.0), four_quadrant())
    np.testing.assert_allclose(turned[RIGHT], upright[TOP], atol=2e-6)
    np.testing.assert_allclose(turned[TOP], upright[LEFT], atol=2e-6)


@pytest.mark.parametrize(("p", "q"), [(0.4, 0.0), (0.0, -0.7), (0.5, 0.9)])
def test_tilted_plane_gives_the_integral_over_the_sphere(p: float, q: float) -> None:
    normal = unit_normal(p, q)

    def density(theta: float, azimuth: float) -> float:
        direction = math.sin(theta) * math.cos(azimuth), -math.sin(theta) * math.sin(azimuth), math.cos(theta)
        return max(float(np.dot(direction, normal)), 0.0) * math.sin(theta) / math.pi

    low, high = math.atan(1.5 / 8), math.atan(6 / 8)
    fractions = captured_fractions(plane(p, q), with_segments(gap_m=0.0))[CENTRE]
    for quadrant in range(4):
        start = math.radians(90 * quadrant - 45)
        expected = dblquad(density, start, start + math.pi / 2, low, high, epsabs=1e-8)[0]
        assert fractions[quadrant] == pytest.approx(expected, rel=2e-4)


def test_plane_beyond_the_shadow_free_slope_hides_from_the_far_side() -> None:
    """At 63 degrees the plane's own tangent blocks directions that the detector would see."""
    normal = unit_normal(2.0, 0.0)

    def density(theta: float, azimuth: float) -> float:
        direction = math.sin(theta) * math.cos(azimuth), -math.sin(theta) * math.sin(azimuth), math.cos(theta)
        return max(float(np.dot(direction, normal)), 0.0) * math.sin(theta) / math.pi

    low, high = math.atan(1.5 / 8), math.atan(6 / 8)
    expected = dblquad(density, -math.pi / 4, math.pi / 4, low, high, epsabs=1e-7)[0]
    instrument = with_segments(gap_m=0.0)
    captured = captured_fractions(plane(2.0, 0.0), instrument)[CENTRE]
    assert captured[RIGHT] == pytest.approx(expected, rel=0.01)
    assert captured[RIGHT] > float(linear_response(instrument)[RIGHT] @ normal) * 1.05


def test_surface_rising_to_the_bottom_is_brighter_at_the_top() -> None:
    fractions = captured_fractions(plane(0.0, 0.3), four_quadrant())[CENTRE]
    assert fractions[TOP] > fractions[LEFT] > fractions[BOTTOM]


def test_surface_rising_to_the_right_is_brighter_at_the_left() -> None:
    fractions = captured_fractions(plane(0.3, 0.0), four_quadrant())[CENTRE]
    assert fractions[LEFT] > fractions[TOP] > fractions[RIGHT]


@pytest.mark.parametrize(
    ("tilt", "p", "q"),
    [({"tilt_x_deg": 20.0}, math.tan(math.radians(20)), 0.0), ({"tilt_y_deg": 20.0}, 0.0, -math.tan(math.radians(20)))],
)
def test_specimen_tilt_lifts_the_right_side_and_the_top(tilt: dict[str, float], p: float, q: float) -> None:
    tilted = captured_fractions(np.zeros((41, 41)), with_part("specimen", **tilt))[CENTRE]
    np.testing.assert_allclose(tilted, captured_fractions(plane(p, q), four_quadrant())[CENTRE], rtol=1e-5)


def test_detector_off_centre_to_the_right_sees_more_from_there() -> None:
    response = linear_response(with_detector(offset_x_m=0.5e-3))
    assert response[LEFT, 2] > response[RIGHT, 2]
    assert response[TOP, 0] > 1e-3
    np.testing.assert_allclose(response[TOP, 2], response[BOTTOM, 2], rtol=1e-9)


def test_offset_detector_agrees_with_rays_thrown_at_it() -> None:
    rng = np.random.default_rng(5)
    sine, azimuth = np.sqrt(rng.random(400_000)), rng.uniform(-math.pi, math.pi, 400_000)
    reach = 8e-3 * sine / np.sqrt(1 - sine**2)
    x, y = reach * np.cos(azimuth) - 0.8e-3, -reach * np.sin(azimuth) + 0.5e-3
    hit = (np.hypot(x, y) > 1.5e-3) & (np.hypot(x, y) < 6e-3) & (np.abs(np.degrees(np.arctan2(-y, x))) < 45)
    hit &= np.minimum(np.abs(x - y), np.abs(x + y)) / math.sqrt(2) > 0.1e-3
    response = linear_response(with_detector(offset_x_m=0.8e-3, offset_y_m=-0.5e-3))
    assert response[RIGHT, 2] == pytest.approx(hit.mean(), rel=0.02)


def test_linear_response_is_exact_up_to_the_shadow_free_slope() -> None:
    heights = hills(2, math.tan(math.radians(50)))
    p, q = slopes(heights)
    normal = np.stack([-p, -q, np.ones_like(p)]) / np.sqrt(1 + p**2 + q**2)
    expected = np.einsum("sc,cyx->syx", linear_response(four_quadrant()), normal)
    inside = np.s_[:, 1:-1, 1:-1]
    np.testing.assert_allclose(captured_fractions(heights, four_quadrant())[inside], expected[inside], atol=2e-6)


def test_wall_shadows_the_floor_beside_it_and_only_as_far_as_it_can() -> None:
    """A wall 12 pixels high at the right blocks 6/8 of its height, so 9 pixels, away from it."""
    heights = np.zeros((33, 60))
    heights[:, 40:] = 12 * PIXEL_M
    fractions = captured_fractions(heights, four_quadrant())[:, 16]
    flat = fractions[:, 5]
    assert fractions[RIGHT, 37] < 0.5 * flat[RIGHT]
    np.testing.assert_allclose(fractions[LEFT, 32:38], flat[LEFT], rtol=1e-5)
    shadowed = np.flatnonzero(fractions[RIGHT, 20:39] < flat[RIGHT] - 1e-6) + 20
    np.testing.assert_array_equal(shadowed, np.arange(32, 39))
    assert np.all(np.diff(fractions[RIGHT, 31:39]) < 0)


def test_wall_shadow_matches_the_horizon_of_an_infinite_wall() -> None:
    """The floor 3 pixels before the wall's edge: sum over azimuths of what stays below the wall's horizon."""
    heights = np.zeros((161, 60))
    heights[:, 40:] = 12 * PIXEL_M
    distance_px = 3

    def kept(azimuth: float) -> float:
        rise = 12 * math.cos(azimuth) / distance_px
        high = min(math.sin(math.atan(6 / 8)) ** 2, 1 / (1 + rise**2) if rise > 0 else 1)
        return max(high - math.sin(math.atan(1.5 / 8)) ** 2, 0) / (2 * math.pi)

    expected = quad(kept, -math.pi / 4, math.pi / 4, epsabs=1e-9)[0]
    fraction = captured_fractions(heights, with_segments(gap_m=0.0))[RIGHT, 80, 37]
    flat = float(linear_response(with_segments(gap_m=0.0))[RIGHT, 2])
    assert fraction == pytest.approx(expected, abs=2e-3 * flat)


@pytest.mark.parametrize(
    ("flip", "order"),
    [(np.s_[::-1], [RIGHT, BOTTOM, LEFT, TOP]), (np.s_[:, ::-1], [LEFT, TOP, RIGHT, BOTTOM])],
)
def test_scanning_mirrored_mirrors_the_images(flip: object, order: list[int]) -> None:
    """Rays towards lower rows and columns march as those towards higher ones do."""
    heights = hills(3, 4.0)
    images = captured_fractions(heights, four_quadrant())
    mirrored = captured_fractions(heights[flip], four_quadrant())  # type: ignore[index]
    back = np.stack([image[flip] for image in mirrored])[order]  # type: ignore[index]
    np.testing.assert_allclose(back, images, atol=2e-6)


def test_skipping_pixels_that_cannot_be_shadowed_loses_nothing() -> None:
    """A hidden spike at the corner makes every pixel search the whole frame; what it can't shade stays the same."""
    heights = hills(4, 2.5)
    spiked = heights.copy()
    spiked[0, 0] = heights.max() + 80 * PIXEL_M
    far = np.hypot(*np.mgrid[:64, :64]) * 4 / 3 > (spiked[0, 0] - heights) / PIXEL_M
    assert far.sum() > 500
    plain, searched = captured_fractions(heights, four_quadrant()), captured_fractions(spiked, four_quadrant())
    np.testing.assert_allclose(searched[:, far], plain[:, far], atol=2e-6)


def test_pixels_twice_as_tall_see_half_the_slope() -> None:
    instrument = with_part("scan", pixel_size_y_m=2 * PIXEL_M)
    tall = captured_fractions(plane(0.2, 0.6), instrument)[CENTRE]
    np.testing.assert_allclose(tall, captured_fractions(plane(0.2, 0.3), four_quadrant())[CENTRE], rtol=1e-5)


def test_electrons_follow_from_current_dwell_and_yield() -> None:
    """1 nA for 1 µs are 6242 primaries; at a yield of 0.31 each quadrant sees about 152 electrons."""
    electrons = expected_electrons(np.zeros((4, 4)), four_quadrant())
    np.testing.assert_allclose(electrons, 6241.5 * 0.31 * 0.31398 / 4, rtol=1e-4)


def test_dose_is_the_sum_over_segments_on_a_flat_specimen() -> None:
    electrons = expected_electrons(np.zeros((4, 4)), four_quadrant(), dose=1000.0)
    np.testing.assert_allclose(electrons.sum(axis=0), 1000.0, rtol=1e-5)


def test_counts_have_the_mean_and_variance_of_the_gain_model() -> None:
    heights = np.zeros((200, 200))
    electrons = float(expected_electrons(heights, four_quadrant())[0, 0, 0])
    counts = render(heights, four_quadrant(), np.random.default_rng(0)).astype(np.float64)
    assert counts.mean() == pytest.approx(8 * electrons + 200, rel=1e-3)
    assert counts.var() == pytest.approx(64 * electrons, rel=0.03)
    np.testing.assert_allclose(expected_counts(heights, four_quadrant()), 8 * electrons + 200, rtol=1e-5)


def test_same_seed_gives_the_same_frame_and_another_seed_another() -> None:
    first, again, other = (render(hills(1, 1.0), four_quadrant(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.uint16
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_bright_frames_saturate_at_full_scale() -> None:
    frame = render(np.zeros((4, 4)), with_segments(gain_counts_per_electron=1e4), np.random.default_rng(0))
    assert (frame == 65535).all()


def test_wide_beam_softens_an_edge_and_keeps_the_electrons() -> None:
    heights = np.zeros((32, 64))
    heights[:, 32:] = 4 * PIXEL_M
    sharp = expected_electrons(heights, four_quadrant())
    soft = expected_electrons(heights, with_part("beam", sigma_px=2.0))
    tailed = expected_electrons(heights, with_part("beam", tail_fraction=0.3, tail_sigma_m=50e-9))
    for blurred in (soft, tailed):
        np.testing.assert_allclose(blurred.sum(), sharp.sum(), rtol=1e-4)
        assert np.ptp(blurred[LEFT]) < 0.8 * np.ptp(sharp[LEFT])


def test_three_segments_work() -> None:
    segments = tuple(
        Segment(
            name=name,
            azimuth_from_deg=120.0 * k,
            azimuth_to_deg=120.0 * (k + 1),
            inner_radius_m=1e-3,
            outer_radius_m=5e-3,
        )
        for k, name in enumerate("ABC")
    )
    response = linear_response(with_detector(segments=segments))
    np.testing.assert_allclose(response[:, 2].sum(), 25 / 89 - 1 / 65, rtol=1e-9)
    np.testing.assert_allclose(response[:, :2].sum(axis=0), 0, atol=1e-9)


def test_bins_never_cross_a_segment_edge() -> None:
    centres = np.degrees(acceptance(with_detector(rotation_deg=12.0)).azimuth_rad)
    half_width = 0.5 * np.diff(centres).min()
    for edge in (57.0, 147.0, 237.0, 327.0):
        assert np.abs((centres - edge + 180) % 360 - 180).min() >= half_width - 1e-9


def _hole() -> NDArray[np.float64]:
    heights = np.zeros((8, 8))
    heights[3, 3] = np.nan
    return heights


@pytest.mark.parametrize(
    ("heights", "instrument", "named"),
    [
        (_hole(), four_quadrant(), "1 of 64 heights are not finite"),
        (np.zeros(8), four_quadrant(), r"shape \(8,\)"),
        (np.zeros((8, 8)), with_part("specimen", bias_v=1000.0), "bias 1000 V must lie between -30000 V and 0 V"),
        (np.zeros((8, 8)), with_segments(inner_radius_m=None, outer_radius_m=None), "no radii"),
        (np.zeros((8, 8)), with_segments(gain_counts_per_electron=None), "gain_counts_per_electron"),
        (np.zeros((8, 8)), with_segments(dark_counts=None), "dark_counts"),
        (np.zeros((8, 8)), with_detector(working_distance_m=0.0), "working distance 0 m"),
        (np.zeros((8, 8)), with_part("scan", pixel_size_m=-1e-9), "pixel size -1e-09 m"),
    ],
)
def test_what_cannot_be_rendered_is_refused(heights: NDArray[np.float64], instrument: Instrument, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        render(heights, instrument, np.random.default_rng(0))


@pytest.mark.parametrize("dose", [0.0, -5.0, math.nan])
def test_dose_that_is_no_positive_number_is_refused(dose: float) -> None:
    with pytest.raises(BadInput, match="dose"):
        render(np.zeros((8, 8)), four_quadrant(), np.random.default_rng(0), dose)
