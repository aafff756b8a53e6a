"""The height of steps of any course from the electrons: terrace, flank and terrace fitted to all pixels beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from acquisition.errors import BadInput
from inference.calibration import Calibration
from inference.metrology.facet_fit import STEEPEST_TRUSTED_DEG, FacetFit, fit_strip
from inference.metrology.facet_model import LEAST_FACE_PX, Strip
from inference.metrology.spirals import NEAR_SPACINGS, Spiral
from inference.metrology.steps import Steps

MOST_PIXELS = 4000
REACH_SHARE, MOST_REACH_PX = 0.4, 24.0
LEAST_REACH_PX = 5.0
FLANK_SLOPES = (0.5, 1.0)
BENT = 0.6
"""Beside a bend that turns by more than this, in radians, over as far as pixels are taken, which step is the nearest
says no longer where they lie: corners are left out."""
SMALLEST_STRIP = 200
MOST_CHI2 = 2.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedSteps:
    """`height_m` with its standard error, by counting noise, widened where straight flanks don't explain the images."""

    height_m: float
    sigma_m: float
    flank_deg: float
    reduced_chi2: float


def fit_steps(
    steps: Steps,
    images: NDArray[np.uint16],
    calibration: Calibration,
    near_px: tuple[float, float] | None = None,
    within_m: float = math.inf,
) -> FittedSteps:
    """One height and one flank for all steps, or those `within_m` of the place `near_px` (row, column).

    Raises `BadInput` for pixels that are not square, where too few pixels lie beside steps that are straight enough and
    far enough apart, where one flank does not explain the images, and for flanks that may lie in shadow.
    """
    pixel_m = steps.pixel_m[0]
    if not math.isclose(*steps.pixel_m, rel_tol=1e-3):
        raise BadInput("pixels are not square, which the fit of steps takes")
    if not math.isfinite(steps.height_m) or steps.height_m <= 0.0:
        raise BadInput("no steps to begin with")
    spacing_px = steps.spacing_m / pixel_m if math.isfinite(steps.spacing_m) else math.inf
    reach_px = min(REACH_SHARE * spacing_px, MOST_REACH_PX)
    if reach_px < LEAST_REACH_PX:
        raise BadInput(f"steps {spacing_px:.3g} pixels apart leave no terraces to fit: magnify more")
    strip = _beside(steps, images, calibration, reach_px, near_px, within_m)
    height_px = steps.height_m / pixel_m
    found: FacetFit | None = None
    for slope in FLANK_SLOPES:
        half_px = 0.5 * max(height_px / slope, 1.05 * LEAST_FACE_PX)
        if half_px > reach_px - LEAST_FACE_PX:
            continue
        edges = np.array([reach_px - half_px, reach_px + half_px])
        try:
            one = fit_strip(strip, calibration, edges, np.array([0.0, -0.5 * height_px / half_px, 0.0]))
        except BadInput:
            continue
        if found is None or one.reduced_chi2 < found.reduced_chi2:
            found = one
    if found is None or found.reduced_chi2 > MOST_CHI2:
        raise BadInput("one straight flank doesn't explain the images beside these steps")
    if found.shadowed:
        raise BadInput(f"flanks above {STEEPEST_TRUSTED_DEG:g}° may lie in shadow, which the fit doesn't know")
    sigma_m = pixel_m * float(found.step_sigma_px[0])
    return FittedSteps(-pixel_m * float(found.step_px[0]), sigma_m, -float(found.angle_deg[1]), found.reduced_chi2)


def fit_pitches(
    spirals: Sequence[Spiral], steps: Steps, images: NDArray[np.uint16], calibration: Calibration
) -> list[Spiral]:
    """The spirals with the pitch that the images tell; as they were where those do not."""
    told = []
    for spiral in spirals:
        try:
            found = fit_steps(steps, images, calibration, spiral.place_px, NEAR_SPACINGS * steps.spacing_m)
        except BadInput:
            told.append(spiral)
        else:
            told.append(replace(spiral, pitch_m=found.height_m, pitch_error_m=found.sigma_m, pitch_from="images"))
    return told


def _beside(
    steps: Steps,
    images: NDArray[np.uint16],
    calibration: Calibration,
    reach_px: float,
    near_px: tuple[float, float] | None,
    within_m: float,
) -> Strip:
    """Pixels up to `reach_px` from the nearest step, their distance counted downhill from `reach_px` above it."""
    lines = steps.lines
    points, downhill = np.concatenate([line.places_px for line in lines]), steps.downhill()
    bend_px = np.concatenate([line.curvature_per_m for line in lines]) * steps.pixel_m[0]
    places = np.argwhere(~(images >= calibration.saturation_counts).any(axis=0)).astype(np.float64)
    if near_px is not None:
        places = places[np.hypot(*(places - near_px).T) * steps.pixel_m[0] < within_m]
    found = cKDTree(points).query(places, distance_upper_bound=1.5 * reach_px)
    away, nearest = np.asarray(found[0]), np.asarray(found[1])
    kept = np.isfinite(away)
    places, nearest = places[kept], nearest[kept]
    from_step = places - points[nearest]
    down = np.sum(from_step * downhill[nearest], axis=1)
    aside = from_step[:, 1] * downhill[nearest, 0] - from_step[:, 0] * downhill[nearest, 1]
    straight = np.abs(bend_px[nearest]) * reach_px < BENT
    inside = straight & (np.abs(down) < reach_px) & (np.abs(aside) < 1.0)
    chosen = np.flatnonzero(inside)[:: max(1, math.ceil(np.count_nonzero(inside) / MOST_PIXELS))]
    if len(chosen) < SMALLEST_STRIP:
        raise BadInput(f"{len(chosen)} pixels lie beside steps that are straight enough: it takes {SMALLEST_STRIP}")
    rows, columns = places[chosen].T.astype(int)
    dark, gain = calibration.dark_counts[:, None], calibration.gain_counts_per_electron[:, None]
    electrons = (images[:, rows, columns].astype(np.float64) - dark) / gain
    direction = downhill[nearest[chosen]].T[::-1]
    along = down[chosen] + reach_px
    return Strip(along, np.zeros(len(chosen)), electrons, np.ones(len(chosen)), direction, 2.0 * reach_px)
