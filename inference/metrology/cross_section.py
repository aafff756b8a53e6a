"""A cross-section (FIB-TEM, stylus) beside the cut through a height map: a curve of distance and height."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap

UNITS_M = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "nm": 1e-9}
LEAST_POINTS = 10
MOST_OFF = 0.25
STARTS = 41

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CutComparison:
    """On the section's points that fall on the cut, both with the same straight line taken out. `shift_m`: by how much
    the section starts behind the cut's first end."""

    distance_m: Floats
    section_m: Floats
    cut_m: Floats
    shift_m: float

    @property
    def rms_m(self) -> float:
        return float(np.sqrt(np.mean((self.section_m - self.cut_m) ** 2)))


def read_section(path: Path) -> tuple[Floats, Floats]:
    """Distance and height in metres from a CSV of two columns whose heading names their units: `x_um,z_nm`. Raises
    `BadInput` naming the file and what is missing or wrong."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            heading, *rows = [row for row in csv.reader(file) if row]
        scales = [UNITS_M[name.strip().rpartition("_")[2]] for name in heading[:2]]
        values = np.array([[float(cell) for cell in row[:2]] for row in rows], np.float64).reshape(-1, 2)
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(
            f"cross-section {path} cannot be read ({error}): expected two columns with a heading that names their "
            f"units, as x_um,z_nm (known: {', '.join(UNITS_M)})"
        ) from error
    if len(values) < LEAST_POINTS or not np.isfinite(values).all():
        raise BadInput(f"cross-section {path} has {len(values)} points; expected {LEAST_POINTS} or more, all finite")
    x, z = values[np.argsort(values[:, 0], kind="stable")].T * np.array(scales)[:, None]
    return x - x[0], z


def compare_cut(
    surface: HeightMap, ends_px: tuple[float, float, float, float], x_m: Floats, z_m: Floats
) -> CutComparison:
    """`surface` along the line (x0, y0) to (x1, y1) in pixels beside a section that shows about the same stretch, from
    the same end: shifted by at most a fourth of the line, levelled alike, with a robust loss. Raises `BadInput` for a
    line off the map or too short for the section."""
    x0, y0, x1, y1 = ends_px
    rows, columns = surface.height_m.shape
    if min(x0, x1, y0, y1) < 0 or max(x0, x1) > columns - 1 or max(y0, y1) > rows - 1:
        raise BadInput(f"the line {x0:g},{y0:g},{x1:g},{y1:g} leaves the map of {columns} x {rows} pixels")
    length_m = float(np.hypot((x1 - x0) * surface.pixel_size_m, (y1 - y0) * surface.pixel_size_y_m))
    if length_m < 2.0 * surface.pixel_size_m:
        raise BadInput(f"the line {x0:g},{y0:g},{x1:g},{y1:g} is shorter than two pixels: give the cut's two ends")

    def both(shift_m: float) -> tuple[NDArray[np.bool_], Floats, Floats]:
        share = (x_m + shift_m) / length_m
        inside = (share >= 0.0) & (share <= 1.0)
        where = share[inside]
        places = np.stack([y0 + where * (y1 - y0), x0 + where * (x1 - x0)])
        cut_m = map_coordinates(surface.height_m, places, order=3, mode="nearest")
        line = np.column_stack([np.ones_like(where), where])
        section_m = z_m[inside]
        off, *_ = np.linalg.lstsq(line, cut_m - section_m, rcond=None)
        level, *_ = np.linalg.lstsq(line, section_m, rcond=None)
        return inside, section_m - line @ level, cut_m - line @ (level + off)

    # Where the section reaches over both ends, sliding it by the difference can only bring it in.
    most_m = MOST_OFF * length_m + abs(length_m - x_m[-1])
    starts = [s for s in np.linspace(-most_m, most_m, STARTS) if np.count_nonzero(both(float(s))[0]) >= LEAST_POINTS]
    if not starts:
        raise BadInput("the section and the line share fewer than ten points: is the heading's unit right?")

    def cost(shift_m: float) -> float:
        inside, section_m, cut_m = both(shift_m)
        if np.count_nonzero(inside) < max(LEAST_POINTS, 0.5 * min(len(x_m), len(x_m) * length_m / x_m[-1])):
            return np.inf
        return float(np.mean(np.abs(section_m - cut_m)))

    best_m = float(min(starts, key=lambda shift: cost(float(shift))))
    step_m = 2.0 * most_m / (STARTS - 1)
    for _ in range(12):
        best_m = min((best_m - step_m, best_m, best_m + step_m), key=cost)
        step_m *= 0.6
    inside, section_m, cut_m = both(best_m)
    return CutComparison(x_m[inside] + best_m, section_m, cut_m, best_m)
