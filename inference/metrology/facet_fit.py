"""Facet angles and step heights straight from the electrons: the polygon whose images explain a strip best.

A height map has been filtered, and whatever filtered it errs alike along a facet, which no average takes away. The
images of a strip hold all that was measured of a straight facet, and what its edges mix into it is fitted too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.calibration import Calibration
from inference.metrology.facet_angle import SAME_SIGMAS, straight_parts
from inference.metrology.facet_model import (
    ALONG,
    BLUR,
    LEAST_BLUR_PX,
    LEAST_FACE_PX,
    ROUNDING,
    TURN,
    Solution,
    StraightFaces,
    Strip,
    strip_of,
)
from inference.metrology.height_map import HeightMap
from inference.metrology.profiles import line_profile

STEEPEST_TRUSTED_DEG = 53.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FacetFit:
    """Faces in their order along the line, K of them, and the K - 1 edges between.

    `angle_deg`: inclination along the direction across the edges, positive where the surface rises along the line;
    `sigma_deg` its standard error. `external_deg` (K - 1,): the angle between two faces on the outside, 180 for none,
    more where the surface turns down. `edges_px`: from the line's start. `azimuth_deg`: of the direction across the
    edges as seen in the image, 0 to the right, 90 to its top. `along_deg`: by how much the edges themselves rise.
    `step_px` (K - 2,): by how much each face between two edges lifts the surface over where the mean slope of both its
    neighbours would have taken it, a step's height where it lies between parallel terraces, in pixels, with
    `step_covariance_px2`. `blur_px`: Gaussian width of what edges show: beam, pixel and their own rounding, of which
    `rounding_px` is the last. `reduced_chi2`: about 1 where straight faces explain the strip; standard errors are
    widened by its root where it is above. `shadowed` warns that a face is steeper than detectors of common geometry
    see without shadows.
    """

    angle_deg: Floats
    sigma_deg: Floats
    edges_px: Floats
    edge_sigma_px: Floats
    external_deg: Floats
    external_sigma_deg: Floats
    step_px: Floats
    step_covariance_px2: Floats
    azimuth_deg: float
    along_deg: float
    blur_px: float
    rounding_px: float
    reduced_chi2: float
    pixels: int
    shadowed: bool

    @property
    def step_sigma_px(self) -> Floats:
        return np.asarray(np.sqrt(np.maximum(np.diag(self.step_covariance_px2), 0.0)))


def facets_along(
    images: NDArray[np.uint16],
    calibration: Calibration,
    surface: HeightMap,
    start_px: tuple[float, float],
    end_px: tuple[float, float],
    width_px: int,
    frames_held: float = 1.0,
) -> FacetFit:
    """`fit_facets` that begins with the straight parts of the frame's own height profile along the line, without the
    edges at which the images show no turn of three standard errors.

    Raises `BadInput` as that does, where the profile shows no edge, and for pixels that are not square.
    """
    pixel_m = surface.pixel_size_m
    if not math.isclose(pixel_m, surface.pixel_size_y_m, rel_tol=1e-3):
        raise BadInput(
            f"pixels of {pixel_m:g} m by {surface.pixel_size_y_m:g} m are not square, which the fit of facets takes: "
            "use the angles of the height profile"
        )
    parts = straight_parts(line_profile(surface, [start_px, end_px], width_px))
    if len(parts) < 2:
        raise BadInput("the height along this line shows no edge between straight faces: draw it across one")
    edges_px = np.array([part.from_m for part in parts[1:]]) / pixel_m
    slopes = np.tan(np.radians([part.inclination_deg for part in parts]))
    while True:
        try:
            found = fit_facets(images, calibration, start_px, end_px, width_px, edges_px, slopes, frames_held)
        except BadInput:
            if len(edges_px) == 1:
                raise
            weakest = int(np.argmin(np.abs(np.diff(slopes))))
        else:
            sure = np.abs(180.0 - found.external_deg) / found.external_sigma_deg
            weakest = int(np.argmin(sure))
            if sure[weakest] >= SAME_SIGMAS or len(edges_px) == 1:
                return found
            edges_px, slopes = found.edges_px, np.tan(np.radians(found.angle_deg))
        ends_px = np.concatenate([[0.0], edges_px, [math.dist(start_px, end_px)]])
        joined = np.average(slopes[weakest : weakest + 2], weights=np.diff(ends_px)[weakest : weakest + 2])
        edges_px = np.delete(edges_px, weakest)
        slopes = np.concatenate([slopes[:weakest], [joined], slopes[weakest + 2 :]])


def fit_facets(
    images: NDArray[np.uint16],
    calibration: Calibration,
    start_px: tuple[float, float],
    end_px: tuple[float, float],
    width_px: float,
    edges_px: Floats,
    slopes: Floats,
    frames_held: float = 1.0,
) -> FacetFit:
    """Fit straight faces to the strip of `width_px` around the line from `start_px` to `end_px`, each (x, y).

    `images` (S, H, W) counts, the mean of `frames_held` frames. The search begins with edges at `edges_px` (K - 1,) and
    faces that rise by `slopes` (K,) along the line. Maximum likelihood (Poisson noise) in the linear model of
    `inference.calibration`, normals averaged over pixel and beam, edges round by a fitted amount. Assumes that each
    face has one yield, that edges are straight and parallel, and no shadows. Raises `BadInput` for a strip outside the
    frame, faces that are narrower than 2 pixels, and a fit that doesn't settle.
    """
    strip = strip_of(images, calibration, start_px, end_px, width_px)
    return fit_strip(strip, calibration, np.asarray(edges_px, np.float64), np.asarray(slopes, np.float64), frames_held)


def fit_strip(
    strip: Strip, calibration: Calibration, edges: Floats, slopes: Floats, frames_held: float = 1.0
) -> FacetFit:
    """`fit_facets` on pixels that were picked out already."""
    if len(slopes) != len(edges) + 1:
        raise BadInput(f"{len(edges)} edges have {len(edges) + 1} faces between them; {len(slopes)} slopes were given")
    widths = np.diff(np.concatenate([[0.0], edges, [strip.length_px]]))
    if widths.min() < LEAST_FACE_PX:
        raise BadInput(
            f"a face is {widths.min():.3g} pixels wide; it takes {LEAST_FACE_PX:g}: leave out an edge, or magnify more"
        )
    model = StraightFaces(strip, calibration, len(slopes), frames_held)
    told = _told(model, model.solve(edges, slopes))
    ends = np.concatenate([[0.0], told.edges_px, [strip.length_px]])
    if np.diff(ends).min() < 0.5 * LEAST_FACE_PX:
        raise BadInput("an edge of the fit ran out of the line, or into the next: draw it across edges that show")
    return told


def _told(model: StraightFaces, found: Solution) -> FacetFit:
    values, covariance = found.values, found.covariance * max(found.reduced_chi2, 1.0)
    slopes, edges = values[model.slopes], values[model.edges]
    angles = np.degrees(np.arctan(slopes))
    per_angle = np.zeros((model.faces, values.size))
    per_angle[:, model.slopes] = np.diag(np.degrees(1.0 / (1.0 + slopes**2)))
    per_external = -np.diff(per_angle, axis=0)
    lift, widths = slopes[1:-1] - 0.5 * (slopes[:-2] + slopes[2:]), np.diff(edges)
    per_step = np.zeros((model.faces - 2, values.size))
    for place, (rise, width) in enumerate(zip(lift, widths, strict=True)):
        edge, slope = model.edges.start + place, model.slopes.start + place
        per_step[place, edge : edge + 2] = -rise, rise
        per_step[place, slope : slope + 3] = -0.5 * width, width, -0.5 * width

    per_edge = np.eye(values.size)[model.edges]

    def sigma(per: Floats) -> Floats:
        return np.asarray(np.sqrt(np.maximum(np.diag(per @ covariance @ per.T), 0.0)))

    right, down = (float(np.mean(part)) for part in model.strip.direction)
    return FacetFit(
        angle_deg=angles,
        sigma_deg=sigma(per_angle),
        edges_px=edges,
        edge_sigma_px=sigma(per_edge),
        external_deg=180.0 - np.diff(angles),
        external_sigma_deg=sigma(per_external),
        step_px=lift * widths,
        step_covariance_px2=per_step @ covariance @ per_step.T,
        azimuth_deg=math.degrees(math.atan2(-down, right) - values[TURN]) % 360.0,
        along_deg=math.degrees(math.atan(values[ALONG])),
        blur_px=max(float(values[BLUR]), LEAST_BLUR_PX),
        rounding_px=float(values[ROUNDING]),
        reduced_chi2=found.reduced_chi2,
        pixels=int(model.strip.pixels.sum()),
        shadowed=bool(np.abs(angles).max() > STEEPEST_TRUSTED_DEG),
    )
