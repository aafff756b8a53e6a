"""Exposure: how far the surface itself rises above each pixel's horizon, and where it can't (design stage 2).

Kernels compiled by numba and cached on disk; a cached caller isn't renewed when only a callee's file changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def compiled(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """numba's decorator with its types kept."""
    kernel: Callable[Arguments, Value] = njit(nogil=True, cache=True)(function)
    return kernel


def compiled_parallel(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    kernel: Callable[Arguments, Value] = njit(nogil=True, cache=True, parallel=True)(function)
    return kernel


@compiled
def signed(index: int) -> int:
    """A `prange` index as an ordinary integer: it is unsigned, so that `index - 1` would wrap around at 0."""
    return np.int64(index)  # type: ignore[return-value]


@compiled_parallel
def search_limits(heights: Floats, occluding_slope: float) -> tuple[NDArray[np.int32], Floats]:
    """How far each pixel must look for what blocks it, and the highest point it can find there.

    `heights`: (H, W) float32 in units of the smaller pixel side. Returns `radius` (H, W) int32 in pixels, 0 where
    nothing can rise above `occluding_slope`, and `ceiling` (H, W) float32. Windows of doubling half-width w bound
    everything that lies beyond w/2: a point there blocks only if it rises by more than `occluding_slope * w/2`. So the
    search ends at r* = rise / occluding_slope, for certain and not just probably.
    """
    rows, columns = heights.shape
    radius = np.zeros((rows, columns), np.int32)
    ceiling = heights.copy()
    highest = heights.copy()
    wider = np.empty_like(heights)
    relief = heights.max() - heights.min()
    half_width, step = 1, 1
    while True:
        nearest = 1.0 if half_width == 1 else 0.5 * half_width
        if occluding_slope * nearest >= relief or nearest > max(rows, columns):
            break
        for index in prange(rows):
            row = signed(index)
            above, below = max(row - step, 0), min(row + step, rows - 1)
            for column in range(columns):
                left, right = max(column - step, 0), min(column + step, columns - 1)
                top = max(
                    max(highest[above, left], highest[above, right]), max(highest[below, left], highest[below, right])
                )
                if half_width == 1:
                    cross = max(max(highest[above, column], highest[below, column]), highest[row, column])
                    top = max(max(top, cross), max(highest[row, left], highest[row, right]))
                wider[row, column] = top
                if top - heights[row, column] > occluding_slope * nearest:
                    radius[row, column] = half_width
                    ceiling[row, column] = top
        highest, wider = wider, highest
        step = half_width
        half_width *= 2
    return radius, ceiling


@compiled
def find_horizon(
    heights: Floats,
    row: int,
    column: int,
    columns_per_length: float,
    rows_per_length: float,
    steepest: float,
    radius: int,
    ceiling: float,
) -> tuple[float, int]:
    """The steepest rise seen from a pixel along one direction, or `steepest` if nothing exceeds it; and where.

    Marches over the crossings of the ray with the grid's columns, then with its rows, heights interpolated linearly
    between the two neighbours. Heights and lengths are in units of the smaller pixel side. Beyond the frame is nothing.
    Where: n for the n-th column crossed, -n for the n-th row, 0 for nothing.
    """
    rows, columns = heights.shape
    start = heights[row, column]
    headroom = ceiling - start
    where = 0
    if columns_per_length != 0.0:
        length = 1.0 / abs(columns_per_length)
        drift = rows_per_length * length
        direction = 1 if columns_per_length > 0 else -1
        for step in range(1, radius + 1):
            line = column + direction * step
            y = row + step * drift
            distance = step * length
            if line < 0 or line >= columns or y < 0 or y > rows - 1 or headroom <= steepest * distance:
                break
            below = int(y)
            part = y - below
            height = heights[below, line]
            if part > 0.0:
                height += part * (heights[below + 1, line] - height)
            if height - start > steepest * distance:
                steepest = (height - start) / distance
                where = step
    if rows_per_length != 0.0:
        length = 1.0 / abs(rows_per_length)
        drift = columns_per_length * length
        direction = 1 if rows_per_length > 0 else -1
        for step in range(1, radius + 1):
            line = row + direction * step
            x = column + step * drift
            distance = step * length
            if line < 0 or line >= rows or x < 0 or x > columns - 1 or headroom <= steepest * distance:
                break
            left = int(x)
            part = x - left
            height = heights[line, left]
            if part > 0.0:
                height += part * (heights[line, left + 1] - height)
            if height - start > steepest * distance:
                steepest = (height - start) / distance
                where = -step
    return steepest, where
