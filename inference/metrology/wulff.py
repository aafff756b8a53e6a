"""The Wulff polyhedron of a cubic crystal: what shape the ratios of its faces make, and a picture of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.spatial import HalfspaceIntersection

from acquisition.errors import BadInput
from inference.metrology.crystal import Crystal, Miller

SAME = 1e-7
OVERSAMPLED = 2
FILL = 0.42
COLOURS = ((86, 138, 186), (214, 158, 76), (112, 168, 112), (178, 108, 148), (146, 146, 160))
LIGHT = np.array([-0.4, 0.5, 0.77])

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class WulffFace:
    """`corners` (n, 3) in order around the face, along the cube's axes, the distance of the first family being 1."""

    hkl: Miller
    family: str
    corners: Floats
    area: float


@dataclass(frozen=True, slots=True)
class Wulff:
    """Faces that show, and which share of the surface each family has; one whose ratio is too large shows none."""

    faces: tuple[WulffFace, ...]
    shares: dict[str, float]


def wulff_polyhedron(crystal: Crystal, ratios: dict[str, float] | None = None) -> Wulff:
    """`ratios`: other distances for some families, by indices such as `110`. Raises `BadInput` for a family that the
    crystal does not have, a ratio that is not above zero, or faces that close no space."""
    changed = {crystal.family(hkl).hkl: ratio for hkl, ratio in (ratios or {}).items()}
    if not all(0.0 < ratio <= 100.0 for ratio in changed.values()):
        raise BadInput(f"ratios {', '.join(f'{ratio:g}' for ratio in changed.values())}: above 0 and up to 100")
    planes = [
        (hkl, family, np.array(hkl) / math.hypot(*hkl), changed.get(family.hkl, family.ratio))
        for family in crystal.families
        for hkl in family.members()
    ]
    halves = np.array([[*normal, -distance] for _, _, normal, distance in planes])
    corners = np.unique(np.round(HalfspaceIntersection(halves, np.zeros(3)).intersections, 9), axis=0)
    if not np.isfinite(corners).all():
        raise BadInput(f"the faces of {crystal.name} close no space: give it one more family")
    faces = []
    for hkl, family, normal, distance in planes:
        on = corners[np.abs(corners @ normal - distance) < SAME * max(1.0, distance)]
        if len(on) >= 3 and (area := _area(ordered := _around(on, normal))) > SAME:
            faces.append(WulffFace(hkl, family.told, ordered, area))
    total = sum(face.area for face in faces)
    shares = {family.told: 0.0 for family in crystal.families}
    for face in faces:
        shares[face.family] += face.area / total
    return Wulff(tuple(faces), shares)


def wulff_picture(shape: Wulff, matrix: Floats | None = None, size_px: int = 320) -> Image.Image:
    """As seen by the viewer of the image: `matrix` (3, 3) takes the cube's axes to right, top and viewer, as an
    orientation does; without one the cube's third axis looks at the viewer."""
    turn = np.eye(3) if matrix is None else matrix
    side = OVERSAMPLED * size_px
    reach = max(float(np.linalg.norm(face.corners, axis=1).max()) for face in shape.faces)
    image = Image.new("RGB", (side, side), (20, 22, 26))
    draw, families = ImageDraw.Draw(image), list(shape.shares)
    for face in shape.faces:
        normal = turn @ np.array(face.hkl) / math.hypot(*face.hkl)
        if normal[2] <= SAME:  # a convex body hides its back
            continue
        seen = face.corners @ turn.T
        places = [(side * (0.5 + FILL * x / reach), side * (0.5 - FILL * y / reach)) for x, y, _ in seen]
        lit = 0.45 + 0.55 * max(0.0, float(normal @ LIGHT))
        colour = COLOURS[families.index(face.family) % len(COLOURS)]
        red, green, blue = (min(255, round(lit * part)) for part in colour)
        draw.polygon(places, fill=(red, green, blue), outline=(230, 232, 236), width=OVERSAMPLED)
    return image.resize((size_px, size_px), Image.Resampling.LANCZOS)


def _around(corners: Floats, normal: Floats) -> Floats:
    middle = corners.mean(axis=0)
    first = corners[0] - middle
    second = np.cross(normal, first)
    turns = np.arctan2((corners - middle) @ second, (corners - middle) @ first)
    return np.asarray(corners[np.argsort(turns)], np.float64)


def _area(corners: Floats) -> float:
    return 0.5 * float(np.linalg.norm(np.sum(np.cross(corners, np.roll(corners, -1, axis=0)), axis=0)))
