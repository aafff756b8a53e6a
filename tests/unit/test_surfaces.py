"""The surfaces that networks learn from: as promised in size, slope, variety and repeatability."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.training.surfaces import FAMILIES, SMOOTH_FAMILIES, make_surface
from inference.training.surfaces.canvas import Canvas, rms_slope, scatter

SIZE = 96


def surface(family: str, seed: int, size: int = SIZE, tilted: bool | None = None) -> NDArray[np.float32]:
    return make_surface(family, size, np.random.default_rng([seed, 5]), tilted=tilted)


def tangent(degrees: float) -> float:
    return math.tan(math.radians(degrees))


def level_ones(family: str, count: int) -> Iterator[NDArray[np.float32]]:
    return (surface(family, seed, tilted=False) for seed in range(count))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [8, 33, 96])
def test_heights_are_finite_of_the_asked_size_and_of_zero_mean(family: str, size: int) -> None:
    for seed in range(4):
        heights = surface(family, seed, size)
        assert heights.shape == (size, size) and heights.dtype == np.float32
        assert np.isfinite(heights).all()
        assert abs(float(heights.mean())) <= 1e-5 * max(float(np.ptp(heights)), 1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_its_surface_again_and_another_seed_another(family: str) -> None:
    first = [surface(family, seed, tilted=True) for seed in range(6)]
    again = [surface(family, seed, tilted=True) for seed in range(6)]
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert len({one.tobytes() for one in first}) == 6


@pytest.mark.parametrize("family", FAMILIES)
def test_no_surface_is_steeper_than_60_degrees_rms(family: str) -> None:
    assert max(rms_slope(heights) for heights in level_ones(family, 30)) <= tangent(60) * 1.0001


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tilt_is_at_most_10_degrees(family: str) -> None:
    for seed in range(8):
        difference = surface(family, seed, tilted=True) - surface(family, seed, tilted=False)
        plane_p, plane_q = np.diff(difference, axis=1), np.diff(difference, axis=0)
        assert np.ptp(plane_p) < 1e-3 and np.ptp(plane_q) < 1e-3
        assert math.hypot(float(plane_p.mean()), float(plane_q.mean())) <= tangent(10) * 1.001


@pytest.mark.parametrize("family", SMOOTH_FAMILIES)
def test_slopes_of_smooth_families_run_log_uniformly_from_a_tenth_of_a_degree_to_60(family: str) -> None:
    degrees = np.degrees(np.arctan([rms_slope(heights) for heights in level_ones(family, 80)]))
    assert degrees.min() >= 0.0999 and degrees.max() <= 60.01
    below_median = np.mean(degrees < math.sqrt(0.1 * 60))
    assert 0.3 < below_median < 0.7
    assert degrees.min() < 0.5 and degrees.max() > 30


@pytest.mark.parametrize("family", ["terraces", "spirals", "islands", "pits", "gratings"])
def test_some_steps_are_one_pixel_wide(family: str) -> None:
    """From nothing to all of a step and back to nothing within two pixels along a row."""
    assert any(_has_sharp_step(heights) for heights in level_ones(family, 20))


def _has_sharp_step(heights: NDArray[np.float32]) -> bool:
    rise = np.abs(np.diff(heights, axis=1))
    middle = rise[:, 1:-1]
    return bool(((middle > 0.05) & (middle > 20 * np.maximum(rise[:, :-2], rise[:, 2:]))).any())


def test_facets_are_planes_at_every_angle_from_5_to_60_degrees() -> None:
    """No envelope of planes climbs faster than its steepest one: a body cut off by a cell's border would."""
    angles = []
    for heights in level_ones("facets", 60):
        p, q = np.diff(heights, axis=1)[:-1], np.diff(heights, axis=0)[:, :-1]
        assert max(np.abs(p).max(), np.abs(q).max()) <= tangent(60) * 1.001
        angles.append(np.degrees(np.arctan(np.hypot(p, q))).ravel())
    inclined = np.concatenate(angles)
    shares, _ = np.histogram(inclined[inclined > 5], bins=np.linspace(5, 60, 12))
    assert (shares / shares.sum()).min() > 0.02


def test_noise_has_the_covariance_it_is_asked_for() -> None:
    """exp(-r² / length²) at r = length, over an ensemble."""
    fields = [Canvas(128, 1.0, 1.0, np.random.default_rng(seed)).noise(6.0) for seed in range(30)]
    assert np.mean([np.mean(field**2) for field in fields]) == pytest.approx(1.0, abs=0.05)
    assert np.mean([np.mean(field[:, 6:] * field[:, :-6]) for field in fields]) == pytest.approx(1 / math.e, abs=0.04)


def test_a_shape_that_reaches_one_cell_is_seen_from_everywhere() -> None:
    """Of all centres of a lattice none within one cell of a pixel is missed."""
    canvas = Canvas(60, 9.0, 3.0, np.random.default_rng(3))
    cells = scatter(canvas, canvas.axes())
    found = np.full((60, 60), np.inf)
    for _, du, dv in cells.around():
        found = np.minimum(found, np.hypot(du, dv))
    every = np.hypot(cells.u[..., None] - cells.centre_u, cells.v[..., None] - cells.centre_v).min(axis=-1)
    near = every < 1.0
    assert near.mean() > 0.9
    np.testing.assert_allclose(found[near], every[near], rtol=1e-5)


def test_an_unknown_family_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(BadInput, match=r"'craters'.*terraces.*mixtures"):
        make_surface("craters", SIZE, np.random.default_rng(0))


def test_a_surface_too_small_for_anything_is_refused() -> None:
    with pytest.raises(BadInput, match=r"7 pixels.*at least 8"):
        make_surface("hills", 7, np.random.default_rng(0))
