"""The uncertainty budget of a measured figure: named standard uncertainties, their sum, and which of them to work on.

Each term is a standard uncertainty in the figure's own unit; they are independent and add in squares (JCGM 100:2008,
5.1.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.metrology.facet_angle import FacetAngle
from inference.metrology.facet_fit import FacetFit
from inference.metrology.facet_model import AT, PASSED, PIXEL_VARIANCE
from inference.metrology.facets import Facet
from inference.metrology.instrument_error import InstrumentError
from inference.metrology.kymograph import StepMotion
from inference.metrology.step_height import StepHeight

ADVICE = {
    "counting noise": "expose longer, fuse frames, or measure over a wider strip",
    "scatter of the heights": "expose longer, fuse frames, or measure over a wider strip",
    "model residual": "draw the line across straight faces only",
    "mixed edges": "measure in the images, with a line of two points across one edge, or with smaller pixels",
    "working distance": "calibrate it on a known sample: eclips calibrate --sample",
    "detector rotation": "calibrate it: eclips calibrate",
    "detector offset": "calibrate it: eclips calibrate",
    "gains": "calibrate them: eclips calibrate --pairs",
    "dark levels": "calibrate them with a blanked beam: eclips calibrate --dark",
    "modulation": "give the detector's radii, or calibrate",
    "emission law": "calibrate it on a known sample",
    "pixel size": "measure a grating of known pitch, and write its pixel size into the instrument file",
    "drift": "scan faster, or wait until the specimen rests",
}

Floats = NDArray[np.float64]
Direction = tuple[float, float]
"""Right and down in the image, of unit length."""


@dataclass(frozen=True, slots=True)
class Term:
    """A standard uncertainty in the figure's unit, and where it is from."""

    name: str
    sigma: float
    told: str


@dataclass(frozen=True, slots=True)
class Budget:
    """One figure with all that makes it uncertain. `method` made it: `images` or `height map`. `unit`: m, deg, m2 or
    m/s."""

    name: str
    value: float
    unit: str
    method: str
    terms: tuple[Term, ...]

    @property
    def sigma(self) -> float:
        """The combined standard uncertainty."""
        return math.sqrt(sum(term.sigma**2 for term in self.terms))

    @property
    def largest(self) -> Term:
        return max(self.terms, key=lambda term: term.sigma)

    @property
    def advice(self) -> str:
        """What makes the largest term smaller."""
        return ADVICE[self.largest.name]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Of the frame: what the instrument leaves open, the relative errors of its pixel and by drift while it was
    scanned, and where those two are from."""

    instrument: InstrumentError
    pixel_share: float
    pixel_told: str
    drift_share: float
    drift_told: str

    def scale(self, length: float, power: int = 1) -> list[Term]:
        """Of a length, or an area with `power` 2."""
        return [
            Term("pixel size", power * abs(length) * self.pixel_share, self.pixel_told),
            Term("drift", abs(length) * self.drift_share, self.drift_told),
        ]


def step_budget(step: StepHeight, direction: Direction, blur_px: float, pixel_m: float, at: Circumstances) -> Budget:
    """Of a step along a line in `direction`; `blur_px` of beam and pixel together."""
    flank = math.copysign(float(np.mean(np.abs(step.flank_slopes))), step.height_m)
    rise = flank - step.slope or 1e-12
    changes = at.instrument.along(np.array([flank, step.slope]), direction) @ np.array([1.0, -1.0]) / rise
    terms = [
        *_noise(step.sigma_m, step.reduced_chi2),
        *_terms(at, changes * step.height_m),
        *at.scale(step.height_m),
    ]
    if step.method != "images":
        mixed_m = 2.0 * pixel_m * mixed_px(rise, blur_px)
        terms.append(Term("mixed edges", mixed_m, "what beam and pixel mix at the edges makes it too low"))
    return Budget("step height", step.height_m, "m", step.method, tuple(terms))


def angle_budgets(fit: FacetFit, direction: Direction, at: Circumstances) -> list[Budget]:
    """Of the inclinations of all faces and of the external angles between them, as the images have them."""
    angles, found = fit.angle_deg.tolist(), []
    for place, (angle, sigma) in enumerate(zip(angles, fit.sigma_deg.tolist(), strict=True), start=1):
        noise = _noise(sigma, fit.reduced_chi2)
        found.append(_angle(f"inclination of face {place}", angle, "images", noise, [angle], direction, at))
    for place, sigma in enumerate(fit.external_sigma_deg.tolist(), start=1):
        name, value = f"external angle at edge {place}", float(fit.external_deg[place - 1])
        noise = _noise(sigma, fit.reduced_chi2)
        found.append(_angle(name, value, "images", noise, angles[place - 1 : place + 1], direction, at))
    return found


def edge_budgets(edges: Sequence[FacetAngle], direction: Direction, at: Circumstances) -> list[Budget]:
    """Of the external angles at the edges of a height profile."""
    found = []
    for place, edge in enumerate(edges, start=1):
        faces = [edge.before.inclination_deg, edge.behind.inclination_deg]
        noise, name = _noise(edge.sigma_deg, None), f"external angle at edge {place}"
        found.append(_angle(name, edge.external_deg, "height map", noise, faces, direction, at))
    return found


def facet_budgets(facet: Facet, at: Circumstances) -> list[Budget]:
    """Of its inclination and its area, both from the height map."""
    incline, azimuth = math.radians(facet.inclination_deg), math.radians(facet.azimuth_deg)
    slope = math.tan(incline)
    down = np.array([math.cos(azimuth), -math.sin(azimuth)])
    slopes = -slope * down
    others = slopes + at.instrument.of(slopes[:, None])[:, :, 0]
    # Not the change of the inclination itself, which has a kink at the level: that along the slope is its derivative.
    changes = np.degrees(np.arctan(-others @ down) - incline)
    terms = [*_noise(facet.sigma_inclination_deg, None), *_terms(at, changes)]
    terms.append(Term("drift", 0.5 * math.degrees(math.sin(2.0 * incline)) * at.drift_share, at.drift_told))
    area = (*_noise(facet.sigma_area_m2, None), *at.scale(facet.area_m2, 2))
    return [
        Budget(f"inclination of facet {facet.number}", facet.inclination_deg, "deg", "height map", tuple(terms)),
        Budget(f"area of facet {facet.number}", facet.area_m2, "m2", "height map", area),
    ]


def velocity_budget(
    motion: StepMotion, pixel_share: float, pixel_told: str, drift_sigma_m_per_s: float | None = None
) -> Budget:
    """Of a step's velocity along a line. Without `drift_sigma_m_per_s`, of the drift that was taken out along the line,
    what the specimen drifts is in the velocity itself."""
    value = motion.velocity_m_per_s
    scatter = Term("scatter of the heights", motion.sigma_m_per_s, "the step's places about a straight course")
    terms = [scatter, Term("pixel size", abs(value) * pixel_share, pixel_told)]
    if drift_sigma_m_per_s is not None:
        terms.append(Term("drift", drift_sigma_m_per_s, "of the drift that was taken out along the line"))
    return Budget("velocity", value, "m/s", "height map", tuple(terms))


def mixed_px(slope: float, blur_px: float) -> float:
    """By how much, in pixels, an edge to a face of this slope, seen by a beam and pixel of `blur_px`, comes out too low
    where a slope is taken from the mean of the normals on both sides."""
    upright = 1.0 / math.hypot(1.0, slope)
    seen = PASSED * upright / (1.0 - PASSED * (1.0 - upright))
    return abs(slope) * blur_px * float(np.sum(PASSED - seen)) * float(AT[1] - AT[0])


def blur_of(beam_sigma_px: float) -> float:
    return math.hypot(beam_sigma_px, math.sqrt(PIXEL_VARIANCE))


def _angle(
    name: str,
    value_deg: float,
    method: str,
    noise: list[Term],
    faces_deg: list[float],
    direction: Direction,
    at: Circumstances,
) -> Budget:
    """Of the inclination of one face, or the angle between two."""
    inclined = np.radians(faces_deg)
    per_slope = np.degrees(np.cos(inclined) ** 2) * np.array([-1.0, 1.0][-len(faces_deg) :])
    changes = at.instrument.along(np.tan(inclined), direction) @ per_slope
    stretched = float(np.tan(inclined) @ per_slope) * at.drift_share
    terms = (*noise, *_terms(at, changes), Term("drift", abs(stretched), at.drift_told))
    return Budget(name, value_deg, "deg", method, terms)


def _noise(sigma: float, reduced_chi2: float | None) -> list[Term]:
    """What was widened because of a chi² above 1 is the model's."""
    if reduced_chi2 is None:
        return [Term("scatter of the heights", sigma, "the heights' own scatter, correlation included")]
    counted = sigma / math.sqrt(max(reduced_chi2, 1.0))
    rest = math.sqrt(max(sigma**2 - counted**2, 0.0))
    return [
        Term("counting noise", counted, "electrons of the strip, beam width and rounding of edges fitted along"),
        Term("model residual", rest, f"what straight faces leave: chi² {reduced_chi2:.2f}"),
    ]


def _terms(at: Circumstances, changes: Floats) -> list[Term]:
    return [Term(name, sigma, told) for name, sigma, told in at.instrument.shares(changes)]
