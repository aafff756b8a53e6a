"""The one absolute anchor among real images: a Vickers imprint, whose indenter's faces are inclined 22.0 degrees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import load_instrument
from hardware_drivers.tiff.sets import read_image_sets
from inference.accuracy import without_plane
from inference.pipeline import Pipeline
from service.benchmarks.frames import frame_of
from service.benchmarks.measured import Measured

NOMINAL_DEPTH_M = 2.7e-6
NOMINAL_TILT_DEG = 22.0
RING_M = (12.5e-6, 19.5e-6)
FACE_DEPTHS = (0.25, 0.85)
FACE_HALF_WIDTH_DEG = 25.0

Floats = NDArray[np.float64]


def measure(quick: bool, data: Path | None) -> Mapping[str, Measured]:
    """Rows of [imprint], from `data`/sem; the measured values stand in the conditions."""
    folder = Path() if data is None else data / "sem"
    files = sorted(folder.glob("vickers_detector?.tif"))
    if not files:
        raise BadInput(f"no vickers_detector?.tif in {folder.resolve()}: name the data folder with --data")
    (found,) = read_image_sets(files, load_instrument(folder / "fei-nova-abs.toml"))
    frame = frame_of(found.images, found.instrument, "imprint")
    result = Pipeline().reconstruct(frame, found.instrument)
    depth_m, tilts_deg, azimuths_deg = faces(result.height_m, result.header.pixel_size_m)
    apart_deg = np.diff([*azimuths_deg, azimuths_deg[0] + 360.0])
    told_tilts = ", ".join(f"{tilt:.1f}" for tilt in tilts_deg)
    told_apart = ", ".join(f"{angle:.1f}" for angle in apart_deg)
    return {
        "imprint_depth_error_um": Measured(
            abs(depth_m - NOMINAL_DEPTH_M) * 1e6,
            f"depth {depth_m * 1e6:.2f} um, levelled on a ring around it, against 2.7 um from the diagonal",
        ),
        "imprint_face_tilt_error_deg": Measured(
            float(np.abs(np.array(tilts_deg) - NOMINAL_TILT_DEG).max()),
            f"medians of the four faces {told_tilts} deg, against 22.0 of the indenter",
        ),
        "imprint_face_azimuth_error_deg": Measured(
            float(np.abs(apart_deg - 90.0).max()),
            f"faces {told_apart} deg apart",
        ),
    }


def faces(height_m: NDArray[np.float32], pixel_size_m: float) -> tuple[float, list[float], list[float]]:
    """Depth below the surroundings, and inclination and azimuth of each of the four faces of the deepest pit."""
    pit = _around_deepest(height_m, round(RING_M[1] / pixel_size_m))
    half = pit.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    radius_m = np.hypot(x, y) * pixel_size_m
    ring = (radius_m > RING_M[0]) & (radius_m < RING_M[1])
    design = np.column_stack([np.ones(pit.size), x.ravel(), y.ravel()])
    plane, *_ = np.linalg.lstsq(design[ring.ravel()], pit[ring], rcond=None)
    level = pit - (design @ plane).reshape(pit.shape)
    depth_m = -float(level.min())
    q, p = np.gradient(level, pixel_size_m)
    tilt_deg = np.degrees(np.arctan(np.hypot(p, q)))
    azimuth_deg = np.degrees(np.arctan2(-q, p)) % 360.0
    on_faces = (level < -FACE_DEPTHS[0] * depth_m) & (level > -FACE_DEPTHS[1] * depth_m)
    first_deg = commonest_modulo_90(azimuth_deg[on_faces])
    tilts, azimuths = [], []
    for face in range(4):
        off_deg = (azimuth_deg - first_deg - 90.0 * face + 180.0) % 360.0 - 180.0
        chosen = on_faces & (np.abs(off_deg) < FACE_HALF_WIDTH_DEG)
        tilts.append(float(np.median(tilt_deg[chosen])))
        azimuths.append(first_deg + 90.0 * face + float(np.median(off_deg[chosen])))
    return depth_m, tilts, azimuths


def _around_deepest(height_m: NDArray[np.float32], half_px: int) -> Floats:
    """A square window around the lowest point that lies far enough from the border."""
    level = without_plane(height_m)
    inner = level[half_px:-half_px, half_px:-half_px]
    if inner.size == 0:
        raise BadInput(f"a frame of {level.shape} pixels is too small for a window of {2 * half_px + 1}")
    row, column = np.unravel_index(np.argmin(inner), inner.shape)
    return level[row : row + 2 * half_px + 1, column : column + 2 * half_px + 1]


def commonest_modulo_90(azimuth_deg: Floats) -> float:
    candidates = np.arange(0.0, 90.0, 1.0)
    off = np.abs((azimuth_deg[np.newaxis] - candidates[:, np.newaxis] + 45.0) % 90.0 - 45.0)
    return float(candidates[np.argmin(np.median(off, axis=1))])
