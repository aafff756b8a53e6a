"""Where a height map lies on another, fitted to the slopes of both: in them the noise of a frame's heights is white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from inference.metrology.candidates import LEAST_OVERLAP
from inference.metrology.height_map import HeightMap
from inference.metrology.placement import Placement, coordinates, extent_m, pixels, smooth, steps
from inference.metrology.scatter import MAD_TO_SIGMA

MOST_POINTS, LEAST_POINTS = 60_000, 64
ITERATIONS = 30
BLOCKS = 8
BACKGROUND = 3
HUBER_DEVIATIONS = 1.5
BORDER_PX = 3
CLOSE_PX = 1e-3
MOVES = 6
CORNERS = ((0, 0), (0, 1), (1, 0))
"""A pixel, the next one along its line, and that of the next line."""

Floats = NDArray[np.float64]


def fit_place(
    frame: HeightMap,
    other: HeightMap,
    start: Placement,
    blur_px: float,
    trusted: NDArray[np.bool_] | None = None,
) -> Placement | None:
    """Six parameters of the placement, the height ratio and a smooth background, by Gauss-Newton with Huber's weights;
    None where the overlap is lost on the way.

    Heights of a frame are integrated slopes, so that their noise is long waves and that of their slopes is white: least
    squares of slopes lose the least. They are taken along the pixels of `other`, whose scan lines, its rows, may be
    offset: along a line that changes nothing, and across lines each line's mean is left out. Neighbours' residuals
    still depend on each other, so the deviations come from leaving out one block of the frame after the other (delete-
    block jackknife, J. Shao & C. Wu, Ann. Stat. 17, 1176 (1989)). `trusted` (H, W): where `other` is known, everywhere
    if None.
    """
    maps = _maps(frame, other, blur_px, trusted)
    half_m = 0.5 * extent_m(frame)
    matrix, shift_m = start.matrix.copy(), start.shift_m.copy()
    for _ in range(ITERATIONS):
        found = maps.slopes(matrix, shift_m, half_m)
        if found is None:
            return None
        slopes, blocks = found
        flat, target = slopes[:, MOVES:-1], slopes[:, -1]
        linear, *_ = np.linalg.lstsq(flat, target, rcond=None)
        if linear[0] <= 0.0:
            return None
        residual = target - flat @ linear
        spread = MAD_TO_SIGMA * float(np.median(np.abs(residual))) + 1e-30
        weight = 1.0 / np.maximum(1.0, np.abs(residual) / (HUBER_DEVIATIONS * spread))
        design = np.column_stack([linear[0] * slopes[:, :MOVES], flat])
        design /= np.maximum(np.sqrt((design**2).sum(axis=0)), np.finfo(np.float64).tiny)
        length = np.sqrt((slopes[:, :MOVES] ** 2).sum(axis=0)) * linear[0]
        normal, score = design.T @ (weight[:, None] * design), design.T @ (weight * residual)
        step = (np.linalg.pinv(normal, rcond=1e-10, hermitian=True) @ score)[:MOVES] / length
        matrix += np.array([step[0:2], step[3:5]]) / half_m
        shift_m += step[[2, 5]]
        if np.abs(step).max() < CLOSE_PX * min(*steps(frame), *steps(other)):
            break
    sigmas = _jackknifed(design, weight, residual, blocks)[:MOVES] / length
    correlation = float(np.corrcoef(target - flat[:, 1:] @ linear[1:], flat[:, 0])[0, 1])
    return Placement(matrix, shift_m, sigmas[[2, 5]], sigmas[[[0, 1], [3, 4]]] / half_m, float(linear[0]), correlation)


@dataclass(frozen=True, slots=True)
class _Maps:
    """`moving`: spline coefficients of the frame's heights; `fixed` and its slopes: the map's, in metres. `rows`,
    `columns`: pixels of the map that are looked at; `least`: how many of them the frame must cover."""

    frame: HeightMap
    other: HeightMap
    moving: Floats
    fixed: Floats
    slope_x: Floats
    slope_y: Floats
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    least: float

    def slopes(self, matrix: Floats, shift_m: Floats, half_m: float) -> tuple[Floats, NDArray[np.intp]] | None:
        """(2 N, K) slopes along and across the lines: of the map as each parameter of the placement changes it, of the
        map, of the background, and of the frame; and of which block of the frame each is. None where too few are
        left."""
        back = np.linalg.inv(matrix)
        x_m, y_m = coordinates(self.other)
        places = []
        known = np.ones(self.rows.shape, bool)
        for down, right in CORNERS:
            x, y = x_m[self.columns + right] - shift_m[0], y_m[self.rows + down] - shift_m[1]
            u_m, v_m = (back[axis, 0] * x + back[axis, 1] * y for axis in (0, 1))
            there = pixels(self.frame, u_m, v_m)
            for place, side in zip(there, self.frame.height_m.shape, strict=True):
                known &= (place >= BORDER_PX) & (place <= side - 1 - BORDER_PX)
            places.append((u_m / half_m, v_m / half_m, there))
        if np.count_nonzero(known) < max(LEAST_POINTS, self.least):
            return None
        rows, columns = self.rows[known], self.columns[known]
        base, beside, below = (
            self._values((rows + down, columns + right), u[known], v[known], (there[0][known], there[1][known]))
            for (down, right), (u, v, there) in zip(CORNERS, places, strict=True)
        )
        down_m, across_m = steps(self.other)
        slopes = np.concatenate([(beside - base) / across_m, _within_lines((below - base) / down_m, rows)])
        u, v, _ = places[0]
        block = np.floor(0.5 * BLOCKS * (u[known] + 4.0)) * 1000 + np.floor(0.5 * BLOCKS * (v[known] + 4.0))
        _, blocks = np.unique(np.concatenate([block, block]), return_inverse=True)
        return slopes, blocks

    def _values(self, at: tuple[NDArray[np.intp], ...], u: Floats, v: Floats, there: tuple[Floats, ...]) -> Floats:
        """(N, K) what `slopes` are the slopes of; u and v in halves of the frame's shorter side."""
        along_x, along_y = self.slope_x[at], self.slope_y[at]
        moves = [along_x * u, along_x * v, along_x, along_y * u, along_y * v, along_y]
        background = np.polynomial.legendre.legvander2d(u, v, [BACKGROUND, BACKGROUND])[:, 1:]
        seen = map_coordinates(self.moving, there, order=3, prefilter=False)
        return np.column_stack([*moves, self.fixed[at], background, seen])


def _maps(frame: HeightMap, other: HeightMap, blur_px: float, trusted: NDArray[np.bool_] | None) -> _Maps:
    short_m = blur_px * max(*steps(frame), *steps(other))
    moving, fixed = spline_filter(smooth(frame, short_m)), smooth(other, short_m)
    slope_y, slope_x = (np.asarray(part, np.float64) for part in np.gradient(fixed, *steps(other)))
    covered = min(fixed.size, frame.height_m.size * math.prod(steps(frame)) / math.prod(steps(other)))
    stride = max(int(blur_px), math.ceil(math.sqrt(covered / MOST_POINTS)))
    rows, columns = (part.ravel() for part in np.mgrid[: fixed.shape[0] - 1 : stride, : fixed.shape[1] - 1 : stride])
    least = LEAST_OVERLAP * covered / stride**2
    if trusted is not None:
        sound = np.logical_and.reduce([trusted[rows + down, columns + right] for down, right in CORNERS])
        rows, columns, least = rows[sound], columns[sound], 0.0
    return _Maps(frame, other, moving, fixed, slope_x, slope_y, rows, columns, least)


def _jackknifed(design: Floats, weight: Floats, residual: Floats, blocks: NDArray[np.intp]) -> Floats:
    """(K,) standard deviations of the parameters, from how much each block moves them."""
    order = np.argsort(blocks, kind="stable")
    ends = np.searchsorted(blocks[order], np.arange(blocks.max() + 2))
    parts = [order[start:end] for start, end in pairwise(ends)]
    normals = np.array([design[part].T @ (weight[part, None] * design[part]) for part in parts])
    scores = np.array([design[part].T @ (weight[part] * residual[part]) for part in parts])
    left = np.linalg.pinv(normals.sum(axis=0) - normals, rcond=1e-10, hermitian=True)
    moved = np.einsum("bij,bj->bi", left, scores.sum(axis=0) - scores)
    count = len(parts)
    return np.asarray(np.sqrt((count - 1) / count * (moved**2).sum(axis=0)), np.float64)


def _within_lines(values: Floats, lines: NDArray[np.intp]) -> Floats:
    """(N, K) less their mean over each scan line of the map: what a line's own offset says is nothing."""
    count = np.maximum(np.bincount(lines), 1)
    means = np.column_stack([np.bincount(lines, column) / count for column in values.T])
    return values - means[lines]
