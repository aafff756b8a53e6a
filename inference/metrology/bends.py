"""Angles at the edges and feet of a surface: tangents on both sides of its strongest bends, as on a line profile."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.feature import peak_local_max

from inference.metrology.height_map import HeightMap

MOST_BENDS = 120
BLUR_PX = 1.5
REACH_PX = 9.0
GAP_PX = 2.0
WIDTH_PX = 2

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bends:
    """Places (row, column) of bends on one grid, the direction across each (down, right), and how far, in pixels, its
    tangents reach."""

    places: Floats
    across: Floats
    reach_px: float


def find_bends(surface: HeightMap, known: NDArray[np.bool_], reach_px: float = REACH_PX) -> Bends:
    """The strongest bends of `surface`, apart from each other by the tangents' reach, whose tangents lie where it is
    `known`. `reach_px` counts its pixels."""
    smooth = gaussian_filter(surface.height_m, BLUR_PX * reach_px / REACH_PX, mode="nearest")
    down, right = np.gradient(smooth, surface.pixel_size_y_m, surface.pixel_size_m)
    yy, yx = np.gradient(down, surface.pixel_size_y_m, surface.pixel_size_m)
    xx = np.gradient(right, surface.pixel_size_m, axis=1)
    middle, half = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), yx)
    turn = np.where(known, np.abs(middle) + half, 0.0)
    reach = math.ceil(reach_px + WIDTH_PX)
    found = peak_local_max(turn, min_distance=reach, num_peaks=4 * MOST_BENDS, exclude_border=reach)
    rows, columns = found.T
    angle = 0.5 * np.arctan2(2.0 * yx, xx - yy)[rows, columns]
    # The eigenvector of the greater of both principal curvatures by size.
    angle = np.where(middle[rows, columns] >= 0.0, angle, angle + 0.5 * math.pi)
    across = np.column_stack([np.sin(angle), np.cos(angle)])
    ends = [np.rint(found + side * reach_px * across).astype(int).T for side in (-1, 1)]
    whole = known[tuple(ends[0])] & known[tuple(ends[1])]
    return Bends(found[whole][:MOST_BENDS].astype(np.float64), across[whole][:MOST_BENDS], reach_px)


def external_angles_deg(surface: HeightMap, bends: Bends) -> Floats:
    """(N,) the angle of the solid's outside at each bend's profile, 180 where it is flat, above 180 over an edge and
    below over a foot. Tangents are least-squares lines over each side, the bend's rounding left out; the profile is
    averaged over five pixels along the edge."""
    gap = GAP_PX * bends.reach_px / REACH_PX
    out = np.arange(gap, bends.reach_px + 0.25, 0.5)
    along = np.arange(-WIDTH_PX, WIDTH_PX + 1)
    pixel_m = np.array([surface.pixel_size_y_m, surface.pixel_size_m])
    beside = np.column_stack([-bends.across[:, 1], bends.across[:, 0]])
    metres = np.hypot(*(bends.across * pixel_m).T)
    turns = []
    for side in (-1.0, 1.0):
        places = (
            bends.places[:, :, None, None]
            + side * out[None, None, :, None] * bends.across[:, :, None, None]
            + along[None, None, None, :] * beside[:, :, None, None]
        )
        profile = map_coordinates(surface.height_m, np.moveaxis(places, 1, 0), order=1, mode="nearest").mean(axis=-1)
        centred = out - out.mean()
        rise = side * (profile @ centred) / (centred @ centred) / metres
        turns.append(np.degrees(np.arctan(rise)))
    return np.asarray(180.0 + turns[0] - turns[1], np.float64)
