"""A height map placed on another: the transformation between both, and heights at its places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from inference.metrology.height_map import HeightMap

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Placement:
    """A point u of the frame lies at `matrix @ u + shift_m` of the map; both from their middles, x right and y down,
    in metres. `shift_sigma_m`: standard deviation of the shift (x, y), `matrix_sigma` (2, 2) those of the matrix.
    `height_ratio`: the frame's heights over the map's. `correlation`: of the slopes of both where they overlap,
    without offsets of scan lines and long waves."""

    matrix: Floats
    shift_m: Floats
    shift_sigma_m: Floats
    matrix_sigma: Floats
    height_ratio: float
    correlation: float

    @property
    def rotation_deg(self) -> float:
        """Of the frame's x axis as it lies in the map; positive turns x towards y, clockwise as images are shown."""
        return math.degrees(math.atan2(self.matrix[1, 0], self.matrix[0, 0]))

    @property
    def scale(self) -> tuple[float, float]:
        """The map's length of a metre along the frame's x, and across it."""
        along = float(np.hypot(*self.matrix[:, 0]))
        return along, float(np.linalg.det(self.matrix)) / along

    @property
    def shear_deg(self) -> float:
        """By how much the frame's right angle is closed in the map."""
        along, _ = self.scale
        leaning = float(self.matrix[:, 0] @ self.matrix[:, 1]) / along
        return math.degrees(math.atan2(leaning, self.scale[1]))

    def sigma_m(self, frame: HeightMap) -> float:
        """By how much the points of `frame` may be misplaced: one standard deviation, rms over it."""
        rows, columns = frame.height_m.shape
        variance_m2 = np.array([columns * frame.pixel_size_m, rows * frame.pixel_size_y_m]) ** 2 / 12.0
        return float(np.sqrt((self.shift_sigma_m**2).sum() + (self.matrix_sigma**2 @ variance_m2).sum()))

    def places(self, frame: HeightMap, other: HeightMap) -> tuple[Floats, Floats]:
        """Row and column in `other` of every pixel of `frame`."""
        x_m, y_m = coordinates(frame)
        x, y = (self.matrix[i, 0] * x_m + self.matrix[i, 1] * y_m[:, None] + self.shift_m[i] for i in (0, 1))
        return pixels(other, x, y)

    def inverse(self) -> Placement:
        """The map's points in the frame."""
        back = np.linalg.inv(self.matrix)
        sigma_m = np.asarray(np.sqrt(back**2 @ self.shift_sigma_m**2), np.float64)
        turned = np.asarray(np.sqrt(back**2 @ self.matrix_sigma**2 @ back**2), np.float64)
        ratio = 1.0 / self.height_ratio
        return Placement(np.asarray(back), -back @ self.shift_m, sigma_m, turned, ratio, self.correlation)


def resampled(surface: HeightMap, places: tuple[Floats, Floats], spacing_m: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Heights of `surface` at rows and columns, and which of those lie on it. What is finer than `spacing_m` is
    averaged before it is sampled."""
    pixels_m = (surface.pixel_size_y_m, surface.pixel_size_m)
    # A Gaussian as wide as the box of the coarser pixel, less that of the own.
    blur = [math.sqrt(max(0.0, spacing_m**2 - pixel_m**2) / 12.0) / pixel_m for pixel_m in pixels_m]
    height_m = gaussian_filter(surface.height_m, blur, mode="nearest")
    rows, columns = surface.height_m.shape
    inside = (places[0] >= 0) & (places[0] <= rows - 1) & (places[1] >= 0) & (places[1] <= columns - 1)
    return map_coordinates(height_m, places, order=3, mode="nearest"), inside


def coordinates(surface: HeightMap) -> tuple[Floats, Floats]:
    """x of the columns and y of the rows from the middle, in metres."""
    rows, columns = surface.height_m.shape
    x_m = (np.arange(columns) - 0.5 * (columns - 1)) * surface.pixel_size_m
    return x_m, (np.arange(rows) - 0.5 * (rows - 1)) * surface.pixel_size_y_m


def pixels(surface: HeightMap, x_m: Floats, y_m: Floats) -> tuple[Floats, Floats]:
    """Row and column of places from the middle, in metres."""
    rows, columns = surface.height_m.shape
    return (
        y_m / surface.pixel_size_y_m + 0.5 * (rows - 1),
        x_m / surface.pixel_size_m + 0.5 * (columns - 1),
    )


def steps(surface: HeightMap) -> tuple[float, float]:
    """Height and width of a pixel, in metres."""
    return surface.pixel_size_y_m, surface.pixel_size_m


def extent_m(surface: HeightMap) -> float:
    """The shorter side."""
    rows, columns = surface.height_m.shape
    return float(min(rows * surface.pixel_size_y_m, columns * surface.pixel_size_m))


def smooth(surface: HeightMap, short_m: float) -> Floats:
    """Levelled, averaged by a Gaussian of deviation half `short_m`."""
    down, across = steps(surface)
    blur = [0.5 * short_m / down, 0.5 * short_m / across]
    return np.asarray(gaussian_filter(surface.level().height_m, blur, mode="nearest"), np.float64)
