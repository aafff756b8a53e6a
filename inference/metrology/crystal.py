"""Cubic crystals: the directions of their low-index faces, and which of them a facet is, seen from a chosen top."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from acquisition.errors import BadInput
from inference.metrology.facets import Facet

TABLE = Path(__file__).with_name("crystals.toml")
MODEL_SIGMA_DEG = 1.0
"""By how much the reconstruction may bend an angle beside the noise: added in squares to a facet's own uncertainty."""
AGREES_SIGMAS = 3.0

Floats = NDArray[np.float64]
Miller = tuple[int, int, int]


class Family(BaseModel):
    """Faces that the crystal's symmetry makes equal. `ratio`: distance from the middle in the Wulff polyhedron."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hkl: Miller
    ratio: float = Field(gt=0.0, le=100.0)

    @property
    def told(self) -> str:
        return "{" + "".join(map(str, self.hkl)) + "}"

    def members(self) -> list[Miller]:
        """All faces of the family, as Miller indices."""
        signs = product((1, -1), repeat=3)
        both = {
            tuple(s * i for s, i in zip(sign, order, strict=True)) for sign in signs for order in permutations(self.hkl)
        }
        return sorted(both, reverse=True)  # type: ignore[arg-type]


class Crystal(BaseModel):
    """A cubic crystal with the families that its facets may belong to."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    families: tuple[Family, ...] = Field(min_length=1, max_length=12)

    def faces(self) -> tuple[list[Miller], Floats]:
        """Miller indices of all faces of all families, and their unit normals (n, 3) along the cube's axes."""
        indices = [hkl for family in self.families for hkl in family.members()]
        return indices, np.array([np.array(hkl) / math.hypot(*hkl) for hkl in indices])

    def family(self, hkl: str) -> Family:
        """Of indices such as `100`. Raises `BadInput` for one that the table does not have."""
        wanted = {family.told.strip("{}"): family for family in self.families}
        if hkl.strip("{}") not in wanted:
            raise BadInput(
                f"{self.name} has no family {hkl!r}; known: {', '.join(wanted)} (families of the crystal table)"
            )
        return wanted[hkl.strip("{}")]


@dataclass(frozen=True, slots=True)
class Named:
    """One facet seen from the top facet: `angle_deg` to it, and `external_deg` between the two faces.

    `family` is the one whose angle to the top's comes nearest, `expected_deg` that angle; it is `undetermined` when
    it is more than 3 sigma off, or another family is as likely within 3 sigma: `candidates` are all that agree.
    """

    number: int
    angle_deg: float
    external_deg: float
    sigma_deg: float
    family: str
    expected_deg: float
    candidates: tuple[str, ...]


def load_crystal(name: str, table: Path | None = None) -> Crystal:
    """From the package's table or one of your own. Raises `BadInput` for an unknown crystal or a table that is none."""
    try:
        entries = tomllib.loads((table or TABLE).read_text(encoding="utf-8"))
        if name.lower() not in entries:
            raise BadInput(f"crystal {name!r} is unknown; known: {', '.join(entries)} ({table or TABLE.name})")
        crystal = Crystal.model_validate(entries[name.lower()])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise BadInput(f"{table or TABLE.name} is no table of crystals: {error}") from error
    if any(family.hkl == (0, 0, 0) for family in crystal.families):
        raise BadInput(f"{name}: a family of indices 0 0 0 is no face")
    return crystal


def angles_between(top: Family, other: Family) -> list[float]:
    """Every angle, in degrees, that a face of one family can make with one of the other, below 90."""
    first = np.array(top.hkl) / math.hypot(*top.hkl)
    cosines = np.array([first @ np.array(hkl) / math.hypot(*hkl) for hkl in other.members()])
    found = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    return sorted(set(np.round(found[found < 89.999], 6).tolist()))


def name_facets(facets: Iterable[Facet], top: Facet, crystal: Crystal, top_family: str) -> list[Named]:
    """What each facet is when `top` is of `top_family`. One facet alone says little: see `fit_orientation`."""
    family = crystal.family(top_family)
    known = [(other.told, angle) for other in crystal.families for angle in angles_between(family, other)]
    return [_named(facet, top, known) for facet in facets if facet.number != top.number]


def top_facet(facets: Iterable[Facet]) -> Facet:
    """The largest one that is not steep. Raises `BadInput` where there is none."""
    level = [facet for facet in facets if facet.inclination_deg < 30.0]
    if not level:
        raise BadInput("no facet is level to 30° and could be the top: name it by its number, or smooth less")
    return max(level, key=lambda facet: facet.area_m2)


def _named(facet: Facet, top: Facet, known: list[tuple[str, float]]) -> Named:
    angle = math.degrees(math.acos(float(np.clip(facet.normal @ top.normal, -1.0, 1.0))))
    sigma = math.hypot(facet.sigma_deg, top.sigma_deg)
    allowed = AGREES_SIGMAS * math.hypot(sigma, MODEL_SIGMA_DEG)
    nearest = sorted(known, key=lambda one: abs(one[1] - angle))
    agreeing = tuple(dict.fromkeys(told for told, at in nearest if abs(at - angle) <= allowed))
    family = nearest[0][0] if len(agreeing) == 1 else "undetermined"
    return Named(facet.number, angle, 180.0 - angle, sigma, family, nearest[0][1], agreeing)
