"""How fast steps advance: step lines of one frame against those of the next, along their normals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from acquisition.errors import BadInput
from inference.metrology.steps import ALONG_PX, MAD_OF_NORMAL, SAME_WAY, Steps

MOST_ADVANCE = 0.45
NEIGHBOURS = 12
ROUNDS = 8
HUBER = 1.5
SMALLEST_M = 1e-13

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Advance:
    """How far steps went from one frame to the next along their normals, downhill positive: what all points found again
    have in common, its standard error, and each point: `places_m` (n, 2) and `moved_m` (n,). `slipped_m`: rows and
    columns by which the view moved beyond what was told, as steps that go several ways show."""

    mean_m: float
    error_m: float
    slipped_m: tuple[float, float]
    places_m: Floats
    moved_m: Floats


def find_advance(
    before: Steps,
    after: Steps,
    moved_px: Sequence[float] | Floats = (0.0, 0.0),
    moved_error_px: Sequence[float] | Floats = (0.0, 0.0),
) -> Advance:
    """From `before` to `after`, which shows the specimen `moved_px` further down and right, to a standard deviation of
    `moved_error_px`: that much the view may have slipped, which moves steps that go opposite ways apart from growth.

    Each point is compared with the nearest one that falls the same way, within `MOST_ADVANCE` of the spacing: steps
    that go on by half their spacing or more between frames look like steps that went back. Raises `BadInput` where
    none is found again.
    """
    first, second = before.places_m(), after.places_m() - np.multiply(moved_px, after.pixel_m)
    if not len(first) or not len(second):
        raise BadInput(f"{len(first)} and {len(second)} points of steps: there is nothing to see advance")
    here, there = before.downhill(), after.downhill()
    spacing = min(one for one in (before.spacing_m, after.spacing_m, math.inf) if not math.isnan(one))
    reach = MOST_ADVANCE * spacing
    distance, nearest = cKDTree(second).query(first, k=min(NEIGHBOURS, len(second)), distance_upper_bound=reach)
    distance, nearest = (np.reshape(found, (len(first), -1)) for found in (distance, nearest))
    known = np.isfinite(distance)
    nearest = np.where(known, nearest, 0)
    same = known & (np.einsum("ni,nki->nk", here, there[nearest]) > SAME_WAY)
    found = same.any(axis=1)
    if not found.any():
        raise BadInput(
            f"no step is found again within {reach:.3g} m, {MOST_ADVANCE:.0%} of the spacing: take frames at shorter "
            "intervals"
        )
    best = np.argmax(same, axis=1)[found]
    target = second[nearest[found, best]]
    moved = np.sum((target - first[found]) * here[found], axis=1)
    mean, error, slipped = _common(moved, here[found], np.multiply(moved_error_px, after.pixel_m))
    return Advance(mean, error, slipped, first[found], moved)


def _common(moved_m: Floats, normals: Floats, slip_error_m: Floats) -> tuple[float, float, tuple[float, float]]:
    """The likeliest advance and slip, points far off counting less (Huber). Those of one line share their errors over
    `ALONG_PX`."""
    unknowns = np.column_stack([np.ones(len(moved_m)), normals])
    with np.errstate(divide="ignore"):
        known = np.diag([0.0, *(np.maximum(slip_error_m, SMALLEST_M) ** -2.0)])
    found = np.array([np.median(moved_m), 0.0, 0.0])
    covariance = np.zeros((3, 3))
    for _ in range(ROUNDS):
        left = moved_m - unknowns @ found
        spread = max(float(np.median(np.abs(left))) / MAD_OF_NORMAL, SMALLEST_M)
        weights = np.minimum(1.0, HUBER * spread / np.maximum(np.abs(left), SMALLEST_M)) / (spread**2 * ALONG_PX)
        covariance = np.linalg.pinv((unknowns * weights[:, None]).T @ unknowns + known, hermitian=True)
        found = covariance @ ((unknowns * weights[:, None]).T @ moved_m)
    return float(found[0]), math.sqrt(float(covariance[0, 0])), (float(found[1]), float(found[2]))
