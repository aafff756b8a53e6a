"""In-plane directions: which way the slopes of a map look, and the angles at which their edges meet."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from acquisition.errors import BadInput
from inference.metrology.facets import SMOOTHING_PX, slopes
from inference.metrology.height_map import HeightMap

STEEPER_DEG = 8.0
BIN_DEG = 1.0
RESOLUTION_DEG = 3.0
REACH_DEG = 10.0
LEAST_PEAK = 0.1
BLOCKS = 4
ROUNDS = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Direction:
    """`azimuth_deg`: where sides look down to, 0 to the right and 90 to the top of the image; their edges run at right
    angles to it. `share`: of all sloping pixels."""

    azimuth_deg: float
    sigma_deg: float
    share: float


@dataclass(frozen=True, slots=True)
class Meeting:
    """The angle at which the sides that look to two neighbouring directions meet, as seen from within: 90 between the
    sides of a square, 135 between those of an octagon."""

    first_deg: float
    second_deg: float
    angle_deg: float
    sigma_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """`histogram` (360,): share of sloping pixels that look to each degree."""

    histogram: Floats
    directions: tuple[Direction, ...]
    meetings: tuple[Meeting, ...]


def in_plane_directions(
    surface: HeightMap, smoothing_px: float = SMOOTHING_PX, steeper_deg: float = STEEPER_DEG
) -> Directions:
    """Peaks in the histogram of azimuths of all pixels steeper than `steeper_deg`, each the mean over 10 degrees to
    both sides; uncertainties by the jackknife over 4 x 4 blocks of the image. Raises `BadInput` where no pixel is so
    steep."""
    p, q = slopes(surface, smoothing_px)
    steep = np.hypot(p, q) > math.tan(math.radians(steeper_deg))
    if not steep.any():
        raise BadInput(f"no pixel is steeper than {steeper_deg:g}°: there are no directions to tell")
    azimuth = np.degrees(np.arctan2(q, -p))[steep] % 360.0
    rows, columns = np.nonzero(steep)
    block = (rows * BLOCKS // steep.shape[0]) * BLOCKS + columns * BLOCKS // steep.shape[1]
    bins = round(360.0 / BIN_DEG)
    counts = np.bincount((azimuth / BIN_DEG).astype(np.intp) % bins, minlength=bins) / len(azimuth)
    smooth = gaussian_filter1d(counts, RESOLUTION_DEG / BIN_DEG, mode="wrap")
    # Half a second that no program that starts should wait for.
    from scipy.signal import find_peaks

    peaks, _ = find_peaks(np.tile(smooth, 3), height=LEAST_PEAK * smooth.max(), distance=REACH_DEG / BIN_DEG)
    starts = (peaks[(peaks >= bins) & (peaks < 2 * bins)] - bins + 0.5) * BIN_DEG
    found = tuple(_direction(azimuth, block, float(start)) for start in starts)
    return Directions(counts, found, _meetings(found))


def _direction(azimuth: Floats, block: NDArray[np.intp], start_deg: float) -> Direction:
    for _ in range(ROUNDS):
        away = (azimuth - start_deg + 180.0) % 360.0 - 180.0
        near = np.abs(away) <= REACH_DEG
        start_deg += float(away[near].mean())
    away, counts = away[near], np.bincount(block[near], minlength=BLOCKS**2)
    sums = np.bincount(block[near], away, minlength=BLOCKS**2)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if len(counts) < 2:
        return Direction(start_deg % 360.0, math.nan, float(near.mean()))
    without = (sums.sum() - sums) / (counts.sum() - counts)
    sigma = math.sqrt((len(counts) - 1) * float(np.mean((without - without.mean()) ** 2)))
    return Direction(start_deg % 360.0, sigma, float(near.mean()))


def _meetings(found: tuple[Direction, ...]) -> tuple[Meeting, ...]:
    around = zip(found, found[1:] + found[:1], strict=True) if len(found) > 1 else ()
    met = []
    for one, other in around:
        turn = (other.azimuth_deg - one.azimuth_deg) % 360.0
        if 0.0 < turn < 175.0:
            sigma = math.hypot(one.sigma_deg, other.sigma_deg)
            met.append(Meeting(one.azimuth_deg, other.azimuth_deg, 180.0 - turn, sigma))
    return tuple(met)
