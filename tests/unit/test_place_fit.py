"""A place fitted to slopes: near to what noise allows, blind to lines, and with an error that is told as it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import fft2, fftfreq, ifft2

from inference.metrology.height_map import HeightMap
from inference.metrology.place_fit import fit_place
from inference.metrology.placement import Placement
from probed import AFM_PIXEL_M, MATRIX, PIXEL_M, SHIFT_M, grains, probed

SIDE, SHARP_M = 96, 1e-13
NOISE = 0.05
NEAR = Placement(MATRIX + 0.01, SHIFT_M + 0.8 * PIXEL_M, np.zeros(2), np.zeros((2, 2)), 1.0, 1.0)


def seen(seed: int) -> HeightMap:
    """Heights that white noise of both slopes integrates to."""
    rng = np.random.default_rng(seed)
    wave = 2.0 * np.pi * np.hypot(*np.meshgrid(fftfreq(SIDE), fftfreq(SIDE)))
    wave[0, 0] = np.inf
    noise = ifft2(fft2(rng.normal(0.0, NOISE * PIXEL_M, (SIDE, SIDE))) / wave).real
    return HeightMap(grains(SIDE) + noise, PIXEL_M, PIXEL_M)


def placed(frame: HeightMap, afm: HeightMap, trusted: np.ndarray | None = None) -> Placement:
    found = fit_place(frame, afm, NEAR, 2.0, trusted)
    assert found is not None
    return found


def off_px(found: Placement) -> float:
    middle = (np.arange(SIDE) - 0.5 * (SIDE - 1)) * PIXEL_M
    points = np.stack(np.meshgrid(middle, middle)).reshape(2, -1)
    off_m = (found.matrix - MATRIX) @ points + (found.shift_m - SHIFT_M)[:, None]
    return float(np.sqrt((off_m**2).sum(axis=0).mean())) / PIXEL_M


def test_noise_of_slopes_misplaces_by_what_is_told() -> None:
    afm = probed(grains(SIDE), SHARP_M)
    found = [placed(seen(seed), afm) for seed in range(6)]
    off, told = (
        float(np.sqrt(np.mean(np.square(part))))
        for part in ([off_px(one) for one in found], [one.sigma_m(seen(0)) / PIXEL_M for one in found])
    )
    assert off < 0.1
    assert 0.5 < off / told < 1.7


def test_lines_that_jump_move_nothing() -> None:
    afm, rng = probed(grains(SIDE), SHARP_M), np.random.default_rng(4)
    jumping = HeightMap(afm.height_m + rng.normal(0.0, 0.2e-9, (len(afm.height_m), 1)), AFM_PIXEL_M, AFM_PIXEL_M)
    frame = seen(1)
    one, other = (placed(frame, part) for part in (afm, jumping))
    assert np.abs(one.shift_m - other.shift_m).max() < 0.02 * PIXEL_M


def test_what_is_not_trusted_counts_nothing() -> None:
    afm = probed(grains(SIDE), SHARP_M)
    trusted = np.ones(afm.height_m.shape, bool)
    trusted[30:60, 40:90] = False
    wrong = HeightMap(np.where(trusted, afm.height_m, 0.0), AFM_PIXEL_M, AFM_PIXEL_M)
    eroded = trusted.copy()
    eroded[24:66, 34:96] = False
    assert off_px(placed(seen(1), wrong, eroded)) < 0.1


def test_no_overlap_is_no_place() -> None:
    far = Placement(MATRIX, SHIFT_M + 400 * PIXEL_M, np.zeros(2), np.zeros((2, 2)), 1.0, 1.0)
    assert fit_place(seen(1), probed(grains(SIDE), SHARP_M), far, 2.0) is None


def test_a_placement_tells_how_far_it_may_be_off() -> None:
    told = Placement(MATRIX, SHIFT_M, np.array([3e-9, 4e-9]), np.zeros((2, 2)), 1.0, 1.0)
    assert told.sigma_m(seen(1)) == pytest.approx(5e-9)
    turned = Placement(MATRIX, SHIFT_M, np.zeros(2), np.array([[1e-2, 0.0], [0.0, 0.0]]), 1.0, 1.0)
    assert turned.sigma_m(seen(1)) == pytest.approx(1e-2 * SIDE * PIXEL_M / np.sqrt(12.0))
