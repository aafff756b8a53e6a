"""Where straight steps cross or meet, and the angle between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from inference.metrology.scatter import MAD_TO_SIGMA, robust_line
from inference.metrology.steps import Steps

RESOLUTION_DEG = 3.0
SAME_WAY_DEG = 10.0
LEAST_PEAK = 0.05
SHORTEST_PX = 14
ROUNDED_PX = 4
REACH_PX = 24.0
ONE_PLACE_PX = 12.0
LEAST_TURN_DEG = 15.0
MEDIAN_TO_MEAN = 1.2533

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StraightStep:
    """A straight piece of a step: its ends (row, column), where it falls down to (0 to the right, 90 to the top)."""

    ends_px: Floats
    azimuth_deg: float
    sigma_deg: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """`angle_deg` as seen from within, 90 between the sides of a square, 135 between those of an octagon; `sigma_deg`
    from the scatter of both steps about straight lines. `arms`: pieces that end there, 2 at a corner, 3 or 4 where
    steps cross. `azimuths_deg`: where both fall down to."""

    place_px: tuple[float, float]
    azimuths_deg: tuple[float, float]
    angle_deg: float
    sigma_deg: float
    arms: int


def find_crossings(steps: Steps) -> list[Crossing]:
    """All places where straight pieces of steps that fall different ways, produced by up to `REACH_PX`, cut each
    other: corners and crossings."""
    pieces = straight_steps(steps)
    found = []
    for number, one in enumerate(pieces):
        for other in pieces[number + 1 :]:
            place = _place(one, other)
            if place is not None:
                found.append((place, one, other))
    return [_joined(group) for group in _groups(found)]


def usual_angle(crossings: Sequence[Crossing]) -> tuple[float, float]:
    """Median in degrees and its standard uncertainty, by the scatter of the angles or by their own uncertainties,
    whichever is more; NaN for none."""
    if not crossings:
        return math.nan, math.nan
    angles = np.array([one.angle_deg for one in crossings])
    median = float(np.median(angles))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(angles - median)))
    single = float(np.median([one.sigma_deg for one in crossings]))
    return median, MEDIAN_TO_MEAN * max(scatter, single) / math.sqrt(len(angles))


def straight_steps(steps: Steps) -> list[StraightStep]:
    """Pieces of `SHORTEST_PX` or more that fall to one of the directions most steps fall to, less what is rounded at
    their ends; each by Huber's estimator."""
    downhill = steps.downhill()
    usual, pieces = _usual_deg(_azimuth_deg(downhill)), []
    if not usual.size:
        return []
    for line in steps.lines:
        away = np.abs((_azimuth_deg(line.downhill)[:, None] - usual + 180.0) % 360.0 - 180.0)
        family = np.where(away.min(axis=1) < SAME_WAY_DEG, away.argmin(axis=1), -1)
        starts = np.flatnonzero(np.diff(family, prepend=-2, append=-2))
        for start, end in pairwise(starts):
            inner = line.places_px[start + ROUNDED_PX : end - ROUNDED_PX]
            if family[start] >= 0 and len(inner) >= SHORTEST_PX - 2 * ROUNDED_PX and end - start >= SHORTEST_PX:
                pieces.append(_straight(inner, float(usual[family[start]]), np.array(steps.pixel_m)))
    return pieces


def _straight(places_px: Floats, azimuth_deg: float, pixel_m: Floats) -> StraightStep:
    turn = math.radians(azimuth_deg)
    down, along = np.array([-math.sin(turn), math.cos(turn)]), np.array([math.cos(turn), math.sin(turn)])
    places_m = places_px * pixel_m
    line = robust_line(places_m @ along, places_m @ down)
    reach = np.array([(places_m @ along).min(), (places_m @ along).max()])
    ends_m = reach[:, None] * along + np.array([line.at(at) for at in reach])[:, None] * down
    # `along` is to the left of what falls away: an increase of the way down along it turns the normal back.
    return StraightStep(
        ends_m / pixel_m, (azimuth_deg + math.degrees(math.atan(line.slope))) % 360.0, math.degrees(line.sigma_slope)
    )


def _place(one: StraightStep, other: StraightStep) -> Floats | None:
    """Where both cut, within reach of an end of each or between its ends."""
    turn = abs((one.azimuth_deg - other.azimuth_deg + 180.0) % 360.0 - 180.0)
    if turn < LEAST_TURN_DEG or turn > 180.0 - LEAST_TURN_DEG:
        return None
    ways = [piece.ends_px[1] - piece.ends_px[0] for piece in (one, other)]
    shares = np.linalg.solve(np.column_stack([ways[0], -ways[1]]), other.ends_px[0] - one.ends_px[0])
    for share, way in zip(shares, ways, strict=True):
        if max(-share, share - 1.0) * np.hypot(*way) > REACH_PX:
            return None
    return np.asarray(one.ends_px[0] + shares[0] * ways[0])


Met = tuple[Floats, StraightStep, StraightStep]


def _groups(found: Sequence[Met]) -> list[list[Met]]:
    """Those whose places are one place."""
    if not found:
        return []
    tree, left, groups = cKDTree([place for place, _, _ in found]), set(range(len(found))), []
    for number in range(len(found)):
        near = [one for one in tree.query_ball_point(found[number][0], ONE_PLACE_PX) if one in left]
        if number in left:
            groups.append([found[one] for one in near])
            left -= set(near)
    return groups


def _joined(group: list[Met]) -> Crossing:
    ways = [(one, other) if _turn(one, other) > 0 else (other, one) for _, one, other in group]
    turns = np.array([abs(_turn(one, other)) for one, other in ways])
    sigmas = np.array([math.hypot(one.sigma_deg, other.sigma_deg) for one, other in ways])
    weights = 1.0 / np.maximum(sigmas, 1e-6) ** 2
    place = np.average([place for place, _, _ in group], axis=0, weights=weights)
    best = ways[int(np.argmin(sigmas))]
    pieces = {id(piece): piece for pair in ways for piece in pair}.values()
    arms = sum(_arms(piece, place) for piece in pieces)
    return Crossing(
        (float(place[0]), float(place[1])),
        (best[0].azimuth_deg, best[1].azimuth_deg),
        180.0 - float(np.average(turns, weights=weights)),
        float(weights.sum() ** -0.5),
        arms,
    )


def _arms(piece: StraightStep, place: Floats) -> int:
    """2 where the piece goes on to both sides of the place."""
    way = piece.ends_px[1] - piece.ends_px[0]
    share = float((place - piece.ends_px[0]) @ way / (way @ way))
    length = float(np.hypot(*way))
    return 2 if min(share, 1.0 - share) * length > ROUNDED_PX else 1


def _turn(one: StraightStep, other: StraightStep) -> float:
    return (other.azimuth_deg - one.azimuth_deg + 180.0) % 360.0 - 180.0


def _azimuth_deg(downhill: Floats) -> Floats:
    return np.asarray(np.degrees(np.arctan2(-downhill[:, 0], downhill[:, 1])) % 360.0)


def _usual_deg(azimuth_deg: Floats) -> Floats:
    # Half a second that no program that starts should wait for.
    from scipy.signal import find_peaks

    counts = np.bincount(azimuth_deg.astype(np.intp) % 360, minlength=360).astype(np.float64)
    smooth = np.tile(gaussian_filter1d(counts, RESOLUTION_DEG, mode="wrap"), 3)
    peaks, _ = find_peaks(smooth, height=max(LEAST_PEAK * smooth.max(), 1e-9), distance=SAME_WAY_DEG)
    return np.asarray(peaks[(peaks >= 360) & (peaks < 720)] - 360 + 0.5, np.float64)
