"""Step height in the manner of ISO 5436-1: parallel lines fitted to stated parts of the flanks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.metrology.edges import best_groove, fit_edge
from inference.metrology.profiles import FEWEST_ACROSS, Profile
from inference.metrology.scatter import scatter_of, sigma_of_mean

GAP_BLURS, LEAST_GAP_BLURS = 3.0, 2.0
GAP_PX = 3.0
FEWEST_POINTS = 3
GROOVE_LEAVES = 0.5
"""A profile is taken for a groove or ridge where that leaves at most this share of what one step leaves."""

Floats = NDArray[np.float64]
Part = tuple[float, float]


@dataclass(frozen=True, slots=True)
class StepHeight:
    """`height_m`: of what comes behind the first edge over what lies before it, negative for a fall or a groove.

    `method`: `images` or `height map`. `rule`: `ISO 5436-1 W/3`, `single edge` or, in the images, `straight faces`.
    `outer_parts_m`, `inner_parts_m`: the distances that were used, before or around, and behind or within. `slope` is
    that of both lines, `flank_slopes` those of the profile at the edges, or of the faces between. `sigma_m`: the larger
    of two standard uncertainties, from the scatter about the lines along the profile and from that of the height over
    the rows across it (4 or more), each with the correlation of neighbours; in the images that of the counts;
    `sigma_from` says which. `residual_m`: rms of the heights about the lines. `reduced_chi2`: of the images.
    """

    height_m: float
    sigma_m: float
    sigma_from: str
    rule: str
    edges_m: tuple[float, ...]
    outer_parts_m: tuple[Part, ...]
    inner_parts_m: tuple[Part, ...]
    slope: float
    residual_m: float
    flank_slopes: tuple[float, ...]
    method: str = "height map"
    reduced_chi2: float | None = None


def step_height(profile: Profile, edges_m: tuple[float, ...] = (), flank_m: float | None = None) -> StepHeight:
    """By the rule for a groove or ridge with two edges, for a single step with one; without any they are found, and
    the rule is that which leaves clearly less. `flank_m`: use at most so much of each flank of a single step.
    Raises `BadInput` where too little of a flank is left to fit."""
    if len(edges_m) == 2:
        return groove_height(profile, edges_m[0], edges_m[1])
    if len(edges_m) > 2:
        raise BadInput(f"{len(edges_m)} edges were given: one for a step, two for a groove or ridge")
    if not edges_m and flank_m is None and len(profile.distance_m) >= 5 * FEWEST_ACROSS:
        first, last, share = best_groove(profile.distance_m, profile.height_m)
        if share < GROOVE_LEAVES and _has_parts(profile, first, last):
            return groove_height(profile, first, last)
    return single_step_height(profile, edges_m[0] if edges_m else None, flank_m)


def groove_height(profile: Profile, first_m: float, last_m: float) -> StepHeight:
    """ISO 5436-1, type A1: of a groove or ridge of width W, its middle third and, on both sides, what lies from W/3 to
    W away from its edges (less where the profile ends before), fitted by parallel lines."""
    first_m, last_m = sorted((first_m, last_m))
    outer, inner = _thirds(profile, first_m, last_m)
    return _fitted(profile, outer, inner, (first_m, last_m), "ISO 5436-1 W/3")


def single_step_height(profile: Profile, edge_m: float | None = None, flank_m: float | None = None) -> StepHeight:
    """Parallel lines on both flanks, from three times the edge's own blur (3 points at least) to `flank_m` or the
    profile's end. Where that takes more than half of a flank it is less, but never below twice the blur."""
    edge = fit_edge(profile.distance_m, profile.height_m, edge_m)
    at_m = edge.at_m if edge_m is None else edge_m
    shorter_m = min(at_m, float(profile.distance_m[-1]) - at_m)
    blurs_m = min(GAP_BLURS * edge.blur_m, max(0.5 * shorter_m, LEAST_GAP_BLURS * edge.blur_m))
    gap_m = max(GAP_PX * profile.pixel_m, blurs_m)
    far_m = math.inf if flank_m is None else gap_m + flank_m
    before = (max(0.0, at_m - far_m), at_m - gap_m)
    behind = (at_m + gap_m, min(float(profile.distance_m[-1]), at_m + far_m))
    return _fitted(profile, (before,), (behind,), (at_m,), "single edge")


def _fitted(
    profile: Profile, outer: tuple[Part, ...], inner: tuple[Part, ...], edges_m: tuple[float, ...], rule: str
) -> StepHeight:
    within = np.any([profile.part(*part) for part in inner], axis=0)
    for part in (*outer, *inner):
        if np.count_nonzero(profile.part(*part)) < FEWEST_POINTS:
            raise BadInput(
                f"{rule}: from {part[0]:.3g} m to {part[1]:.3g} m the profile has fewer than {FEWEST_POINTS} points to "
                f"fit, edges at {', '.join(f'{edge:.3g} m' for edge in edges_m)}: draw it longer or state the edges"
            )
    used = within | np.any([profile.part(*part) for part in outer], axis=0)
    x = (profile.distance_m[used] - profile.distance_m[used].mean()) / float(np.ptp(profile.distance_m[used]))
    design = np.column_stack([np.ones(len(x)), x, within[used].astype(np.float64)])
    estimator = np.linalg.pinv(design)
    at = estimator @ profile.height_m[used]
    residuals = profile.height_m[used] - design @ at
    sigma_m, source = scatter_of(residuals, design).sigma_of(estimator[2]), "scatter along the lines"
    if len(profile.strips_m) >= FEWEST_ACROSS:
        across_m = sigma_of_mean(profile.strips_m[:, used] @ estimator[2])
        sigma_m, source = max((sigma_m, source), (across_m, "scatter from row to row"))
    slope = float(at[1]) / float(np.ptp(profile.distance_m[used]))
    residual_m = float(np.sqrt(np.mean(residuals**2)))
    steepest = np.gradient(profile.height_m, profile.distance_m)
    flanks = tuple(float(np.interp(edge_m, profile.distance_m, steepest)) for edge_m in edges_m)
    return StepHeight(float(at[2]), sigma_m, source, rule, edges_m, outer, inner, slope, residual_m, flanks)


def _thirds(profile: Profile, first_m: float, last_m: float) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    third_m, end_m = (last_m - first_m) / 3.0, float(profile.distance_m[-1])
    before = (max(0.0, first_m - 3.0 * third_m), first_m - third_m)
    behind = (last_m + third_m, min(end_m, last_m + 3.0 * third_m))
    return (before, behind), ((first_m + third_m, last_m - third_m),)


def _has_parts(profile: Profile, first_m: float, last_m: float) -> bool:
    outer, inner = _thirds(profile, first_m, last_m)
    return all(np.count_nonzero(profile.part(*part)) >= FEWEST_POINTS for part in (*outer, *inner))
