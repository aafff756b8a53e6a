"""The height of a step from the electrons themselves: terraces and flanks fitted to the images of a strip.

A height map sums up slopes of pixels that see terrace and flank at once, and so comes out too low. What was fitted to
the images knows of the mixture (`facet_model`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.calibration import Calibration
from inference.metrology.edges import fit_edge
from inference.metrology.facet_fit import STEEPEST_TRUSTED_DEG, FacetFit, fit_facets
from inference.metrology.facet_model import LEAST_FACE_PX, PIXEL_VARIANCE
from inference.metrology.height_map import HeightMap
from inference.metrology.profiles import line_profile
from inference.metrology.step_height import StepHeight

MOST_CHI2 = 1.5
WIDER = (1.0, 2.0)
"""A flank that begins too narrow can miss the step: a wider one is tried where the first does not explain it."""

Floats = NDArray[np.float64]
Point = tuple[float, float]


def step_in_images(
    images: NDArray[np.uint16],
    calibration: Calibration,
    surface: HeightMap,
    start_px: Point,
    end_px: Point,
    width_px: int,
    begun: StepHeight,
    frames_held: float = 1.0,
) -> StepHeight:
    """The step, groove or ridge that `begun` found on the heights along the same line, by its flanks in `images`.

    The height is that of the flank over the mean slope of the terraces beside it; of a groove or ridge, the mean of
    both flanks. Raises `BadInput` as `fit_facets` does, for pixels that are not square, and where straight terraces and
    flanks don't explain the images (reduced chi² above 1.5) or lie in shadow.
    """
    pixel_m = surface.pixel_size_m
    if not math.isclose(pixel_m, surface.pixel_size_y_m, rel_tol=1e-3):
        raise BadInput(f"pixels of {pixel_m:g} m by {surface.pixel_size_y_m:g} m are not square, which the fit takes")
    found: FacetFit | None = None
    refused: BadInput | None = None
    for wider in WIDER:
        edges_px, slopes = _begin(calibration, surface, start_px, end_px, width_px, begun, wider)
        try:
            one = fit_facets(images, calibration, start_px, end_px, width_px, edges_px, slopes, frames_held)
        except BadInput as error:
            refused = error
            continue
        if found is None or one.reduced_chi2 < found.reduced_chi2:
            found = one
        if found.reduced_chi2 < MOST_CHI2:
            break
    if found is None:
        raise refused or BadInput("no step to begin with")
    _check(found, begun)
    return _told(found, pixel_m, pixel_m * math.dist(start_px, end_px), begun)


def _begin(
    calibration: Calibration,
    surface: HeightMap,
    start_px: Point,
    end_px: Point,
    width_px: int,
    begun: StepHeight,
    wider: float,
) -> tuple[Floats, Floats]:
    """Edges in pixels and slopes along the line: as wide as the profile's rise is wider than the beam alone."""
    profile = line_profile(surface, [start_px, end_px], width_px)
    beam_px = math.hypot(float(calibration.beam_sigma_px), math.sqrt(PIXEL_VARIANCE))
    edges: list[float] = []
    slopes = [begun.slope]
    for number, at_m in enumerate(begun.edges_m):
        beside_m = abs(begun.edges_m[-1] - begun.edges_m[0]) if len(begun.edges_m) > 1 else math.inf
        near = np.abs(profile.distance_m - at_m) <= 0.5 * beside_m
        blur_px = fit_edge(profile.distance_m[near] - profile.distance_m[near][0], profile.height_m[near]).blur_m
        blur_px /= profile.pixel_m
        flank_px = max(wider * math.sqrt(max(12.0 * (blur_px**2 - beam_px**2), 0.0)), 1.05 * LEAST_FACE_PX)
        at_px = at_m / profile.pixel_m
        edges += [at_px - 0.5 * flank_px, at_px + 0.5 * flank_px]
        rise = (-1.0) ** number * begun.height_m / surface.pixel_size_m
        slopes += [begun.slope + rise / flank_px, begun.slope]
    return np.array(edges), np.array(slopes)


def _check(found: FacetFit, begun: StepHeight) -> None:
    if found.reduced_chi2 > MOST_CHI2:
        raise BadInput(
            f"straight terraces and flanks don't explain the images (chi² {found.reduced_chi2:.2f}): draw the line "
            "across one edge, or one flat groove or ridge, and end it before the next"
        )
    steepest_deg = float(np.abs(found.angle_deg).max())
    if found.shadowed:
        raise BadInput(
            f"a flank of {steepest_deg:.0f}° may lie in shadow, above {STEEPEST_TRUSTED_DEG:g}°, which the fit doesn't "
            "know"
        )
    if found.step_px[0] * begun.height_m < 0.0:
        raise BadInput("the images and the heights don't agree on whether it goes up or down there")


def _told(found: FacetFit, pixel_m: float, length_m: float, begun: StepHeight) -> StepHeight:
    flanks = np.arange(0, len(found.step_px), 2)
    share = np.zeros(len(found.step_px))
    share[flanks] = (-1.0) ** np.arange(len(flanks)) / len(flanks)
    sigma_px = math.sqrt(max(float(share @ found.step_covariance_px2 @ share), 0.0))
    slopes = np.tan(np.radians(found.angle_deg))
    ends_m = (0.0, *(pixel_m * found.edges_px).tolist(), length_m)
    flats = list(zip(ends_m[::2], ends_m[1::2], strict=True))
    return replace(
        begun,
        height_m=pixel_m * float(share @ found.step_px),
        sigma_m=pixel_m * sigma_px,
        sigma_from="counting noise",
        rule="straight faces",
        edges_m=tuple(0.5 * (flat[1] + following[0]) for flat, following in pairwise(flats)),
        outer_parts_m=(flats[0], *flats[2:]),
        inner_parts_m=(flats[1],),
        slope=float(np.mean(slopes[::2])),
        flank_slopes=tuple(float(slope) for slope in slopes[1::2]),
        method="images",
        reduced_chi2=found.reduced_chi2,
    )
