"""The orientation of a cubic crystal from the normals of its facets, and how sure it is which face is which."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from acquisition.errors import BadInput
from inference.metrology.crystal import MODEL_SIGMA_DEG, Crystal, Miller
from inference.metrology.facets import Facet

FEWEST_FACETS = 3
MOST_NORMALS = 10
SURE = 0.95
STRAY_SHARE = 0.05
"""How likely a facet is none of the table's faces."""
STRAY = STRAY_SHARE / (2.0 * math.pi)
SEED_SIGMAS = 4.0
ROUNDS = 4
MOST_SEEDS = 120
SAME_DEG = 1.5
CUBE = Rotation.create_group("O")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to set the crystal: `matrix` (3, 3) takes the cube's axes to those of the facets' normals (right, top,
    viewer). `faces`: for each normal its Miller indices, None for one that is no face of the table. `sigma_deg` (3,):
    uncertainty of the rotation about these axes."""

    probability: float
    matrix: Floats
    sigma_deg: Floats
    faces: tuple[Miller | None, ...]
    misfit_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class Orientation:
    """`candidates` by falling probability; `none` is the probability that no orientation of this crystal explains the
    facets. `determined` when the first one has 0.95 or more. `facets`: numbers of the facets behind each normal."""

    crystal: str
    candidates: tuple[Candidate, ...]
    none: float
    facets: tuple[tuple[int, ...], ...]

    @property
    def determined(self) -> bool:
        return bool(self.candidates) and self.candidates[0].probability >= SURE


class _Way(NamedTuple):
    """Log evidence, the rotation and its covariance (3, 3), the face of each normal and whether it is one."""

    evidence: float
    rotation: Rotation
    covariance: Floats
    faces: NDArray[np.intp]
    meant: NDArray[np.bool_]


def fit_orientation(
    facets: Sequence[Facet], crystal: Crystal, top: Facet | None = None, top_family: str | None = None
) -> Orientation:
    """Wahba's problem (Kabsch's solution, scipy's `align_vectors`) for every assignment of faces that two of the
    normals allow, each then refined on all of them; ways that the cube's symmetry makes equal count once.

    The posterior weighs, for each way, the likelihood of all normals (their own uncertainty and 1 degree for what the
    reconstruction bends; each may be a stray by 0.05, anywhere on the half sphere) by the share of all orientations
    that its uncertainty takes up, against strays alone. `top_family`: what the facet `top` is known to be. Facets of
    one cluster of slopes count as one normal, the ten largest are used. Raises `BadInput` below three normals.
    """
    normals, sigmas_deg, numbers = _merged(facets)
    if len(normals) < FEWEST_FACETS:
        raise BadInput(f"facets of {len(normals)} directions: an orientation takes at least {FEWEST_FACETS}")
    sigmas = np.radians(np.hypot(sigmas_deg, MODEL_SIGMA_DEG))
    indices, directions = crystal.faces()
    held: tuple[int, NDArray[np.bool_]] | None = None
    if top is not None and top_family is not None:
        members = set(crystal.family(top_family).members())
        place = next((at for at, group in enumerate(numbers) if top.number in group), None)
        if place is not None:
            held = place, np.array([hkl in members for hkl in indices])
    ways: list[_Way] = []
    for rotation in _seeds(normals, sigmas, directions):
        if any(_same(rotation, other.rotation) for other in ways):
            continue
        way = _refined(rotation, normals, sigmas, directions, held)
        if way is not None and not any(_same(way.rotation, other.rotation) for other in ways):
            ways.append(way)
    nothing = -len(normals) * math.log(2.0 * math.pi)
    logs = np.array([nothing, *(way.evidence for way in ways)])
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    found = [
        _candidate(way, float(weight), indices, normals, directions)
        for way, weight in zip(ways, weights[1:], strict=True)
    ]
    found.sort(key=lambda one: -one.probability)
    return Orientation(crystal.name, tuple(found), float(weights[0]), numbers)


def _merged(facets: Sequence[Facet]) -> tuple[Floats, Floats, tuple[tuple[int, ...], ...]]:
    """Normals (n, 3) of the clusters, weighted by area, their uncertainties in degrees, and the facets of each."""
    groups: dict[int, list[Facet]] = {}
    for facet in facets:
        groups.setdefault(facet.cluster, []).append(facet)
    largest = sorted(groups.values(), key=lambda group: -sum(one.area_m2 for one in group))[:MOST_NORMALS]
    normals, sigmas = [], []
    for group in largest:
        areas = np.array([one.area_m2 for one in group])
        mean = areas @ np.array([one.normal for one in group])
        normals.append(mean / np.linalg.norm(mean))
        sigmas.append(float(np.linalg.norm(areas * [one.sigma_deg for one in group]) / areas.sum()))
    return (
        np.array(normals).reshape(-1, 3),
        np.array(sigmas),
        tuple(tuple(one.number for one in group) for group in largest),
    )


def _seeds(normals: Floats, sigmas: Floats, directions: Floats) -> list[Rotation]:
    """The likeliest of the rotations that take two faces to two of the normals, for each pair of both whose angles
    agree: the line between the two lies on that between the others, and their plane on the others' plane."""
    between = np.arccos(np.clip(directions @ directions.T, -1.0, 1.0))
    standard = np.array([_is_standard(direction) for direction in directions])
    found = []
    for one, other in combinations(range(len(normals)), 2):
        angle = math.acos(float(np.clip(normals[one] @ normals[other], -1.0, 1.0)))
        allowed = SEED_SIGMAS * math.hypot(sigmas[one], sigmas[other])
        if angle < allowed:
            continue
        agrees = (np.abs(between - angle) < allowed) & (between < math.pi - 1e-6) & (between > 1e-6)
        firsts, seconds = np.nonzero(agrees & standard[:, None])
        axes = _axes(normals[one], normals[other])
        found.append(axes @ np.swapaxes(_axes(directions[firsts], directions[seconds]), 1, 2))
    if not found:
        return []
    turns = np.concatenate(found)
    cosines = np.max(np.einsum("ni,sij,fj->snf", normals, turns, directions), axis=2)
    away = np.arccos(np.clip(cosines, -1.0, 1.0)) / (2.0 * sigmas)
    likely = np.log(np.exp(-0.5 * away**2) + STRAY_SHARE).sum(axis=1)
    return [Rotation.from_matrix(turns[best]) for best in np.argsort(-likely, kind="stable")[:MOST_SEEDS]]


def _axes(one: Floats, other: Floats) -> Floats:
    """(..., 3, 3) columns: half way between two directions, at right angles to that in their plane, and to both."""
    middle, out = one + other, np.cross(one, other)
    middle, out = (way / np.linalg.norm(way, axis=-1, keepdims=True) for way in (middle, out))
    return np.stack([middle, np.cross(out, middle), out], axis=-1)


def _is_standard(direction: Floats) -> bool:
    """The first face may be chosen among a few of each family: turns of the cube onto itself give the others."""
    return bool(-1e-9 <= direction[2] <= min(direction[:2]) + 1e-9)


def _refined(
    rotation: Rotation, normals: Floats, sigmas: Floats, directions: Floats, held: tuple[int, NDArray[np.bool_]] | None
) -> _Way | None:
    """The best rotation near one. None where it makes fewer than three normals faces, or the top one of another
    family."""
    covariance = np.full(3, np.inf)
    for _ in range(ROUNDS):
        cosines = normals @ rotation.apply(directions).T
        faces = np.argmax(cosines, axis=1)
        away = np.arccos(np.clip(cosines[np.arange(len(normals)), faces], -1.0, 1.0))
        # Of the faces that can be seen, half of all, each normal may be any: more faces explain more by chance.
        density = (1.0 - STRAY_SHARE) * np.exp(-0.5 * (away / sigmas) ** 2) / (math.pi * sigmas**2 * len(directions))
        meant = density > STRAY
        if np.count_nonzero(meant) < FEWEST_FACETS:
            return None
        rotation = _turn(normals[meant], directions[faces[meant]], sigmas[meant])
        turning = np.eye(3)[None] - normals[meant, :, None] * normals[meant, None, :]
        covariance = np.linalg.inv(np.sum(turning / sigmas[meant, None, None] ** 2, axis=0))
    if held is not None and not held[1][faces[held[0]]]:
        return None
    likelihood = float(np.log(density + STRAY).sum())
    orientations = 8.0 * math.pi**2 / 24.0
    occupied = math.sqrt((2.0 * math.pi) ** 3 * float(np.linalg.det(covariance))) / orientations
    return _Way(likelihood + math.log(occupied), rotation, covariance, faces, meant)


def _turn(normals: Floats, directions: Floats, sigmas: Floats) -> Rotation:
    with warnings.catch_warnings():  # two directions that lie opposite each other: refined on all normals later
        warnings.simplefilter("ignore", UserWarning)
        return Rotation.align_vectors(normals, directions, weights=1.0 / sigmas**2)[0]


def _same(one: Rotation, other: Rotation) -> bool:
    turned = (one.inv() * other * CUBE).magnitude()
    return bool(np.min(turned) < math.radians(SAME_DEG))


def _candidate(
    way: _Way,
    probability: float,
    indices: list[Miller],
    normals: Floats,
    directions: Floats,
) -> Candidate:
    _, rotation, covariance, faces, meant = way
    cosines = np.sum(normals * rotation.apply(directions[faces]), axis=1)[meant]
    misfit = math.degrees(math.sqrt(float(np.mean(np.arccos(np.clip(cosines, -1.0, 1.0)) ** 2))))
    named = tuple(indices[face] if known else None for face, known in zip(faces, meant, strict=True))
    return Candidate(probability, rotation.as_matrix(), np.degrees(np.sqrt(np.diag(covariance))), named, misfit)
