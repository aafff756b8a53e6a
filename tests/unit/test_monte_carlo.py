"""The independent Monte Carlo against what can be computed by hand, and BSESM against it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import dblquad, quad
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant
from inference.forward_model import acceptance, captured_fractions, intensity
from service.benchmarks import agreement as judge
from service.benchmarks.agreement import Agreement, agreement, random_pixels
from service.benchmarks.monte_carlo import area_fractions, first_obstacles, monte_carlo_fractions
from service.benchmarks.rays import Sampler
from service.benchmarks.vision_field import bounds_px, vision_field, windowed_error_pct

PIXEL_M = 5.0e-9
RIGHT, TOP, LEFT, BOTTOM = range(4)
CENTRE = np.array([[20, 20]])
SAMPLERS: tuple[tuple[Sampler, int], ...] = (("plain", 1 << 18), ("cone", 1 << 14))

# What is asked of BSESM on the rough, stepped surface below, in % of the flat signal: rms, any pixel, mean.
BOUNDS_PCT = (0.18, 2.0, 0.08)


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


def wall(rows: int, side: str) -> NDArray[np.float64]:
    """Floor, and a wall 12 pixels high at one side, whose foot is at column or row 39 or 20."""
    heights = np.zeros((rows, 60))
    heights[:, 40:] = 12 * PIXEL_M
    return {"right": heights, "left": heights[:, ::-1], "bottom": heights.T, "top": heights.T[::-1]}[side].copy()


def rough_and_stepped(size: int = 48) -> NDArray[np.float64]:
    """Roughness whose rms slope is 2, so that much is shadowed, and a terrace 6 pixels high."""
    noise = gaussian_filter(np.random.default_rng(11).normal(size=(size, size)), 3.0, mode="wrap")
    q, p = np.gradient(noise)
    heights = 2.0 * noise / np.sqrt(np.mean(p**2 + q**2))
    heights[: size // 2, : size // 2] += 6.0
    return PIXEL_M * heights


def judged() -> Agreement:
    """The comparison that BSESM must pass, and that every planted error must fail."""
    heights = rough_and_stepped()
    pixels = random_pixels(heights.shape, 400, np.random.default_rng(12))
    return agreement(heights, four_quadrant(), pixels, 1 << 14, np.random.default_rng(13))


def on_sphere(normal: NDArray[np.float64], start: float, stop: float, low: float, high: float) -> float:
    """Fraction of a Lambertian emission about `normal` that leaves between two azimuths and two polar angles."""

    def density(theta: float, azimuth: float) -> float:
        direction = math.sin(theta) * math.cos(azimuth), -math.sin(theta) * math.sin(azimuth), math.cos(theta)
        return max(float(np.dot(direction, normal)), 0.0) * math.sin(theta) / math.pi

    return float(dblquad(density, start, stop, low, high, epsabs=1e-8)[0])


@pytest.mark.parametrize(("sampler", "rays"), SAMPLERS)
def test_rays_from_a_flat_surface_find_the_analytic_capture(sampler: Sampler, rays: int) -> None:
    """The integral over the annulus of sin(2 theta) times the share of each circle that no gap covers."""
    distance = four_quadrant().detector.working_distance_m

    def density(r: float) -> float:
        open_share = 1 - 4 * 2 * math.asin(0.1e-3 / r) / (2 * math.pi)
        return 2 * r * distance**2 / (r * r + distance**2) ** 2 * open_share

    expected = quad(density, 1.5e-3, 6e-3)[0] / 4
    rng = np.random.default_rng(1)
    mean, error = monte_carlo_fractions(np.zeros((41, 41)), four_quadrant(), CENTRE, rays, rng, sampler)
    assert mean.shape == error.shape == (4, 1)
    assert (error < 0.012 * expected).all()
    assert (np.abs(mean - expected) < 4 * error).all()


@pytest.mark.parametrize(("sampler", "rays"), SAMPLERS)
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.9), (-1.1, 0.2)])
def test_rays_from_a_tilted_plane_find_the_integral_over_the_sphere(
    sampler: Sampler, rays: int, p: float, q: float
) -> None:
    normal = np.array([-p, -q, 1.0]) / math.sqrt(1 + p * p + q * q)
    rng = np.random.default_rng(2)
    mean, error = monte_carlo_fractions(plane(p, q), with_segments(gap_m=0.0), CENTRE, rays, rng, sampler)
    for quadrant in range(4):
        start = math.radians(90 * quadrant - 45)
        expected = on_sphere(normal, start, start + math.pi / 2, math.atan(1.5 / 8), math.atan(6 / 8))
        assert abs(mean[quadrant, 0] - expected) < 4 * error[quadrant, 0]


@pytest.mark.parametrize(("tilt", "slope"), [({"tilt_x_deg": 20.0}, (1, 0)), ({"tilt_y_deg": 20.0}, (0, -1))])
def test_specimen_tilt_is_a_plane(tilt: dict[str, float], slope: tuple[int, int]) -> None:
    """Lifts the right side, or the top: the same rays find the same as on a plane of heights."""
    p, q = (math.tan(math.radians(20)) * part for part in slope)
    tilted, same = (
        monte_carlo_fractions(heights, instrument, CENTRE, 1 << 10, np.random.default_rng(3), "cone")[0]
        for heights, instrument in ((plane(0, 0), with_part("specimen", **tilt)), (plane(p, q), four_quadrant()))
    )
    np.testing.assert_allclose(tilted, same, rtol=1e-4)


@pytest.mark.parametrize(
    ("side", "pixel", "dark", "opposite"),
    [
        ("right", (80, 37), RIGHT, LEFT),
        ("left", (80, 22), LEFT, RIGHT),
        ("bottom", (37, 80), BOTTOM, TOP),
        ("top", (22, 80), TOP, BOTTOM),
    ],
)
def test_wall_shadows_the_segment_behind_it(side: str, pixel: tuple[int, int], dark: int, opposite: int) -> None:
    """The floor 3 pixels before the wall's edge: sum over azimuths of what stays below the wall's horizon."""

    def kept(azimuth: float) -> float:
        high = min(math.sin(math.atan(6 / 8)) ** 2, 1 / (1 + (4 * math.cos(azimuth)) ** 2))
        return max(high - math.sin(math.atan(1.5 / 8)) ** 2, 0) / (2 * math.pi)

    expected = quad(kept, -math.pi / 4, math.pi / 4, epsabs=1e-9)[0]
    flat = (math.sin(math.atan(6 / 8)) ** 2 - math.sin(math.atan(1.5 / 8)) ** 2) / 4
    assert expected < 0.5 * flat
    mean, error = monte_carlo_fractions(
        wall(161, side), with_segments(gap_m=0.0), np.array([pixel]), 1 << 14, np.random.default_rng(4), "cone"
    )
    assert abs(mean[dark, 0] - expected) < 4 * error[dark, 0] + 1e-3 * flat
    assert abs(mean[opposite, 0] - flat) < 4 * error[opposite, 0]


def test_turned_and_shifted_detector_gets_what_lands_on_it() -> None:
    """By integrating over the detector's own plane: the emission that falls on a spot is cos(theta)^4 / (pi d^2)."""
    angle, shift_x, shift_y, distance = math.radians(33.0), 0.8e-3, -0.5e-3, 8e-3
    instrument = with_detector(rotation_deg=33.0, offset_x_m=shift_x, offset_y_m=shift_y)
    mean, error = monte_carlo_fractions(plane(0, 0), instrument, CENTRE, 1 << 15, np.random.default_rng(5), "cone")

    def flux(azimuth: float, radius: float) -> float:
        x, y = shift_x + radius * math.cos(azimuth), shift_y - radius * math.sin(azimuth)
        return radius * distance**2 / (math.pi * (x * x + y * y + distance**2) ** 2)

    for quadrant in range(4):
        middle = angle + quadrant * math.pi / 2

        def edge(radius: float, side: int, middle: float = middle) -> float:
            return middle + side * (math.pi / 4 - math.asin(0.1e-3 / radius))

        expected = dblquad(flux, 1.5e-3, 6e-3, lambda r: edge(r, -1), lambda r: edge(r, 1))[0]
        assert abs(mean[quadrant, 0] - expected) < 4 * error[quadrant, 0]
    assert np.ptp(mean) > 20 * error.max()


def test_pixels_twice_as_tall_see_half_the_slope() -> None:
    tall, half = (
        monte_carlo_fractions(heights, instrument, CENTRE, 1 << 10, np.random.default_rng(6), "cone")[0]
        for heights, instrument in (
            (plane(0.2, 0.6), with_part("scan", pixel_size_y_m=2 * PIXEL_M)),
            (plane(0.2, 0.3), four_quadrant()),
        )
    )
    np.testing.assert_allclose(tall, half, rtol=1e-4)


def test_standard_errors_tell_the_scatter_between_seeds() -> None:
    heights = rough_and_stepped()
    pixels = random_pixels(heights.shape, 20, np.random.default_rng(7))
    for sampler, rays in (("plain", 2048), ("cone", 1024)):
        runs = [
            monte_carlo_fractions(heights, four_quadrant(), pixels, rays, np.random.default_rng(seed), sampler)  # type: ignore[arg-type]
            for seed in range(24)
        ]
        scatter = np.std([mean for mean, _ in runs], axis=0, ddof=1)
        told = np.sqrt(np.mean([error**2 for _, error in runs], axis=0))
        assert np.sqrt(np.mean(scatter**2) / np.mean(told**2)) == pytest.approx(1.0, abs=0.15)


def test_both_samplers_find_the_same() -> None:
    heights = rough_and_stepped()
    pixels = random_pixels(heights.shape, 60, np.random.default_rng(8))
    rng = np.random.default_rng(9)
    plain, plain_error = monte_carlo_fractions(heights, four_quadrant(), pixels, 1 << 14, rng, "plain")
    cone, cone_error = monte_carlo_fractions(heights, four_quadrant(), pixels, 1 << 12, rng, "cone")
    seen = (plain > 0.01) & (cone > 0.01)
    score = (plain - cone)[seen] / np.hypot(plain_error, cone_error)[seen]
    assert seen.sum() > 150
    assert np.sqrt(np.mean(score**2)) == pytest.approx(1.0, abs=0.25)
    assert abs(score.mean()) < 0.3


def test_facets_of_a_plane_emit_as_its_pixels_do() -> None:
    heights = plane(0.7, -0.3)
    rng = np.random.default_rng(10)
    centre, error = monte_carlo_fractions(heights, four_quadrant(), CENTRE, 1 << 12, rng, "cone")
    area = area_fractions(heights, four_quadrant(), CENTRE, 1 << 12, rng)
    assert (np.abs(area - centre) < 5 * error).all()


def test_the_cut_of_cells_matters_at_steps_only() -> None:
    smooth, stepped = plane(0.3, 0.2), rough_and_stepped()
    for heights, differs in ((smooth, False), (stepped, True)):
        pixels = random_pixels(heights.shape, 100, np.random.default_rng(14))
        lower, higher = (
            monte_carlo_fractions(
                heights,
                four_quadrant(),
                pixels,
                256,
                np.random.default_rng(15),
                "cone",
                cut=cut,  # type: ignore[arg-type]
            )[0]
            for cut in ("lower", "higher")
        )
        assert (higher <= lower + 1e-6).all()
        assert bool((higher < lower - 1e-4).any()) is differs


def test_bsesm_agrees_with_the_monte_carlo_on_a_rough_surface_with_steps() -> None:
    found = judged()
    assert found.within(*BOUNDS_PCT), found
    assert found.reference_error_pct < BOUNDS_PCT[0]


Render = Callable[[NDArray[np.floating], Instrument], NDArray[np.float32]]


def _wrong_distance(heights: NDArray[np.floating], instrument: Instrument) -> NDArray[np.float32]:
    return captured_fractions(heights, instrument.with_scan(working_distance_m=0.995 * 8e-3))


def _bright_segment(heights: NDArray[np.floating], instrument: Instrument) -> NDArray[np.float32]:
    return captured_fractions(heights, instrument) * np.array([1, 1, 1.01, 1], np.float32)[:, None, None]


def _low_horizons(heights: NDArray[np.floating], instrument: Instrument) -> NDArray[np.float32]:
    """What a horizon takes is looked up 1 % below it."""
    table = acceptance(instrument)
    steps = np.arange(table.blocked.shape[1])
    sin2 = table.sin2_low + table.sin2_step * steps
    lowered = 1 / (1 + 0.99**2 * (1 / sin2 - 1))
    place = (lowered - table.sin2_low) / table.sin2_step
    below = np.clip(place.astype(int), 0, steps[-2])
    part = np.clip(place - below, 0.0, 1.0)[:, None, None].astype(np.float32)
    blocked = (1 - part) * table.blocked[:, below] + part * table.blocked[:, below + 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intensity, "acceptance", lambda _: dataclasses.replace(table, blocked=blocked))
        return captured_fractions(heights, instrument)


@pytest.mark.parametrize("wrong", [_wrong_distance, _bright_segment, _low_horizons])
def test_an_error_of_one_percent_planted_in_bsesm_is_found(wrong: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    """Working distance half a percent short, one segment a percent bright, horizons a percent low."""
    monkeypatch.setattr(judge, "captured_fractions", wrong)
    found = judged()
    assert not found.within(*BOUNDS_PCT), found


def test_relief_beyond_the_vision_field_never_blocks() -> None:
    """The rise above a pixel times tan(theta_out) bounds how far off an obstacle is, and almost reaches it."""
    heights = wall(60, "right")
    pixels = random_pixels(heights.shape, 300, np.random.default_rng(16))
    site, _, distance = first_obstacles(heights, four_quadrant(), pixels, 1 << 11, np.random.default_rng(17))
    blocked = np.isfinite(distance)
    bound = bounds_px(heights, four_quadrant())[pixels[:, 0], pixels[:, 1]]
    np.testing.assert_allclose(bound.max(), 12 * 6 / 8)
    assert (distance[blocked] <= bound[site[blocked]] * (1 + 1e-4)).all()
    field = vision_field(heights, four_quadrant(), pixels, 1 << 11, np.random.default_rng(18))
    assert 0.9 < field.farthest <= 1.0001
    within, beyond = field.radius < 0.8, field.radius > 1.0001
    assert (field.error_pct[within] > 0).all() and (field.blocked_beyond[within] > 0).all()
    assert not field.error_pct[beyond].any() and not field.blocked_beyond[beyond].any()


def test_bsesm_needs_no_more_than_the_vision_field() -> None:
    heights = rough_and_stepped()
    pixels = random_pixels(heights.shape, 15, np.random.default_rng(19))
    assert windowed_error_pct(heights, four_quadrant(), pixels, 0.1) > 0.5
    assert windowed_error_pct(heights, four_quadrant(), pixels, 1.0) < 1e-3


@pytest.mark.parametrize(
    ("instrument", "pixel", "rays", "named"),
    [
        (with_part("specimen", bias_v=-1000.0), (5, 5), 64, "bias -1000 V"),
        (with_segments(inner_radius_m=None, outer_radius_m=None), (5, 5), 64, "no radii"),
        (four_quadrant(), (5, 41), 64, "41 rows"),
        (four_quadrant(), (5, 5), 100, "100 rays"),
        (four_quadrant(), (5, 5), 0, "0 rays"),
    ],
)
def test_what_cannot_be_traced_is_refused(
    instrument: Instrument, pixel: tuple[int, int], rays: int, named: str
) -> None:
    with pytest.raises(BadInput, match=named):
        monte_carlo_fractions(np.zeros((41, 41)), instrument, np.array([pixel]), rays, np.random.default_rng(0), "cone")
