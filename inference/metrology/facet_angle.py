"""Facet and step angles from a profile: its straight parts, their inclinations, and the angles between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.metrology.profiles import FEWEST_ACROSS, Profile
from inference.metrology.scatter import MAD_TO_SIGMA, StraightLine, robust_line, sigma_of_mean

SHORTEST_PX = 7
TRUSTED_PX = 8
GAP_PX = 2
"""Points that are left out on both sides of an edge, which beam, pixel and smoothing round."""
FEWEST_FITTED = 3
MOST_POINTS = 1024
COST_OF_A_PART = 6.0
"""Noise variances times log(points) that a part more must save."""
SAME_SIGMAS = 3.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StraightPart:
    """From one distance to another the profile rises at `inclination_deg` (negative: falls), in its own plane.

    `sigma_deg` is of the scatter alone. `narrow`: fewer than 8 points, where a reconstruction bends a face by degrees
    that no scatter shows."""

    from_m: float
    to_m: float
    inclination_deg: float
    sigma_deg: float
    narrow: bool


@dataclass(frozen=True, slots=True)
class FacetAngle:
    """Both sides of an edge. `external_deg` is the angle between the two faces, 180 for no edge; `convex` when the
    surface turns down behind it. Angles are those in the profile's plane: draw it across the edge at right angles."""

    edge_m: float
    before: StraightPart
    behind: StraightPart
    external_deg: float
    sigma_deg: float
    convex: bool


def straight_parts(profile: Profile, noise_m: float | None = None) -> list[StraightPart]:
    """The straight parts of a profile, of 7 points or more, by optimal partitioning (least squares with a price for
    each part), neighbours that continue each other within 3 sigma joined; each by Huber's estimator. Two points beside
    each edge are left out. `noise_m`: what may be left about a straight part; by default the larger of the scatter
    between neighbouring points and the profile's own uncertainty."""
    noise = _noise_of(profile) if noise_m is None else noise_m
    thinned = max(1, math.ceil(len(profile.distance_m) / MOST_POINTS))
    breaks = _partition(profile.distance_m[::thinned], profile.height_m[::thinned], max(noise, 1e-300))
    ends = [*(thinned * at for at in breaks[:-1]), len(profile.distance_m)]
    while True:
        lines = [_tangent(profile, start, end) for start, end in pairwise(ends)]
        apart = [
            _sigmas_apart(one, other, profile.distance_m[end])
            for (one, other), end in zip(pairwise(lines), ends[1:-1], strict=True)
        ]
        if not apart or min(apart) > SAME_SIGMAS:
            return [_part(profile, line, *part) for line, part in zip(lines, pairwise(ends), strict=True)]
        del ends[int(np.argmin(apart)) + 1]


def facet_angles(profile: Profile, noise_m: float | None = None) -> list[FacetAngle]:
    """At every edge between two straight parts, in order. Empty for a profile that is one straight line."""
    return [_angle(one, next_) for one, next_ in pairwise(straight_parts(profile, noise_m))]


def facet_angle(profile: Profile, edge_m: float, reach_m: float | None = None) -> FacetAngle:
    """At a stated edge, tangents fitted by Huber's estimator to `reach_m` (or the rest of the profile) on both sides,
    less two points beside the edge. Raises `BadInput` where a side has fewer than 3 points to fit."""
    x, reach = profile.distance_m, math.inf if reach_m is None else reach_m
    start, edge = (int(np.searchsorted(x, at_m)) for at_m in (edge_m - reach, edge_m))
    end = int(np.searchsorted(x, edge_m + reach, "right"))
    if min(edge - start, end - edge) < FEWEST_FITTED + GAP_PX:
        raise BadInput(
            f"beside the edge at {edge_m:.3g} m lie {edge - start} and {end - edge} points of the profile: a tangent "
            f"takes {FEWEST_FITTED + GAP_PX}; draw it longer or move the edge"
        )
    fits = ((start, edge, (0, GAP_PX)), (edge, end, (GAP_PX, 0)))
    before, behind = (_part(profile, _tangent(profile, *fit), fit[0], fit[1]) for fit in fits)
    return _angle(before, behind)


def _tangent(profile: Profile, start: int, end: int, gaps: tuple[int, int] | None = None) -> StraightLine:
    """Through the points from `start` to before `end`, less those beside an edge, which the profile's ends are not."""
    before, behind = gaps or (GAP_PX if start > 0 else 0, GAP_PX if end < len(profile.distance_m) else 0)
    used = slice(start + before, end - behind)
    line = robust_line(profile.distance_m[used], profile.height_m[used])
    if len(profile.strips_m) < FEWEST_ACROSS:
        return line
    return replace(
        line, sigma_slope=max(line.sigma_slope, sigma_of_mean(profile.strips_m[:, used] @ line.slope_weights))
    )


def _part(profile: Profile, line: StraightLine, start: int, end: int) -> StraightPart:
    to_m = float(profile.distance_m[min(end, len(profile.distance_m) - 1)])
    sigma_deg = math.degrees(line.sigma_slope / (1.0 + line.slope**2))
    inclination_deg, narrow = math.degrees(math.atan(line.slope)), end - start < TRUSTED_PX
    return StraightPart(float(profile.distance_m[start]), to_m, inclination_deg, sigma_deg, narrow)


def _angle(before: StraightPart, behind: StraightPart) -> FacetAngle:
    turn = behind.inclination_deg - before.inclination_deg
    sigma = math.hypot(before.sigma_deg, behind.sigma_deg)
    return FacetAngle(behind.from_m, before, behind, 180.0 - abs(turn), sigma, turn < 0)


def _sigmas_apart(one: StraightLine, other: StraightLine, edge_m: float) -> float:
    """By how many sigmas neighbours differ in slope or miss each other at their edge, whichever is more."""
    turn = abs(one.slope - other.slope) / max(math.hypot(one.sigma_slope, other.sigma_slope), 1e-300)
    jump = abs(one.at(edge_m) - other.at(edge_m)) / max(
        math.hypot(one.sigma_at(edge_m), other.sigma_at(edge_m)), 1e-300
    )
    return max(turn, jump)


def _noise_of(profile: Profile) -> float:
    """From second differences, which know no slope, and from the spread across the width."""
    seconds = np.diff(profile.height_m, 2)
    along = MAD_TO_SIGMA * float(np.median(np.abs(seconds))) / math.sqrt(6.0)
    across = profile.sigma_m[np.isfinite(profile.sigma_m)]
    floor = 1e-6 * float(np.ptp(profile.height_m))
    return max(along, float(np.median(across)) if len(across) else 0.0, floor)


def _partition(x: Floats, z: Floats, noise: float) -> list[int]:
    """Starts of the parts and the end: the partition into lines of least squares plus price."""
    count = len(x)
    if count < 2 * SHORTEST_PX:
        return [0, count]
    x, z = (x - x.mean()) / np.ptp(x), (z - z.mean()) / noise
    sums = np.array([np.concatenate([[0.0], np.cumsum(values)]) for values in (x, z, x * x, x * z, z * z)])
    price = COST_OF_A_PART * math.log(count)
    cost, origin = np.full(count + 1, np.inf), np.zeros(count + 1, np.intp)
    cost[0] = -price
    for end in range(SHORTEST_PX, count + 1):
        starts = np.arange(0, end - SHORTEST_PX + 1)
        first, last = np.where(starts > 0, starts + GAP_PX, 0), end - (GAP_PX if end < count else 0)
        n = (last - first).astype(np.float64)
        sx, sz, sxx, sxz, szz = sums[:, last, None] - sums[:, first]
        left = szz - sz**2 / n - (sxz - sx * sz / n) ** 2 / np.maximum(sxx - sx**2 / n, 1e-12)
        total = cost[starts] + np.maximum(left, 0.0) + price
        best = int(np.argmin(total))
        cost[end], origin[end] = total[best], starts[best]
    breaks = [count]
    while breaks[0] > 0:
        breaks.insert(0, int(origin[breaks[0]]))
    return breaks
