"""A surface and what an AFM makes of it: a blunt tip, its own pixels, turned and sheared, jumping lines, noise."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from inference.metrology.height_map import HeightMap
from inference.metrology.probe import touched

PIXEL_M, AFM_PIXEL_M = 5e-9, 4e-9
TURN_RAD, SHIFT_M = math.radians(11.0), np.array([24e-9, -17e-9])
MATRIX = np.array([[math.cos(TURN_RAD), -math.sin(TURN_RAD)], [math.sin(TURN_RAD), math.cos(TURN_RAD)]]) @ np.array(
    [[1.0, 0.02], [0.0, 1.0]]
)


def grains(side: int, seed: int = 3) -> np.ndarray:
    """(side, side) metres: facets of different heights and directions, up to 22 degrees steep."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] * PIXEL_M
    height = np.zeros((side, side))
    for _ in range(12):
        at, direction = rng.uniform(0, side * PIXEL_M, 2), rng.uniform(0, math.pi)
        u = (x - at[0]) * math.cos(direction) + (y - at[1]) * math.sin(direction)
        v = (y - at[1]) * math.cos(direction) - (x - at[0]) * math.sin(direction)
        height = np.maximum(
            height, rng.uniform(15e-9, 35e-9) - 0.4 * np.maximum(abs(u), rng.uniform(0.5, 1.0) * abs(v))
        )
    return gaussian_filter(height, 1.0)


def probed(height_m: np.ndarray, tip_m: float, side: int = 130) -> HeightMap:
    """As an AFM of pixels of `AFM_PIXEL_M` sees it."""
    blunt = touched(height_m, (PIXEL_M, PIXEL_M), tip_m)
    middle = (np.arange(side) - 0.5 * (side - 1)) * AFM_PIXEL_M
    points = np.stack(np.meshgrid(middle, middle)).reshape(2, -1) - SHIFT_M[:, None]
    x_m, y_m = np.linalg.inv(MATRIX) @ points
    centre = 0.5 * (len(height_m) - 1)
    there = map_coordinates(blunt, (y_m / PIXEL_M + centre, x_m / PIXEL_M + centre), order=1, mode="mirror")
    rng = np.random.default_rng(5)
    lines = rng.normal(0, 1e-9, (side, 1)) + rng.normal(0, 0.05e-9, (side, side)) + 2e-10 * np.arange(side)[:, None]
    return HeightMap(there.reshape(side, side) + lines, AFM_PIXEL_M, AFM_PIXEL_M)


def true_places(side: int, afm: HeightMap) -> tuple[np.ndarray, np.ndarray]:
    """Row and column on the map of every pixel of the frame."""
    middle = (np.arange(side) - 0.5 * (side - 1)) * PIXEL_M
    x_m, y_m = (MATRIX @ np.stack(np.meshgrid(middle, middle)).reshape(2, -1)).reshape(2, side, side)
    rows, columns = afm.height_m.shape
    return (
        (y_m + SHIFT_M[1]) / AFM_PIXEL_M + 0.5 * (rows - 1),
        (x_m + SHIFT_M[0]) / AFM_PIXEL_M + 0.5 * (columns - 1),
    )
