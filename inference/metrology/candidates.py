"""Where one height map may lie on another: every rotation and some scales, tried on coarse maps by correlation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import affine_transform, gaussian_filter, zoom

from inference.metrology.height_map import HeightMap
from inference.metrology.placement import Placement, extent_m, smooth, steps

COARSE_PX, MOST_COARSE_PX = 72, 320
ROTATIONS_DEG = np.arange(0.0, 360.0, 5.0)
SCALES = (0.92, 1.0, 1.08)
CANDIDATES, RIVALS = 3, 4
LEAST_OVERLAP = 0.35

Floats = NDArray[np.float64]


def candidates(frame: HeightMap, other: HeightMap) -> list[Placement]:
    """Rotations and scales by correlation of coarse maps: the frame turned about its middle, over the map."""
    smaller_m = min(extent_m(frame), extent_m(other))
    longest_m = max(side * p for m in (frame, other) for side, p in zip(m.height_m.shape, steps(m), strict=True))
    pixel_m = max(smaller_m / COARSE_PX, longest_m / MOST_COARSE_PX)
    moving, fixed = (_coarse(surface, pixel_m, smaller_m) for surface in (frame, other))
    span = math.ceil(math.hypot(*moving.shape) * max(SCALES)) + 2
    shape = tuple(next_fast_len(side + span, real=True) for side in fixed.shape)
    fixed_parts = [rfft2(part, shape) for part in (fixed, fixed**2, np.ones_like(fixed))]
    least = LEAST_OVERLAP * min(fixed.size, moving.size)
    found: list[tuple[float, Placement]] = []
    for rotation_deg in ROTATIONS_DEG:
        for scale in SCALES:
            matrix = scale * _turn(rotation_deg)
            turned, mask = _turned(moving, matrix, span)
            parts = [np.conj(rfft2(part, shape)) for part in (turned, mask, turned**2)]
            product, fixed_power, own_power, overlap = (
                irfft2(fixed_parts[i] * parts[j], shape) for i, j in ((0, 0), (1, 1), (2, 2), (2, 1))
            )
            power = np.sqrt(np.maximum(fixed_power * own_power, 1e-12 * fixed_power.max() * own_power.max()))
            correlation = np.where(overlap >= least, product / power, -1.0)
            peak = np.unravel_index(int(np.argmax(correlation)), shape)
            down, right = (int(p) - s if p > s - span else int(p) for p, s in zip(peak, shape, strict=True))
            middle = (span - 1) / 2.0
            shift_m = pixel_m * np.array(
                [right + middle - 0.5 * (fixed.shape[1] - 1), down + middle - 0.5 * (fixed.shape[0] - 1)]
            )
            value = float(correlation[peak])
            found.append((value, Placement(matrix, shift_m, np.full(2, pixel_m), np.full((2, 2), 0.1), 1.0, value)))
    found.sort(key=lambda pair: -pair[0])
    ranked = [placement for _, placement in found]
    chosen = ranked[:CANDIDATES]
    for one in ranked[CANDIDATES:]:
        if len(chosen) < CANDIDATES + RIVALS and all(_turned_apart(one, taken) for taken in chosen):
            chosen.append(one)
    return chosen


def _turned_apart(one: Placement, taken: Placement) -> bool:
    return abs((one.rotation_deg - taken.rotation_deg + 180.0) % 360.0 - 180.0) > 12.0


def _turn(rotation_deg: float) -> Floats:
    c, s = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
    return np.array([[c, -s], [s, c]])


def _coarse(surface: HeightMap, pixel_m: float, wave_m: float) -> Floats:
    """On square pixels, waves longer than a fourth of `wave_m` left out, of deviation 1."""
    waves = _without_long_waves(surface, pixel_m, 0.12 * wave_m)
    factors = [step / pixel_m for step in steps(surface)]
    small = zoom(waves, factors, order=1, grid_mode=True, mode="nearest")
    return np.asarray(small / max(float(small.std()), 1e-300), np.float64)


def _turned(moving: Floats, matrix: Floats, span: int) -> tuple[Floats, Floats]:
    """`moving` and its mask turned by `matrix` (x, y) about the middle of a square of `span` pixels."""
    back = np.linalg.inv(matrix)[::-1, ::-1]
    middle, own = 0.5 * (span - 1), 0.5 * (np.array(moving.shape) - 1)
    offset = own - back @ np.full(2, middle)
    turned = affine_transform(moving, back, offset, (span, span), order=1)
    mask = affine_transform(np.ones_like(moving), back, offset, (span, span), order=1)
    return turned, mask


def _without_long_waves(surface: HeightMap, short_m: float, long_m: float) -> Floats:
    """Heights less their mean plane and their average over `long_m`, averaged over `short_m`, both as deviations of a
    Gaussian; outside the map nothing is made up: averages are of what is there."""
    level = surface.level()
    down, across = steps(surface)
    wide = [long_m / down, long_m / across]
    there = gaussian_filter(np.ones_like(level.height_m), wide, mode="constant")
    long = gaussian_filter(level.height_m, wide, mode="constant") / there
    return np.asarray(smooth(level, short_m) - long, np.float64)
