"""AFM maps as labels: probed surfaces laid over frames of them, against where and what they truly are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput
from inference.forward_model import render
from inference.metrology.height_map import HeightMap
from inference.metrology.labels import correct
from inference.metrology.probe import touched
from inference.pipeline import Pipeline
from service.benchmarks.frames import frame_of
from service.benchmarks.measured import Measured, tell_progress
from service.benchmarks.surfaces import Surface, made_surfaces, real_surfaces

SIZE, QUICK_SIZE = 192, 128
DOSE = 3_000.0
TIP_PX, LINES_PX, NOISE_PX = 4.0, 0.1, 0.01
"""The tip's radius, jumps of scan lines and noise of single pixels, in pixels of the frame."""
TURN_DEG, SHEAR, STRETCH, SHIFT_PX = 7.0, 0.015, 1.02, (5.3, -3.7)
MAP_PIXEL = 0.8

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """Of one surface: how far the frame is misplaced on the map, rms in pixels of the frame; slope errors where
    labelled, rms in degrees, with the tip's correction and without; the share that is labelled."""

    name: str
    misplaced_px: float
    error_deg: float
    uncorrected_deg: float
    labelled: float


def measure(quick: bool, data: Path | None) -> Mapping[str, Measured]:
    """Rows of [labels]; with `data` of its real AFM maps, which carry what a real AFM's map does, too."""
    size = QUICK_SIZE if quick else SIZE
    surfaces = [one for one in made_surfaces(size) if not one.is_anchor][: 2 if quick else 4]
    surfaces += [one for one in real_surfaces(data) if min(one.heights_m.shape) >= size]
    rng = np.random.default_rng(17)
    found = [one for one in (_of(surface, size, rng) for surface in surfaces) if one is not None]
    told = "; ".join(
        f"{one.name} {one.misplaced_px:.2f} px, slopes {one.error_deg:.2f}° ({one.uncorrected_deg:.2f}° with the tip), "
        f"{100 * one.labelled:.0f} % labelled"
        for one in found
    )
    lost = len(surfaces) - len(found)
    conditions = (
        f"{size} px frames at N = {DOSE:g}, classical heights; map turned {TURN_DEG:g}°, sheared {SHEAR:g}, stretched "
        f"{STRETCH:g}, tip of {TIP_PX:g} px stated: {told}" + (f"; {lost} refused" if lost else "")
    )
    misplaced = [one.misplaced_px for one in found]
    left = [one.error_deg / one.uncorrected_deg for one in found]
    return {
        "registration_error_px": Measured(float(np.median(misplaced)), conditions),
        "worst_registration_error_px": Measured(float(np.max(misplaced)), "the worst of them"),
        "slope_error_vs_uncorrected": Measured(float(np.median(left)), "slope error where labelled, tip taken out"),
    }


def _of(surface: Surface, size: int, rng: np.random.Generator) -> Found | None:
    tell_progress(f"labels: {surface.name}")
    top, left = ((side - size) // 2 for side in surface.heights_m.shape)
    height_m, pixel_m = surface.heights_m[top : top + size, left : left + size], surface.pixel_size_m
    frame = frame_of(render(height_m, surface.instrument, rng, dose=DOSE), surface.instrument, surface.name)
    seen_m = Pipeline("classical").reconstruct(frame, surface.instrument).height_m.astype(np.float64)
    afm, matrix, shift_m = _probed(surface.heights_m, size, pixel_m, rng)
    ours = HeightMap(seen_m, pixel_m, pixel_m)
    try:
        labels, plain = (correct(ours, afm, radius_m) for radius_m in (TIP_PX * pixel_m, 1e-4 * pixel_m))
    except BadInput:
        return None
    middle = (np.arange(size) - 0.5 * (size - 1)) * pixel_m
    points = np.stack(np.meshgrid(middle, middle)).reshape(2, -1)
    off_m = (labels.placement.matrix - matrix) @ points + (labels.placement.shift_m - shift_m)[:, None]
    error, uncorrected = (_slope_error_deg(one.height_m, height_m, labels.mask, pixel_m) for one in (labels, plain))
    misplaced_px = float(np.sqrt((off_m**2).sum(axis=0).mean())) / pixel_m
    return Found(surface.name, misplaced_px, error, uncorrected, float(labels.mask.mean()))


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


def _slope_error_deg(found_m: Floats, true_m: Floats, mask: NDArray[np.bool_], pixel_m: float) -> float:
    """Rms, where labelled; the mean slope, which no AFM knows, taken off."""
    squares = 0.0
    for axis in (0, 1):
        kept = mask[1:] & mask[:-1] if axis == 0 else mask[:, 1:] & mask[:, :-1]
        off = np.arctan(np.diff(found_m, axis=axis) / pixel_m) - np.arctan(np.diff(true_m, axis=axis) / pixel_m)
        squares += float(np.var(off[kept]))
    return math.degrees(math.sqrt(squares))
