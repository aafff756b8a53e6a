"""Where one height map lies on another: shift, rotation, scale and shear, from their heights alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput
from inference.metrology.candidates import LEAST_OVERLAP, candidates
from inference.metrology.height_map import HeightMap
from inference.metrology.placement import Placement, coordinates, extent_m, pixels, smooth, steps

LEAST_CORRELATION = 0.3
LEAST_LEAD = 0.3
"""Of the best place over the next one, as the inverse hyperbolic tangents of their correlations (Fisher)."""
MOST_SCALE, MOST_ASPECT, MOST_SHEAR_DEG, MOST_HEIGHT_RATIO = 1.18, 1.1, 6.0, 4.0
MOST_POINTS = 60_000
ITERATIONS = 40
BLOCKS = 8
BACKGROUND = 3
HUBER_DEVIATIONS = 1.5

Floats = NDArray[np.float64]


def align(frame: HeightMap, other: HeightMap) -> Placement:
    """Place `frame` on `other`: every rotation and scales of 0.88 to 1.12 are tried on coarse maps by correlation, the
    best are fitted to the heights by least squares with a robust loss. `other` may have scan lines, its rows.

    Raises `BadInput` where nothing of one is found in the other.
    """
    starts = candidates(frame, other)
    refined = (_refine(frame, other, start, 2.5) for start in starts)
    found = sorted((one for one in refined if one is not None), key=_quality, reverse=True)
    best = next((one for one in found if _plausible(one)), None)
    if best is None or best.correlation < LEAST_CORRELATION:
        raise BadInput(
            "the two height maps do not fit each other: see that they show the same place, at least a third of the "
            "smaller one, and that neither is mirrored or has a pixel size more than 10 % off"
        )
    # What chance reaches on such surfaces is told by the places beside, those that no drift explains among them.
    rival = next((one for one in found if _elsewhere(one, best, frame, other)), None)
    if rival is not None and math.atanh(best.correlation) - math.atanh(rival.correlation) < LEAST_LEAD:
        raise BadInput(
            f"the two height maps do not fit each other in one place alone: the best correlation is "
            f"{best.correlation:.3f}, and {rival.correlation:.3f} turned by "
            f"{rival.rotation_deg - best.rotation_deg:.0f}° against it; take maps that share more of the surface"
        )
    return _refine(frame, other, best, 1.0) or best


def _quality(placement: Placement) -> float:
    return placement.correlation


def _plausible(placement: Placement) -> bool:
    """Drift and wrong pixel sizes distort a map by so much at most; a fit to another surface goes beyond."""
    along, across = placement.scale
    return (
        max(along, across, 1.0 / along, 1.0 / across) < MOST_SCALE
        and max(along / across, across / along) < MOST_ASPECT
        and abs(placement.shear_deg) < MOST_SHEAR_DEG
        and 1.0 / MOST_HEIGHT_RATIO < placement.height_ratio < MOST_HEIGHT_RATIO
    )


def _elsewhere(one: Placement, best: Placement, frame: HeightMap, other: HeightMap) -> bool:
    """Whether it is another place, and not the same found again."""
    apart_deg = abs((one.rotation_deg - best.rotation_deg + 180.0) % 360.0 - 180.0)
    apart_m = float(np.hypot(*(one.shift_m - best.shift_m)))
    return apart_deg > 3.0 or apart_m > 5.0 * max(*steps(frame), *steps(other))


def _refine(frame: HeightMap, other: HeightMap, start: Placement, blur_px: float) -> Placement | None:
    """Six parameters of the placement, the height ratio, a smooth background and an offset of each scan line of
    `other`, by Gauss-Newton with Huber's weights; None where the overlap is lost on the way. Neighbours' residuals
    depend on each other, so the deviations come from scores summed over blocks."""
    short_m = blur_px * max(*steps(frame), *steps(other))
    moving, fixed = (smooth(surface, short_m) for surface in (frame, other))
    stride = max(1, math.ceil(math.sqrt(moving.size / MOST_POINTS)))
    x_m, y_m = coordinates(frame)
    grid_y, grid_x = (part.ravel() for part in np.meshgrid(y_m[::stride], x_m[::stride], indexing="ij"))
    wanted = moving[::stride, ::stride].ravel()
    slope_y, slope_x = (np.gradient(fixed, step, axis=axis) for axis, step in enumerate(steps(other)))
    half_m = 0.5 * extent_m(frame)
    matrix, shift_m = start.matrix.copy(), start.shift_m.copy()
    least = LEAST_OVERLAP * min(1.0, other.height_m.size * other.pixel_size_m * other.pixel_size_y_m / _area_m2(frame))
    for _ in range(ITERATIONS):
        x, y = (matrix[i, 0] * grid_x + matrix[i, 1] * grid_y + shift_m[i] for i in (0, 1))
        rows, columns = pixels(other, x, y)
        known = (rows >= 1) & (rows <= fixed.shape[0] - 2) & (columns >= 1) & (columns <= fixed.shape[1] - 2)
        if np.count_nonzero(known) < max(64, least * known.size):
            return None
        places = (rows[known], columns[known])
        heights, along_x, along_y = (map_coordinates(part, places, order=1) for part in (fixed, slope_x, slope_y))
        heights = map_coordinates(fixed, places, order=3)
        u, v = grid_x[known] / half_m, grid_y[known] / half_m
        background = np.polynomial.legendre.legvander2d(u, v, [BACKGROUND, BACKGROUND])[:, 1:]
        lines = np.rint(rows[known]).astype(int)
        flat, target = (_within_lines(part, lines) for part in (np.column_stack([heights, background]), wanted[known]))
        linear, *_ = np.linalg.lstsq(flat, target, rcond=None)
        residual = target - flat @ linear
        spread = 1.4826 * float(np.median(np.abs(residual))) + 1e-30
        weight = 1.0 / np.maximum(1.0, np.abs(residual) / (HUBER_DEVIATIONS * spread))
        ratio = float(linear[0])
        if ratio <= 0.0:
            return None
        moved = ratio * np.column_stack([along_x * u, along_x * v, along_x, along_y * u, along_y * v, along_y])
        design = np.column_stack([_within_lines(moved, lines), flat])
        normal = design.T @ (weight[:, None] * design)
        scaling = 1.0 / np.sqrt(np.maximum(np.diag(normal), np.finfo(np.float64).tiny))
        step = (
            scaling
            * np.linalg.lstsq(
                normal * np.outer(scaling, scaling), scaling * (design.T @ (weight * residual)), rcond=1e-10
            )[0]
        )
        matrix += np.array([step[0:2], step[3:5]]) / half_m
        shift_m += step[[2, 5]]
        if np.abs(step[:6]).max() < 1e-3 * min(*steps(frame), *steps(other)):
            break
    scores = design * (weight * residual)[:, None]
    block = (np.floor((u + 4.0) * BLOCKS / 2) * 1000 + np.floor((v + 4.0) * BLOCKS / 2)).astype(int)
    _, which = np.unique(block, return_inverse=True)
    sums = np.zeros((int(which.max()) + 1, design.shape[1]))
    np.add.at(sums, which, scores)
    back = scaling[:, None] * np.linalg.pinv(normal * np.outer(scaling, scaling)) * scaling
    covariance = back @ (sums.T @ sums) @ back
    correlation = float(np.corrcoef(target - flat[:, 1:] @ linear[1:], flat[:, 0])[0, 1])
    sigmas = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return Placement(matrix, shift_m, sigmas[[2, 5]], sigmas[[[0, 1], [3, 4]]] / half_m, ratio, correlation)


def _within_lines(values: Floats, lines: NDArray[np.int_]) -> Floats:
    """(N,) or (N, K) less their mean over each scan line of the map: what a line's own offset says is nothing."""
    count = np.maximum(np.bincount(lines), 1)
    columns = values.reshape(len(values), -1)
    means = np.column_stack([np.bincount(lines, column) / count for column in columns.T])
    return (columns - means[lines]).reshape(values.shape)


def _area_m2(surface: HeightMap) -> float:
    return surface.height_m.size * surface.pixel_size_m * surface.pixel_size_y_m
