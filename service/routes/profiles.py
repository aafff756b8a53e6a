"""The height along a line of a recorded frame, as the page draws it."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from service.routes.runs import path_of
from service.routes.shared import Wired

router = APIRouter(prefix="/runs", tags=["runs"])

Pixel = Annotated[float, Query(ge=0, le=65536)]
MOST_POINTS = 4096


@router.get("/{run_id}/heights/{sequence}/profile")
def profile(
    wired: Wired,
    run_id: str,
    sequence: int,
    x0_px: Pixel,
    y0_px: Pixel,
    x1_px: Pixel,
    y1_px: Pixel,
    width_px: Annotated[int, Query(ge=1, le=256)] = 1,
) -> dict[str, Any]:
    """Heights from one pixel to another, averaged over `width_px` pixels across, and the distances that belong to them.

    x counts to the right and y down, from the centre of the first pixel. 422 for a line that leaves the frame.
    """
    recorded = RecordedRun(path_of(wired.settings.runs_folder, run_id))
    height_m = recorded.read_height(sequence)
    rows, columns = height_m.shape
    if max(x0_px, x1_px) > columns - 1 or max(y0_px, y1_px) > rows - 1:
        raise BadInput(f"the line leaves the frame, whose last pixel is {columns - 1}, {rows - 1}")
    length_px = math.hypot(x1_px - x0_px, y1_px - y0_px)
    if length_px < 1:
        raise BadInput(f"the line is {length_px:g} pixels long; it takes at least 1")
    heights_m = along(height_m, (x0_px, y0_px), (x1_px, y1_px), width_px)
    pixel_size_m = recorded.frames[sequence].header.optics.pixel_size_m
    distances_m = np.linspace(0.0, length_px * pixel_size_m, len(heights_m))
    return {"distances_m": distances_m.tolist(), "heights_m": heights_m.tolist(), "pixel_size_m": pixel_size_m}


def along(
    height_m: NDArray[np.float32], start_px: tuple[float, float], end_px: tuple[float, float], width_px: int
) -> NDArray[np.float64]:
    """About one point a pixel, both ends included, linear between pixels; beyond the frame its edge goes on."""
    (x0, y0), (x1, y1) = start_px, end_px
    length_px = math.hypot(x1 - x0, y1 - y0)
    share = np.linspace(0.0, 1.0, min(MOST_POINTS, round(length_px) + 1))
    aside = (np.arange(width_px) - (width_px - 1) / 2)[:, None] / length_px
    x = x0 + share * (x1 - x0) - aside * (y1 - y0)
    y = y0 + share * (y1 - y0) + aside * (x1 - x0)
    found = map_coordinates(height_m, [y, x], np.float64, order=1, mode="nearest")
    return np.asarray(found.mean(axis=0), np.float64)
