"""The surfaces that physics is benched on: made from seeds, and real height maps where a data folder is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from acquisition.instrument import Instrument, four_quadrant
from hardware_drivers.simulated.height_maps import HeightMap, read_height_map

PIXEL_SIZE_M = 5.0e-9
WALL_PX = 12.0
CORRELATION_PX = 4.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """`heights_m` (H, W) float64 in metres on square pixels. `is_anchor`: the targets of [physics] are for real AFM
    maps and sharp steps; the other families are told beside them."""

    name: str
    heights_m: Floats
    pixel_size_m: float
    is_anchor: bool
    is_real: bool = False

    @property
    def instrument(self) -> Instrument:
        return four_quadrant().with_scan(pixel_size_m=self.pixel_size_m)


def made_surfaces(size: int, seed: int = 1) -> list[Surface]:
    """One of each family, (size, size), always the same for the same seed."""
    return [
        Surface(name, make(size, np.random.default_rng([seed, index])) * PIXEL_SIZE_M, PIXEL_SIZE_M, name in STEPPED)
        for index, (name, make) in enumerate(FAMILIES.items())
    ]


def made_surface(name: str, size: int, seed: int = 1) -> Surface:
    return next(surface for surface in made_surfaces(size, seed) if surface.name == name)


def real_surfaces(data: Path | None) -> list[Surface]:
    """The maps in `data`/afm, none without a folder: levelled, on square pixels of the smaller side. Raises `BadInput`
    as `read_height_map` does."""
    files = [] if data is None else sorted((data / "afm").glob("*.npz"))
    return [_real_surface(file) for file in files]


def tiled(heights: Floats, rows: int, columns: int) -> Floats:
    """Continued by mirroring about the border pixels, which makes no edge, or cut to (rows, columns)."""
    more_rows, more_columns = max(rows - heights.shape[0], 0), max(columns - heights.shape[1], 0)
    return np.pad(heights, ((0, more_rows), (0, more_columns)), mode="reflect")[:rows, :columns]


def _real_surface(file: Path) -> Surface:
    heights, pixel_m = read_height_map(file)
    side_m = min(pixel_m)
    rows, columns = (
        round((count - 1) * pixel / side_m) + 1 for count, pixel in zip(heights.shape, pixel_m, strict=True)
    )
    y_m, x_m = (side_m * (np.arange(count) - 0.5 * (count - 1)) for count in (rows, columns))
    return Surface(file.stem, HeightMap(file).heights_m(x_m, y_m, growth_m=0.0), side_m, is_anchor=True, is_real=True)


# Families: size and generator to heights (size, size) in pixels.


def _terraces(size: int, rng: np.random.Generator) -> Floats:
    """Plateaus of random outline whose walls are one pixel wide."""
    levels = gaussian_filter(rng.normal(size=(size, size)), size / 16, mode="wrap")
    heights: Floats = WALL_PX * np.floor(2.5 * levels / levels.std())
    return heights


def _spiral(size: int, rng: np.random.Generator) -> Floats:
    """A growth spiral: one step that winds down around a point, 3 pixels high and 8 apart."""
    row, column = np.indices((size, size)) - size * rng.uniform(0.4, 0.6, (2, 1, 1))
    turns: Floats = np.hypot(row, column) / 8.0 + np.arctan2(-row, column) / (2.0 * np.pi)
    return -3.0 * np.floor(turns)


def _facets(size: int, rng: np.random.Generator) -> Floats:
    """Overlapping four-sided pyramids, each turned and with faces of 20 to 55 degrees."""
    heights = np.full((size, size), -np.inf)
    row, column = np.indices((size, size))
    for _ in range(size * size // 400):
        turn, slope = rng.uniform(0.0, 0.5 * np.pi), np.tan(np.radians(rng.uniform(20.0, 55.0)))
        y, x = row - rng.uniform(0, size), column - rng.uniform(0, size)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        heights = np.maximum(heights, -slope * np.maximum(np.abs(along), np.abs(across)))
    return heights


def _roughness(slope_deg: float) -> Callable[[int, np.random.Generator], Floats]:
    """Gaussian roughness of that rms slope."""

    def make(size: int, rng: np.random.Generator) -> Floats:
        return _of_rms_slope(gaussian_filter(rng.normal(size=(size, size)), CORRELATION_PX, mode="wrap"), slope_deg)

    return make


def _nanograins(size: int, rng: np.random.Generator) -> Floats:
    """Dense hemispheres of 4 to 9 pixels, stretched to an rms slope of 50 degrees."""
    heights = np.zeros((size, size))
    for _ in range(size * size // 25):
        radius, (y, x) = rng.uniform(4.0, 9.0), rng.uniform(0, size, 2)
        top, left = max(int(y - radius), 0), max(int(x - radius), 0)
        patch = np.s_[top : int(y + radius) + 2, left : int(x + radius) + 2]
        row, column = np.indices(heights[patch].shape)
        cap = np.sqrt(np.maximum(radius**2 - (row + top - y) ** 2 - (column + left - x) ** 2, 0.0))
        heights[patch] = np.maximum(heights[patch], cap)
    return _of_rms_slope(heights, 50.0)


def _grating(size: int, rng: np.random.Generator) -> Floats:
    """Lines and trenches of 12 pixels between walls one pixel wide, turned by some degrees."""
    turn = np.radians(rng.uniform(5.0, 15.0))
    row, column = np.indices((size, size))
    across: Floats = column * np.cos(turn) + row * np.sin(turn)
    heights: Floats = WALL_PX * (np.floor(across / 12.0) % 2)
    return heights


def _of_rms_slope(heights: Floats, slope_deg: float) -> Floats:
    q, p = np.gradient(heights)
    scaled: Floats = heights * (np.tan(np.radians(slope_deg)) / np.sqrt(np.mean(p**2 + q**2)))
    return scaled


FAMILIES: Mapping[str, Callable[[int, np.random.Generator], Floats]] = {
    "terraces, 12 px walls": _terraces,
    "growth spiral": _spiral,
    "grating, 12 px walls": _grating,
    "facets of 20 to 55 deg": _facets,
    "roughness, 20 deg": _roughness(20.0),
    "roughness, 30 deg": _roughness(30.0),
    "roughness, 45 deg": _roughness(45.0),
    "nanograins, 50 deg": _nanograins,
}
STEPPED = ("terraces, 12 px walls", "growth spiral", "grating, 12 px walls")
