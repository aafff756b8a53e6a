"""Facet angles from the electrons themselves: right within their stated errors, at any angle and azimuth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant
from inference.calibration import Calibration, calibrate
from inference.forward_model import expected_electrons
from inference.metrology.facet_fit import FacetFit, facets_along, fit_facets
from inference.metrology.height_map import HeightMap

FINER = 4
SIZE = 96
BEAM_PX = 1.0
GAIN = 4.0
MIDDLE = 0.5 * SIZE - 0.5
FACE_PX = 8.0
GUESS_DEG = 4.0


def ridge(angle_deg: float, azimuth_deg: float, rise_along: float = 0.0) -> NDArray[np.float64]:
    """Plateau, a face of 8 pixels that rises across it, plateau; (FINER SIZE)² heights in pixels."""
    at = (np.arange(FINER * SIZE) + 0.5) / FINER - 0.5 * SIZE
    x, y = np.meshgrid(at, at)
    turn = math.radians(azimuth_deg)
    across, along = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    rise = np.clip(across + 0.5 * FACE_PX, 0.0, FACE_PX)
    return np.asarray(math.tan(math.radians(angle_deg)) * rise + rise_along * along)


def seen(height_px: NDArray[np.float64], dose: float, seed: int) -> tuple[NDArray[np.uint16], Calibration]:
    return exposed(expected(height_px, dose), seed)


def expected(height_px: NDArray[np.float64], dose: float) -> NDArray[np.float64]:
    """Electrons of a frame of pixels that are means over 4 x 4 points, under a beam of 1 pixel."""
    base = four_quadrant()
    pixel_m = base.scan.pixel_size_m
    fine = base.with_scan(pixel_size_m=pixel_m / FINER)
    electrons = expected_electrons(height_px * pixel_m, fine, dose)
    electrons = gaussian_filter(electrons, (0.0, FINER * BEAM_PX, FINER * BEAM_PX), mode="nearest")
    means: NDArray[np.float64] = electrons.reshape(len(electrons), SIZE, FINER, SIZE, FINER).mean(axis=(2, 4))
    return means


def exposed(means: NDArray[np.float64], seed: int) -> tuple[NDArray[np.uint16], Calibration]:
    base = four_quadrant()
    images = np.rint(np.random.default_rng(seed).poisson(means) * GAIN + 200.0).astype(np.uint16)
    tree = base.model_dump()
    tree["beam"]["sigma_px"] = BEAM_PX
    for segment in tree["detector"]["segments"]:
        segment.update(gain_counts_per_electron=GAIN, dark_counts=200.0)
    return images, calibrate(type(base).model_validate(tree), images)


def across_line(azimuth_deg: float, turned_deg: float = 0.0) -> tuple[tuple[float, float], tuple[float, float]]:
    """24 pixels across the middle of a frame."""
    turn = math.radians(azimuth_deg + turned_deg)
    ahead = 12.0 * math.cos(turn), -12.0 * math.sin(turn)
    return (MIDDLE - ahead[0], MIDDLE - ahead[1]), (MIDDLE + ahead[0], MIDDLE + ahead[1])


def fitted(angle_deg: float, azimuth_deg: float, dose: float, seed: int, turned_deg: float = 0.0) -> FacetFit:
    return fit(*seen(ridge(angle_deg, azimuth_deg), dose, seed), angle_deg, azimuth_deg, turned_deg)


def fit(
    images: NDArray[np.uint16],
    calibration: Calibration,
    angle_deg: float,
    azimuth_deg: float,
    turned_deg: float = 0.0,
) -> FacetFit:
    guess = np.array([0.0, math.tan(math.radians(angle_deg + GUESS_DEG)), 0.0])
    line = across_line(azimuth_deg, turned_deg)
    return fit_facets(images, calibration, *line, 48.0, np.array([7.0, 17.0]), guess)


@pytest.mark.parametrize(("angle_deg", "azimuth_deg"), [(23.7, 10.0), (37.2, 118.0), (49.1, 251.0)])
def test_a_facet_of_eight_pixels_is_right_within_a_tenth_of_a_degree(angle_deg: float, azimuth_deg: float) -> None:
    found = fitted(angle_deg, azimuth_deg, 30_000.0, seed=1)
    assert found.angle_deg[1] == pytest.approx(angle_deg, abs=0.1)
    assert abs(found.angle_deg[1] - angle_deg) < 4.0 * found.sigma_deg[1]
    assert found.edges_px == pytest.approx([8.0, 16.0], abs=0.1)
    step_px = FACE_PX * math.tan(math.radians(angle_deg))
    assert found.step_px == pytest.approx([step_px], rel=0.01)
    assert abs(found.step_px[0] - step_px) < 4.0 * found.step_sigma_px[0]
    assert found.external_deg[1] == pytest.approx(180.0 + angle_deg, abs=0.2)
    assert (found.azimuth_deg - azimuth_deg + 180.0) % 360.0 - 180.0 == pytest.approx(0.0, abs=0.2)
    assert found.reduced_chi2 == pytest.approx(1.0, abs=0.1)


def test_errors_are_as_large_as_stated() -> None:
    off = []
    means = expected(ridge(33.0, 40.0), 1_000.0)
    for seed in range(16):
        found = fit(*exposed(means, seed), 33.0, 40.0)
        off.append((found.angle_deg[1] - 33.0) / found.sigma_deg[1])
    assert 0.5 < float(np.sqrt(np.mean(np.square(off)))) < 1.6


def test_a_line_that_crosses_at_a_slant_finds_the_way_across() -> None:
    found = fitted(30.0, 60.0, 30_000.0, seed=2, turned_deg=6.0)
    assert found.angle_deg[1] == pytest.approx(30.0, abs=0.15)
    assert found.azimuth_deg == pytest.approx(60.0, abs=0.2)


def test_edges_that_climb_are_told_beside_the_angle_across_them() -> None:
    images, calibration = seen(ridge(30.0, 0.0, rise_along=0.1), 30_000.0, seed=3)
    guess = np.array([0.0, 0.5, 0.0])
    found = fit_facets(images, calibration, *across_line(0.0), 48.0, np.array([8.0, 16.0]), guess)
    assert found.angle_deg[1] == pytest.approx(30.0, abs=0.15)
    assert abs(found.along_deg) == pytest.approx(math.degrees(math.atan(0.1)), abs=0.2)


def test_the_search_begins_with_the_heights_own_profile() -> None:
    height_px = ridge(35.0, 20.0)
    images, calibration = seen(height_px, 30_000.0, seed=6)
    means_px = height_px.reshape(SIZE, FINER, SIZE, FINER).mean(axis=(1, 3))
    pixel_m = float(calibration.pixel_size_m)
    surface = HeightMap(gaussian_filter(means_px, 0.7) * pixel_m, pixel_m, pixel_m)
    found = facets_along(images, calibration, surface, *across_line(20.0), 40)
    assert (np.abs(found.angle_deg - [0.0, 35.0, 0.0]) < np.minimum(4.0 * found.sigma_deg, 0.5)).all()
    with pytest.raises(BadInput, match="no edge"):
        facets_along(images, calibration, replace(surface, height_m=np.zeros((SIZE, SIZE))), *across_line(20.0), 40)
    with pytest.raises(BadInput, match="not square"):
        facets_along(images, calibration, replace(surface, pixel_size_y_m=2 * pixel_m), *across_line(20.0), 40)


def test_what_cannot_be_fitted_is_refused_with_the_way_out() -> None:
    images, calibration = seen(ridge(30.0, 0.0), 1_000.0, seed=4)
    line = across_line(0.0)
    with pytest.raises(BadInput, match=r"1\.5 pixels wide; it takes 2"):
        fit_facets(images, calibration, *line, 20.0, np.array([8.0, 9.5]), np.zeros(3))
    with pytest.raises(BadInput, match="3 slopes were given"):
        fit_facets(images, calibration, *line, 20.0, np.array([8.0]), np.zeros(3))
    with pytest.raises(BadInput, match="unsaturated pixels"):
        fit_facets(np.full_like(images, 65535), calibration, *line, 20.0, np.array([8.0, 16.0]), np.zeros(3))
