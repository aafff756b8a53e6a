"""Measured height maps (AFM) as surfaces on the fine grid of simulated frames."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, median_filter

from acquisition.errors import BadInput
from inference.accuracy import without_plane
from inference.training.frames import MARGIN_PX, SUBPIXELS
from inference.training.surfaces.canvas import Heights

SPIKE_DEVIATIONS = 6.0
LEAST_FRAME_PX = 32

Floats = NDArray[np.float64]


def read_levelled_map(path: Path) -> tuple[Floats, tuple[float, float]]:
    """Levelled heights (H, W) in metres and the pixel's (height, width) in metres, from an .npz of `height_m` and
    `pixel_m`. Raises `BadInput` naming the file and what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            dy_m, dx_m = np.broadcast_to(np.asarray(archive["pixel_m"], np.float64), (2,)).tolist()
            heights_m = np.asarray(archive["height_m"], np.float64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(f"height map {path} cannot be read: {error}") from error
    if heights_m.ndim != 2 or min(heights_m.shape) < LEAST_FRAME_PX + 2 * MARGIN_PX:
        least = LEAST_FRAME_PX + 2 * MARGIN_PX
        raise BadInput(f"height map {path} has shape {heights_m.shape}: expected (H, W) of at least {least} x {least}")
    if not np.isfinite(heights_m).all():
        raise BadInput(f"height map {path} has heights that are not finite; fill them first")
    if not (np.isfinite([dy_m, dx_m]).all() and dy_m > 0 and dx_m > 0):
        raise BadInput(f"height map {path} has a pixel of {dy_m:g} m by {dx_m:g} m: it must be above 0 m")
    return levelled(heights_m), (dy_m, dx_m)


def levelled(heights_m: Floats) -> Floats:
    """(H, W) without the median step of each scan line against the one before, spikes and mean plane, all of which
    would turn into false slope."""
    steps = np.median(np.diff(heights_m, axis=0), axis=1)
    level = heights_m - np.concatenate([[0.0], np.cumsum(steps)])[:, None]
    smooth = median_filter(level, size=3, mode="nearest")
    residual = level - smooth
    typical = 1.4826 * float(np.median(np.abs(residual))) + 1e-15
    return without_plane(np.where(np.abs(residual) > SPIKE_DEVIATIONS * typical, smooth, level))


def fine_map(heights_m: Floats, pixel_m: tuple[float, float], most_px: int) -> Heights:
    """The middle of a map as a surface for a frame of at most `most_px` a side: on the fine grid with its margin, in
    units of the frame's pixel, which is the map's own width of a pixel. Cubic splines in between."""
    aspect = pixel_m[1] / pixel_m[0]
    rows, columns = round(heights_m.shape[0] / aspect), heights_m.shape[1]
    sides = [min(side, most_px + 2 * MARGIN_PX) for side in (rows, columns)]
    down, right = (
        ((np.arange(SUBPIXELS * side) + 0.5) / SUBPIXELS - 0.5 * side) * scale + 0.5 * (full - 1)
        for side, scale, full in zip(sides, (aspect, 1.0), heights_m.shape, strict=True)
    )
    places = np.meshgrid(down, right, indexing="ij")
    fine_m = map_coordinates(heights_m, places, order=3, mode="mirror")
    return np.asarray(fine_m / pixel_m[1], np.float32)
