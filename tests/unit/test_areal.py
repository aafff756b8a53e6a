"""Areal parameters against what they are by their definitions, and against Gwyddion's on the same map."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.ndimage import fourier_gaussian, gaussian_filter

import gwyddion
from acquisition.errors import BadInput
from inference.metrology.areal import areal, autocorrelation
from inference.metrology.height_map import HeightMap

PIXEL_M, PIXEL_Y_M = 8e-9, 10e-9


def rough(sigma_px: tuple[float, float], rms_m: float = 20e-9, shape: tuple[int, int] = (256, 192)) -> np.ndarray:
    """Heights whose autocorrelation is Gaussian, `sigma_px` wide down and across, times the square root of two."""
    noise = np.random.default_rng(4).normal(size=shape)
    smooth = gaussian_filter(noise, sigma_px, mode="wrap")
    return smooth * (rms_m / smooth.std())


@pytest.mark.parametrize("sigma_px", [(1.0, 1.0), (5.0, 2.0)])
def test_parameters_are_gwyddions_on_the_same_map(sigma_px: tuple[float, float]) -> None:
    height_m = np.maximum(rough(sigma_px), -30e-9)  # pits cut off, so that the skewness is no accident
    expected = gwyddion.statistics(height_m, PIXEL_M, PIXEL_Y_M)
    found = asdict(areal(HeightMap(height_m, PIXEL_M, PIXEL_Y_M)))
    assert abs(expected["ssk"]) > 0.05
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.005), name


def test_autocorrelation_is_gwyddions_on_the_same_map() -> None:
    height_m = rough((3.0, 2.0))
    level_m = height_m - height_m.mean()
    expected = gwyddion.autocovariance(level_m) / level_m.var()
    assert np.abs(autocorrelation(height_m) - expected).max() < 1e-6


def wavy(sigma_px: tuple[float, float], side_px: int, seed: int = 6) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(side_px, side_px))
    smooth = np.fft.ifft2(fourier_gaussian(np.fft.fft2(noise), sigma_px)).real
    return smooth * (20e-9 / smooth.std())


def test_autocorrelation_length_and_aspect_ratio_are_gwyddions_where_its_pixels_are_fine() -> None:
    height_m = wavy((90.0, 64.0), 1024, seed=2)
    shortest_m, longest_m = gwyddion.decay_lengths(height_m, PIXEL_M, PIXEL_M)
    found = areal(HeightMap(height_m, PIXEL_M, PIXEL_M))
    assert shortest_m > 100 * PIXEL_M
    assert found.sal_m == pytest.approx(shortest_m, rel=0.005)
    assert found.str_ == pytest.approx(shortest_m / longest_m, rel=0.005)


@pytest.mark.parametrize("sigma_px", [(2.0, 2.0), (7.0, 3.0)])
def test_autocorrelation_length_is_within_the_corner_of_a_pixel_from_gwyddions_on_rough_maps(
    sigma_px: tuple[float, float],
) -> None:
    height_m = wavy(sigma_px, 256)
    shortest_m, longest_m = gwyddion.decay_lengths(height_m, PIXEL_M, PIXEL_Y_M)
    found = areal(HeightMap(height_m, PIXEL_M, PIXEL_Y_M))
    assert found.sal_m is not None and found.str_ is not None
    corner_m = 0.5 * np.hypot(PIXEL_M, PIXEL_Y_M)
    assert abs(found.sal_m - shortest_m) < corner_m
    assert abs(found.sal_m / found.str_ - longest_m) < corner_m


def test_lengths_of_a_texture_are_those_it_was_made_with() -> None:
    """A Gaussian autocorrelation exp(-x^2 / (4 sigma^2)) is 0.2 at x = 2 sigma sqrt(ln 5)."""
    across, along = (2.0 * sigma * np.sqrt(np.log(5.0)) for sigma in (3.0, 9.0))
    found = areal(HeightMap(rough((9.0, 3.0), shape=(1024, 512)), PIXEL_M, PIXEL_M))
    assert found.sal_m == pytest.approx(across * PIXEL_M, rel=0.05)
    assert found.str_ == pytest.approx(across / along, rel=0.1)


def test_an_oblique_plane_has_the_area_and_gradient_of_its_slope() -> None:
    height_m = 0.5 * np.arange(400.0) * PIXEL_M * np.ones((300, 1))
    found = areal(HeightMap(height_m, PIXEL_M, PIXEL_Y_M))
    assert found.sdq == pytest.approx(0.5)
    assert found.sdr == pytest.approx(np.hypot(1.0, 0.5) - 1.0, rel=0.01)


def test_a_ridge_without_end_has_no_texture_ratio() -> None:
    height_m = np.random.default_rng(2).normal(size=128) * 1e-9 * np.ones((128, 1))
    found = areal(HeightMap(height_m, PIXEL_M, PIXEL_M))
    assert found.sal_m is not None
    assert found.str_ is None


def test_a_flat_map_is_refused() -> None:
    with pytest.raises(BadInput, match="flat"):
        areal(HeightMap(np.full((32, 32), 5e-6), PIXEL_M, PIXEL_M))
