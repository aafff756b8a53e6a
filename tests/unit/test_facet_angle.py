"""Angles of facets whose angles are known, drawn uniformly, at three doses of noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from inference.metrology.facet_angle import facet_angle, facet_angles, straight_parts
from inference.metrology.height_map import HeightMap
from inference.metrology.profiles import Profile, line_profile

PIXEL_M = 10e-9
ROWS, COLUMNS, SUB = 80, 90, 8
NOISES_PX = (0.003, 0.01, 0.03)


def faceted(angles_deg: tuple[float, ...], edges_px: tuple[float, ...], noise_px: float, seed: int) -> Profile:
    """A profile over straight parts, one pixel being the mean of what lies in it, beam and noise of a pixel's width."""
    fine = (np.arange(COLUMNS * SUB) + 0.5) / SUB - 0.5
    slopes = np.tan(np.radians(np.asarray(angles_deg)))[np.searchsorted(edges_px, fine)]
    heights_px = (np.cumsum(slopes) / SUB).reshape(COLUMNS, SUB).mean(axis=1)
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(ROWS, COLUMNS)), 0.7)
    surface = gaussian_filter(np.tile(heights_px, (ROWS, 1)), (0, 0.5)) + noise_px * noise / noise.std()
    return line_profile(HeightMap(PIXEL_M * surface, PIXEL_M, PIXEL_M), [(4, 40), (86, 40)], 64)


@pytest.mark.parametrize(("width_px", "noise_px"), [(8.0, 0.003), (8.0, 0.01), (14.0, 0.03), (30.0, 0.01)])
def test_facets_of_8_pixels_and_more_are_right_to_a_tenth_of_a_degree(width_px: float, noise_px: float) -> None:
    rng, errors, told = np.random.default_rng(1), [], []
    for seed in range(8):
        angles = (rng.uniform(-8, 8), rng.uniform(12, 60), rng.uniform(-8, 8))
        start = 40.0 - 0.5 * width_px + rng.uniform(-0.5, 0.5)
        edges = (start, start + width_px)
        found = facet_angles(faceted(angles, edges, noise_px, seed))
        assert len(found) == 2
        for one, wanted in zip(found, (angles[1] - angles[0], angles[1] - angles[2]), strict=True):
            errors.append(one.external_deg - (180.0 - wanted))
            told.append(one.sigma_deg)
        assert not found[0].convex and found[1].convex
        assert found[0].behind.inclination_deg == pytest.approx(angles[1], abs=0.1 + 4 * told[-1])
    assert abs(np.median(errors)) < 0.1 or noise_px > 0.01
    assert np.sqrt(np.mean(np.square(errors))) < 0.1 + 60 * noise_px / width_px
    assert np.mean(np.abs(errors) < 3 * np.array(told) + 0.1) > 0.85


@pytest.mark.parametrize("noise_px", NOISES_PX)
def test_a_stated_edge_is_measured_between_its_neighbours(noise_px: float) -> None:
    profile = faceted((0.0, 45.0, 0.0), (30.0, 50.0), noise_px, 3)
    found = facet_angle(profile, (30.0 - 4) * PIXEL_M, 18 * PIXEL_M)
    assert found.external_deg == pytest.approx(135.0, abs=0.1 + 2 * found.sigma_deg)
    assert found.before.inclination_deg == pytest.approx(0.0, abs=0.1)


def test_a_face_below_eight_pixels_is_marked_as_narrow() -> None:
    narrow, wide = (facet_angles(faceted((0.0, 45.0, 0.0), (40.0, 40.0 + width), 0.003, 6)) for width in (7.0, 12.0))
    assert narrow[0].behind.narrow and narrow[1].before.narrow and not narrow[0].before.narrow
    assert not wide[0].behind.narrow


def test_a_straight_line_is_one_part_at_any_noise() -> None:
    for noise_px in (0.0, *NOISES_PX):
        assert len(straight_parts(faceted((20.0,), (), noise_px, 4))) == 1


def test_a_cliff_parts_terraces_that_are_parallel() -> None:
    y, x = np.mgrid[:40, :80].astype(np.float64)
    surface = HeightMap(5e-9 * (x > 40) + 1e-12 * np.sin(7.3 * x + y), PIXEL_M, PIXEL_M)
    parts = straight_parts(line_profile(surface, [(5, 20), (75, 20)], 5))
    assert len(parts) >= 2 and parts[0].to_m == pytest.approx(35.5 * PIXEL_M, abs=3 * PIXEL_M)
    assert math.isclose(parts[0].inclination_deg, 0.0, abs_tol=0.05)


def test_too_little_beside_an_edge_is_refused() -> None:
    with pytest.raises(BadInput, match="draw it longer"):
        facet_angle(faceted((0.0, 45.0), (40.0,), 0.0, 5), 3 * PIXEL_M)
