"""The height along a line of a map, averaged over a width, with what the average is known to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter1d

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap
from inference.metrology.scatter import scatter_of

MOST_POINTS = 4096
FEWEST_ACROSS = 4
POOLED_POINTS = 5

Floats = NDArray[np.float64]
Points = Sequence[tuple[float, float]]
"""Pixels (x, y): x counts to the right and y down, from the centre of the first pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Heights over distances along a line, all in metres.

    `strips_m` (width, n) are the lines beside each other whose mean `height_m` (n,) is. `sigma_m` (n,) is the standard
    uncertainty of that mean, NaN below 4 pixels of width. `corners_m`: distances at which a polyline turns, its ends
    included. `pixel_m`: mean distance from point to point.
    """

    distance_m: Floats
    height_m: Floats
    sigma_m: Floats
    strips_m: Floats
    x_px: Floats
    y_px: Floats
    corners_m: tuple[float, ...]

    @property
    def pixel_m(self) -> float:
        return float(self.distance_m[-1]) / (len(self.distance_m) - 1)

    def part(self, from_m: float, to_m: float) -> NDArray[np.bool_]:
        """Which points lie from one distance to another."""
        return np.asarray((self.distance_m >= from_m) & (self.distance_m <= to_m))

    def csv(self) -> str:
        """Distances, heights and uncertainties as lines with a heading; an unknown uncertainty is empty."""
        rows = zip(self.distance_m, self.height_m, self.sigma_m, self.x_px, self.y_px, strict=True)
        lines = (f"{d:.9e},{h:.9e},{'' if math.isnan(s) else f'{s:.3e}'},{x:.4f},{y:.4f}" for d, h, s, x, y in rows)
        return "\n".join(["distance_m,height_m,sigma_m,x_px,y_px", *lines]) + "\n"


def line_profile(surface: HeightMap, points_px: Points, width_px: int = 1) -> Profile:
    """About one point a pixel from the first of `points_px` to the last, all of them included, linear between pixels,
    the mean of `width_px` lines one pixel beside each other; beyond the frame its edge goes on.

    The uncertainty is the spread across the width: at each point a straight line is fitted across (a tilt to the side
    changes no mean), what it leaves gives the variance, pooled over 5 points along, and the correlation from line to
    line, pooled over the profile, as `scatter_of` finds it. What moves all lines together is not in it.
    Raises `BadInput` for a line that leaves the frame or is shorter than a pixel.
    """
    rows, columns = surface.height_m.shape
    for x, y in points_px:
        if not (0 <= x <= columns - 1 and 0 <= y <= rows - 1):
            raise BadInput(f"the line leaves the frame at {x:g}, {y:g}: its last pixel is {columns - 1}, {rows - 1}")
    if width_px < 1:
        raise BadInput(f"a width of {width_px} pixels: it takes at least 1")
    centres, across, distance_m, corners_m = _path(surface, points_px)
    aside = np.arange(width_px) - 0.5 * (width_px - 1)
    places = [centres[:, axis] + aside[:, None] * across[:, axis] for axis in (1, 0)]
    strips_m = np.asarray(map_coordinates(surface.height_m, places, np.float64, order=1, mode="nearest"))
    sigma_m = _sigma_of_mean(strips_m)
    return Profile(distance_m, strips_m.mean(axis=0), sigma_m, strips_m, centres[:, 0], centres[:, 1], corners_m)


def _path(surface: HeightMap, points_px: Points) -> tuple[Floats, Floats, Floats, tuple[float, ...]]:
    """Centres (n, 2), the step of one pixel across at each of them (n, 2), distances (n,) and those of the corners."""
    pixel_m = np.array([surface.pixel_size_m, surface.pixel_size_y_m])
    ends = np.asarray(points_px, np.float64)
    lengths_px = np.hypot(*np.diff(ends, axis=0).T) if len(ends) > 1 else np.zeros(1)
    if lengths_px.sum() < 1 or (lengths_px == 0).any():
        raise BadInput(f"the line is {lengths_px.sum():g} pixels long; it takes at least 1, and no point twice")
    share = min(1.0, (MOST_POINTS - 1) / lengths_px.sum())
    centres: list[Floats] = []
    across: list[Floats] = []
    distances: list[Floats] = []
    corners_m = [0.0]
    for start, end, length_px in zip(ends[:-1], ends[1:], lengths_px, strict=True):
        count = max(1, round(length_px * share))
        along = np.arange(0 if not centres else 1, count + 1)[:, None] / count
        run_m = (end - start) * pixel_m
        normal_px = np.array([-run_m[1], run_m[0]]) / pixel_m
        centres.append(start + along * (end - start))
        across.append(np.broadcast_to(normal_px / np.hypot(*normal_px), (len(along), 2)))
        distances.append(corners_m[-1] + along[:, 0] * np.hypot(*run_m))
        corners_m.append(corners_m[-1] + float(np.hypot(*run_m)))
    return np.concatenate(centres), np.concatenate(across), np.concatenate(distances), tuple(corners_m)


def _sigma_of_mean(strips_m: Floats) -> Floats:
    width, count = strips_m.shape
    if width < FEWEST_ACROSS:
        return np.full(count, np.nan)
    design = np.vander(np.arange(width, dtype=np.float64), 2)
    residuals = strips_m - design @ (np.linalg.pinv(design) @ strips_m)
    scatter = scatter_of(residuals.T, design)
    squares = uniform_filter1d(np.sum(residuals**2, axis=0), POOLED_POINTS, mode="nearest")
    sigma = scatter.sigma_of(np.full(width, 1.0 / width))
    return np.asarray(sigma * np.sqrt(np.maximum(squares, 0.0) / max(squares.mean(), 1e-300)), np.float64)
