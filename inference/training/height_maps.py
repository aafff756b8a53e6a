"""Measured height maps (AFM) as surfaces on the fine grid of simulated frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput
from inference.metrology.afm_files import read_map
from inference.metrology.levelling import levelled
from inference.training.frames import MARGIN_PX, SUBPIXELS
from inference.training.surfaces.canvas import Heights

LEAST_FRAME_PX = 32

Floats = NDArray[np.float64]


def read_levelled_map(path: Path) -> tuple[Floats, tuple[float, float]]:
    """Levelled heights (H, W) in metres and the pixel's (height, width) in metres, of a file that `read_map` reads.
    Raises `BadInput` naming the file and what is wrong with it."""
    found = read_map(path)
    least = LEAST_FRAME_PX + 2 * MARGIN_PX
    if min(found.height_m.shape) < least:
        raise BadInput(
            f"height map {path} has shape {found.height_m.shape}: expected (H, W) of at least {least} x {least}"
        )
    return levelled(found.height_m), (found.pixel_size_y_m, found.pixel_size_m)


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
