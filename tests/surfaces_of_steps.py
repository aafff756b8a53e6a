"""Surfaces whose steps and spirals are known, with the noise that heights have at a dose."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from inference.metrology.height_map import HeightMap
from inference.metrology.patches import height_noise

PIXEL_M = 5e-9
STEP_M, TERRACE_M = 20e-9, 200e-9
RISER_M = 20e-9
DOSES = (600.0, 2500.0, 10000.0)

Floats = NDArray[np.float64]


def as_map(height_m: Floats, dose: float = math.inf, seed: int = 1) -> HeightMap:
    """`height_m` with noise."""
    noise = 0.0 if math.isinf(dose) else PIXEL_M * height_noise(height_m.shape, dose, np.random.default_rng(seed))
    return HeightMap(height_m + noise, PIXEL_M, PIXEL_M)


def stairs_m(phase: Floats) -> Floats:
    """One step up for each whole number of terraces, over risers of 45 degrees."""
    whole = np.floor(phase)
    return STEP_M * (whole + np.minimum((phase - whole) * TERRACE_M / RISER_M, 1.0))


def straight_m(size_px: int, degrees: float, grown_m: float = 0.0) -> Floats:
    """Steps that run down along a direction, counter-clockwise from the right, and advance."""
    row, column = np.mgrid[:size_px, :size_px] * PIXEL_M
    ahead = column * math.cos(math.radians(degrees)) - row * math.sin(math.radians(degrees))
    return stairs_m((grown_m - ahead) / TERRACE_M)


def spiral_m(size_px: int, core_px: tuple[float, float], sense: float, grown_m: float = 0.0) -> Floats:
    """A round spiral around a core (row, column); with `sense` 1 its terrace climbs counter-clockwise as seen."""
    row, column = np.mgrid[:size_px, :size_px].astype(np.float64)
    down, right = row - core_px[0], column - core_px[1]
    turn = sense * np.arctan2(down, right) / (2 * math.pi)
    phase = (grown_m - np.hypot(down, right) * PIXEL_M) / TERRACE_M + turn
    return stairs_m(phase) - STEP_M * turn
