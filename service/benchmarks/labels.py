"""AFM maps as labels: probed surfaces laid over frames of them, against where and what they truly are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput
from acquisition.frames import Frame
from acquisition.instrument import Instrument
from inference.forward_model import render
from inference.metrology.height_map import HeightMap
from inference.metrology.labels import correct
from inference.metrology.probe import touched
from inference.pipeline import Pipeline
from service.benchmarks.frames import frame_of
from service.benchmarks.measured import Measured, NotMeasured, Report, tell_progress
from service.benchmarks.surfaces import Surface, made_surfaces, real_surfaces

SIZE, QUICK_SIZE = 192, 128
DOSE = 3_000.0
TIP_PX, LINES_PX, NOISE_PX = 4.0, 0.1, 0.01
"""The tip's radius, jumps of scan lines and noise of single pixels, in pixels of the frame."""
TURN_DEG, SHEAR, STRETCH, SHIFT_PX = 7.0, 0.015, 1.02, (5.3, -3.7)
MAP_PIXEL = 0.8

Floats = NDArray[np.float64]


class Seen(NamedTuple):
    """A true surface (H, W) in metres, a frame of it and the classical heights, and an AFM's map, on which a point u of
    the frame lies at `matrix @ u + shift_m` in truth."""

    height_m: Floats
    frame: Frame
    surface: HeightMap
    afm: HeightMap
    matrix: Floats
    shift_m: Floats


@dataclass(frozen=True, slots=True)
class Found:
    """Of one surface: how far the frame is misplaced on the map, rms in pixels of the frame, what is told of that, and
    the least that the frame's noise allows; slope errors where labelled, rms in degrees, with the tip's correction and
    without; the share that is labelled."""

    name: str
    misplaced_px: float
    told_px: float
    least_px: float
    error_deg: float
    uncorrected_deg: float
    labelled: float


def measure(quick: bool, data: Path | None) -> Report:
    """Rows of [labels]; with `data` of its real AFM maps, which carry what a real AFM's map does, too."""
    size = QUICK_SIZE if quick else SIZE
    surfaces = [one for one in made_surfaces(size) if not one.is_anchor][: 2 if quick else 4]
    surfaces += [one for one in real_surfaces(data) if min(one.heights_m.shape) >= size]
    rng = np.random.default_rng(17)
    found = [one for one in (_of(one.name, seen(one, size, rng)) for one in surfaces) if one is not None]
    lost = ", ".join(surface.name for surface in surfaces if surface.name not in [one.name for one in found])
    conditions = (
        f"{size} px frames at N = {DOSE:g}, classical heights; map turned {TURN_DEG:g}°, sheared {SHEAR:g}, stretched "
        f"{STRETCH:g}, tip of {TIP_PX:g} px stated" + (f"; refused: {lost}" if lost else "")
    )
    misplaced = [one.misplaced_px for one in found]
    told = [one.misplaced_px / one.told_px for one in found]
    left = [one.error_deg / one.uncorrected_deg for one in found]
    rows: dict[str, Measured | NotMeasured] = {
        "registration_error_px": Measured(float(np.median(misplaced)), conditions),
        "worst_registration_error_px": Measured(float(np.max(misplaced)), "the worst of them"),
        "registration_error_vs_told": Measured(float(np.median(told)), "error over the uncertainty that is told"),
        "slope_error_vs_uncorrected": Measured(float(np.median(left)), "slope error where labelled, tip taken out"),
    }
    if not quick:
        rows |= _trained_rows(surfaces, rng)
    return Report(rows, table=_table(found))


def _trained_rows(surfaces: Sequence[Surface], rng: np.random.Generator) -> dict[str, Measured | NotMeasured]:
    try:
        from service.benchmarks.label_training import trained_rows
    except ModuleNotFoundError as error:
        why = NotMeasured(f"{error.name} is not installed: install the extra `train`")
        return {"trained_vs_without_labels": why, "trained_vs_without_labels_faulty": why}
    return trained_rows(surfaces, rng)


def seen(surface: Surface, size: int, rng: np.random.Generator, real: Instrument | None = None) -> Seen:
    """The middle of a surface by both microscopes; `real` is what the first one is, where it isn't as stated."""
    tell_progress(f"labels: {surface.name}")
    top, left = ((side - size) // 2 for side in surface.heights_m.shape)
    height_m, pixel_m = surface.heights_m[top : top + size, left : left + size], surface.pixel_size_m
    frame = frame_of(render(height_m, real or surface.instrument, rng, dose=DOSE), surface.instrument, surface.name)
    found_m = Pipeline("classical").reconstruct(frame, surface.instrument).height_m.astype(np.float64)
    return Seen(height_m, frame, HeightMap(found_m, pixel_m, pixel_m), *_probed(surface.heights_m, size, pixel_m, rng))


def _of(name: str, of: Seen) -> Found | None:
    pixel_m, size = of.surface.pixel_size_m, len(of.height_m)
    try:
        labels, plain = (correct(of.surface, of.afm, radius_m) for radius_m in (TIP_PX * pixel_m, 1e-4 * pixel_m))
    except BadInput:
        return None
    middle = (np.arange(size) - 0.5 * (size - 1)) * pixel_m
    points = np.stack(np.meshgrid(middle, middle)).reshape(2, -1)
    off_m = (labels.placement.matrix - of.matrix) @ points + (labels.placement.shift_m - of.shift_m)[:, None]
    error, uncorrected = (_slope_error_deg(one.height_m, of.height_m, labels.mask, pixel_m) for one in (labels, plain))
    return Found(
        name,
        float(np.sqrt((off_m**2).sum(axis=0).mean())) / pixel_m,
        labels.placement.sigma_m(of.surface) / pixel_m,
        least_misplaced_px(of.height_m / pixel_m, of.surface.height_m / pixel_m),
        error,
        uncorrected,
        float(labels.mask.mean()),
    )


def _probed(heights_m: Floats, size: int, pixel_m: float, rng: np.random.Generator) -> tuple[HeightMap, Floats, Floats]:
    """The middle of a surface as an AFM maps it, with the true placement of the frame there."""
    turn = math.radians(TURN_DEG)
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix, shift_m = STRETCH * turned @ np.array([[1.0, SHEAR], [0.0, 1.0]]), np.array(SHIFT_PX) * pixel_m
    blunt_m = touched(heights_m, (pixel_m, pixel_m), TIP_PX * pixel_m)
    side = round(1.1 * size / MAP_PIXEL)
    middle = (np.arange(side) - 0.5 * (side - 1)) * MAP_PIXEL * pixel_m
    points = np.stack(np.meshgrid(middle, middle)).reshape(2, -1) - shift_m[:, None]
    x_m, y_m = np.linalg.inv(matrix) @ points
    top, left = ((full - size) // 2 + 0.5 * (size - 1) for full in heights_m.shape)
    there_m = map_coordinates(blunt_m, (y_m / pixel_m + top, x_m / pixel_m + left), order=3, mode="mirror")
    lines_m = rng.normal(0.0, LINES_PX * pixel_m, (side, 1)) + rng.normal(0.0, NOISE_PX * pixel_m, (side, side))
    return HeightMap(there_m.reshape(side, side) + lines_m, MAP_PIXEL * pixel_m, MAP_PIXEL * pixel_m), matrix, shift_m


def least_misplaced_px(height_px: Floats, seen_px: Floats) -> float:
    """The Cramér-Rao bound of six parameters for a true surface (H, W) that is seen with white noise of its slopes, on
    a perfect map without lines: rms over the frame."""
    noise = sum(float(np.var(np.diff(seen_px - height_px, axis=axis))) for axis in (0, 1))
    along = [part / side for part, side in zip(np.indices(height_px.shape), height_px.shape, strict=True)]
    moves = [slope * by for slope in np.gradient(height_px) for by in (along[0] - 0.5, along[1] - 0.5, 1.0)]
    told = np.array([np.concatenate([np.diff(move, axis=axis).ravel() for axis in (0, 1)]) for move in moves])
    variance = noise * np.diag(np.linalg.inv(told @ told.T))
    # From the middle in sides of the frame: the mean square is a twelfth.
    return float(np.sqrt(variance @ np.array([1.0, 1.0, 12.0, 1.0, 1.0, 12.0]) / 12.0))


def _slope_error_deg(found_m: Floats, true_m: Floats, mask: NDArray[np.bool_], pixel_m: float) -> float:
    """Rms, where labelled; the mean slope, which no AFM knows, taken off."""
    squares = 0.0
    for axis in (0, 1):
        kept = mask[1:] & mask[:-1] if axis == 0 else mask[:, 1:] & mask[:, :-1]
        off = np.arctan(np.diff(found_m, axis=axis) / pixel_m) - np.arctan(np.diff(true_m, axis=axis) / pixel_m)
        squares += float(np.var(off[kept]))
    return math.degrees(math.sqrt(squares))


def _table(found: Sequence[Found]) -> Table:
    table = Table(title="labels, judged against where and what the surfaces are")
    for heading in ("surface", "misplaced", "told", "noise allows", "slopes", "with the tip", "labelled"):
        table.add_column(heading)
    for one in found:
        places = (f"{value:.3f} px" for value in (one.misplaced_px, one.told_px, one.least_px))
        slopes = (f"{value:.2f}°" for value in (one.error_deg, one.uncorrected_deg))
        table.add_row(one.name, *places, *slopes, f"{100 * one.labelled:.0f} %")
    return table
