"""Facets of surfaces whose facets are known, at three doses of noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from inference.metrology.facets import find_facets
from inference.metrology.height_map import HeightMap

PIXEL_M = 10e-9
NOISES_PX = (0.01, 0.05, 0.15)


def mesa(sides: int, inclination_deg: float, turn_deg: float, noise_px: float = 0.0, aspect: float = 1.0) -> HeightMap:
    """A flat top with straight sides around it, the first of which looks to `turn_deg`, on flat ground."""
    y, x = np.mgrid[:160, :160] - 80.0
    turns = np.radians(turn_deg + np.arange(sides) * 360.0 / sides)
    out = np.max([np.cos(t) * x - np.sin(t) * aspect * y for t in turns], axis=0)
    height_px = np.clip(60.0 - out, 0.0, 28.0) * math.tan(math.radians(inclination_deg))
    noise = gaussian_filter(np.random.default_rng(1).normal(size=x.shape), 0.7)
    return HeightMap(PIXEL_M * (height_px + noise_px * noise / noise.std()), PIXEL_M, aspect * PIXEL_M)


@pytest.mark.parametrize("noise_px", NOISES_PX)
@pytest.mark.parametrize("sides", [4, 8])
def test_every_side_is_found_with_its_inclination_and_azimuth(sides: int, noise_px: float) -> None:
    found = find_facets(mesa(sides, 35.0, 20.0, noise_px)).facets
    flat, steep = [one for one in found if one.inclination_deg < 5], [one for one in found if one.inclination_deg > 5]
    assert len(steep) == sides and len(flat) in (2, 5)  # the ground may be parted by the frame
    wanted = sorted((20.0 + number * 360.0 / sides) % 360 for number in range(sides))
    for one, azimuth_deg in zip(sorted(steep, key=lambda facet: facet.azimuth_deg), wanted, strict=True):
        assert one.inclination_deg == pytest.approx(35.0, abs=0.05 + 4 * one.sigma_inclination_deg)
        assert one.azimuth_deg == pytest.approx(azimuth_deg, abs=0.05 + 4 * one.sigma_azimuth_deg)
        assert one.sigma_inclination_deg < 0.05 + 5 * noise_px


@pytest.mark.parametrize("noise_px", NOISES_PX)
def test_inclinations_scatter_as_told(noise_px: float) -> None:
    """One plane, seen with many noises."""
    rng, errors, told = np.random.default_rng(2), [], []
    x = np.mgrid[:50, :50][1]
    for _ in range(30):
        noise = gaussian_filter(rng.normal(size=x.shape), 1.0)
        surface = HeightMap(PIXEL_M * (0.5 * x + noise_px * noise / noise.std()), PIXEL_M, PIXEL_M)
        (facet,) = find_facets(surface, smoothing_px=3.0).facets
        errors.append(facet.inclination_deg - math.degrees(math.atan(0.5)))
        told.append(facet.sigma_inclination_deg)
    assert 0.6 < np.sqrt(np.mean(np.square(told))) / np.std(errors) < 1.5
    assert abs(np.mean(errors)) < 4 * np.std(errors) / math.sqrt(len(errors))


def test_area_is_that_of_the_face_and_the_top_is_counted_in_pixels() -> None:
    found = find_facets(mesa(4, 45.0, 0.0)).facets
    top = next(one for one in found if one.inclination_deg < 1 and math.dist(one.centre_px, (80, 80)) < 2)
    assert top.area_m2 == pytest.approx((64 * PIXEL_M) ** 2, rel=0.08)
    side = next(one for one in found if one.inclination_deg > 40)
    trapezoid_px = 0.5 * (64 + 120) * 28 * math.sqrt(2)
    assert side.area_m2 == pytest.approx(trapezoid_px * PIXEL_M**2, rel=0.12)
    np.testing.assert_allclose(np.linalg.norm(side.normal), 1.0)


def test_azimuth_90_is_the_top_of_the_image_and_labels_hold_the_numbers() -> None:
    found = find_facets(mesa(4, 30.0, 0.0))
    upper = next(one for one in found.facets if one.inclination_deg > 20 and one.centre_px[1] < 60)
    assert upper.azimuth_deg == pytest.approx(90.0, abs=0.1) and upper.normal[1] > 0.4
    assert found.labels[round(upper.centre_px[1]), round(upper.centre_px[0])] == upper.number
    assert set(np.unique(found.labels)) == {0, *(one.number for one in found.facets)}


def test_pixels_that_are_higher_than_wide_do_not_bend_angles() -> None:
    found = find_facets(mesa(4, 30.0, 45.0, aspect=1.5)).facets
    steep = [one for one in found if one.inclination_deg > 20]
    assert len(steep) == 4
    assert {round(one.azimuth_deg) for one in steep} == {45, 135, 225, 315}
    assert all(one.inclination_deg == pytest.approx(30.0, abs=0.2) for one in steep)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="above 0"):
        find_facets(mesa(4, 30.0, 0.0), smoothing_px=0.0)
