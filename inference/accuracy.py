"""How far a height map lies from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """`slope_error_deg`: rms angle between the normals of height and truth. `height_error_m`: rms of the difference
    with its plane removed; `height_error_over_std` relates it to the standard deviation of the levelled truth."""

    slope_error_deg: float
    height_error_m: float
    height_error_over_std: float


def compare(height_m: Floats, truth_m: Floats, pixel_size_m: float) -> Accuracy:
    """Both (H, W) in metres on the same square pixels; normals by forward differences. Raises `BadInput` when the
    shapes differ."""
    if height_m.shape != truth_m.shape or height_m.ndim != 2:
        raise BadInput(f"a height of shape {height_m.shape} cannot be compared with a truth of shape {truth_m.shape}")
    height, truth = np.asarray(height_m, np.float64), np.asarray(truth_m, np.float64)
    cosine = np.sum(normals(height, pixel_size_m) * normals(truth, pixel_size_m), axis=0)
    angles_deg = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    error_m = float(np.std(without_plane(height - truth)))
    relief_m = float(np.std(without_plane(truth)))
    return Accuracy(
        float(np.sqrt(np.mean(angles_deg**2))), error_m, error_m / relief_m if relief_m > 0 else float("inf")
    )


def normals(height_m: Floats, pixel_size_m: float) -> NDArray[np.float64]:
    """(3, H-1, W-1) unit normals of the surface between four pixels."""
    p = np.diff(height_m, axis=1)[:-1] / pixel_size_m
    q = np.diff(height_m, axis=0)[:, :-1] / pixel_size_m
    return np.stack([-p, -q, np.ones_like(p)]) / np.sqrt(1.0 + p**2 + q**2)


def without_plane(height_m: Floats) -> NDArray[np.float64]:
    """(H, W) with its least-squares plane taken off."""
    rows, columns = height_m.shape
    level = np.asarray(height_m, np.float64) - np.mean(height_m, dtype=np.float64)
    y, x = (np.arange(size) - 0.5 * (size - 1) for size in (rows, columns))
    # Centred coordinates of a full grid are orthogonal, so each coefficient is a projection of its own.
    along_x = (level @ x).sum() / max(rows * (x @ x), 1.0)
    along_y = (y @ level).sum() / max(columns * (y @ y), 1.0)
    return np.asarray(level - along_x * x - along_y * y[:, np.newaxis], np.float64)
