"""Levelling that is the same for every frame of a run, and what grew: only ever against a region that is declared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift as shifted

from acquisition.errors import BadInput
from inference.accuracy import without_plane
from inference.metrology.height_map import HeightMap

LEAST_PX = 8
NO_DATUM = (
    "a frame's absolute height cannot be seen from slopes, so that growth and volumes need a place that does not grow: "
    "declare it with --reference x,y,width,height in pixels of the first frame"
)

Floats = NDArray[np.float64]
Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the run's first frame in pixels: `x` columns from the left, `y` rows from the top. It keeps its
    place on the specimen."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.x, self.y) < 0 or min(self.width, self.height) < LEAST_PX:
            raise BadInput(
                f"a region of {self.width} x {self.height} pixels at ({self.x}, {self.y}): it must lie in the frame "
                f"and be {LEAST_PX} x {LEAST_PX} pixels or more"
            )

    def within(self, shape: tuple[int, ...], shift_px: Sequence[float] | Floats = (0.0, 0.0)) -> tuple[slice, slice]:
        """Its rows and columns in a frame where the specimen lies `shift_px` further down and right. Raises `BadInput`
        where it has left the frame."""
        top, left = self.y + round(float(shift_px[0])), self.x + round(float(shift_px[1]))
        if top < 0 or left < 0 or top + self.height > shape[0] or left + self.width > shape[1]:
            raise BadInput(
                f"the region of {self.width} x {self.height} pixels at ({self.x}, {self.y}) lies at ({left}, {top}) in "
                f"a frame of {shape[1]} x {shape[0]}, not within it: choose one that stays in view"
            )
        return slice(top, top + self.height), slice(left, left + self.width)


def parse_region(text: str) -> Region:
    """Of `x,y,width,height`. Raises `BadInput` for anything else."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"{text!r} is no region: give x,y,width,height in pixels, such as 10,20,64,64") from None
    return Region(x, y, width, height)


@dataclass(frozen=True, slots=True)
class Levelling:
    """How every frame of a run is levelled: by its own mean plane, or by `regions`, terraces that are parallel: one
    tilt for all, an offset for each. The first of them is the datum, where height is 0 in every frame."""

    regions: tuple[Region, ...] = ()

    @property
    def method(self) -> str:
        return "terraces" if len(self.regions) > 1 else "reference region" if self.regions else "mean plane"

    def level(self, map: HeightMap, shift_px: Sequence[float] | Floats = (0.0, 0.0)) -> HeightMap:
        """`map` levelled, the specimen lying `shift_px` further down and right than in the first frame."""
        height_m = map.height_m
        if not self.regions:
            return HeightMap(without_plane(height_m), map.pixel_size_m, map.pixel_size_y_m)
        parts = [region.within(height_m.shape, shift_px) for region in self.regions]
        rows, columns = (np.asarray(axis, np.float64) for axis in np.indices(height_m.shape))
        below, beside, heights = (
            np.concatenate([values[part].ravel() - values[part].mean() for part in parts])
            for values in (rows, columns, height_m)
        )
        down, right = np.linalg.lstsq(np.column_stack([below, beside]), heights, rcond=None)[0]
        flat = height_m - down * rows - right * columns
        return HeightMap(flat - flat[parts[0]].mean(), map.pixel_size_m, map.pixel_size_y_m)


@dataclass(frozen=True, slots=True)
class Change:
    """From one frame to another: `rate_m_per_s` (H, W) on the first frame's pixels, NaN where only one of the two
    looked; `volume_m3` gained over the area that both show, with the error that the datum's own unrest brings."""

    rate_m_per_s: Floats
    volume_m3: float
    volume_error_m3: float
    area_m2: float


def change(
    first: HeightMap,
    second: HeightMap,
    seconds: float,
    levelling: Levelling,
    first_px: Sequence[float] | Floats = (0.0, 0.0),
    second_px: Sequence[float] | Floats = (0.0, 0.0),
) -> Change:
    """What grew in `seconds` between two maps of the same pixels, each moved by its shift against the run's first
    frame. Raises `BadInput` without a reference region, or where it is out of view (metrology.md, 1)."""
    if not levelling.regions:
        raise BadInput(NO_DATUM)
    if first.height_m.shape != second.height_m.shape or not seconds > 0.0:
        raise BadInput(
            f"heights of {first.height_m.shape} and {second.height_m.shape} pixels {seconds:g} s apart: growth needs "
            "two of the same size, the second later than the first"
        )
    before, after = levelling.level(first, first_px), levelling.level(second, second_px)
    moved = np.asarray(first_px, np.float64) - np.asarray(second_px, np.float64)
    there = shifted(after.height_m, moved, order=1, cval=math.nan)
    grown = there - before.height_m
    datum = levelling.regions[0].within(grown.shape, first_px)
    seen = np.isfinite(grown)
    pixel_m2 = first.pixel_size_m * first.pixel_size_y_m
    area_m2 = float(seen.sum()) * pixel_m2
    return Change(
        rate_m_per_s=np.asarray(grown / seconds, np.float64),
        volume_m3=float(grown[seen].sum()) * pixel_m2,
        volume_error_m3=_unrest_m(grown[datum]) * area_m2,
        area_m2=area_m2,
    )


def _unrest_m(grown: Floats) -> float:
    """By how much the datum's mean may be wrong: the scatter of its quarters' means, for neighbours share errors."""
    rows, columns = (np.array_split(np.arange(size), 2) for size in grown.shape)
    quarters = [np.nanmean(grown[np.ix_(row, column)]) for row in rows for column in columns]
    return float(np.std(quarters, ddof=1) / 2.0)
