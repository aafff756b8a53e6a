"""One case of the fixed test set in front of its judges: figures of every method, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.accuracy import compare, normals
from inference.calibration import Calibration
from inference.training.frames import calibration_of
from inference.training.held_out import Case, Scene, exposures, held_out_scenes
from service.benchmarks.facets import fitted_angles_deg
from service.benchmarks.invented import Detail, detail
from service.benchmarks.measured import tell_progress
from service.benchmarks.model_sets import ModelSet, Slopes
from service.benchmarks.peers import frankot_chellappa, irls, oracle_smoothed, principal_components, weighted
from service.benchmarks.theory import (
    OCCLUDED_DEG,
    Coverage,
    coverage,
    drift,
    facet_angles_deg,
    inner_slope_deg,
    occlusion_deg,
    slope_variance,
    transfer,
    wiener_bound_deg,
    wiener_filtered,
)

CLASSICAL = "classical"
FITTED = "fit to the images"
"""Of facets alone; makes no height."""
SMOOTHED, FC, IRLS, WEIGHTED, PCA, WIENER = (
    "oracle smoothing",
    "Frankot-Chellappa",
    "IRLS",
    "weighted",
    "PCA",
    "Wiener filter",
)
SPECIAL = ("facet", "chirp", "known_spectrum")
"""What the set has for one question each; medians over the families leave them out."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one height: rms angle error of its normals, rms height error in pixels and against the truth's deviation, both
    with the plane removed, and the power of its drift in square pixels."""

    slope_deg: float
    height_px: float
    height_over_std: float
    drift: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found for one case. `figures` by method, `coverage` and `detail` by model
    set; the rest where the case asks for it.

    Where the surface's spectrum is known a Wiener filter is among the methods, and `inner_deg` are slope errors away
    from the border: `bound_deg` is theirs.
    """

    name: str
    family: str
    dose: float
    beam_px: float
    occluded: bool
    known: Mapping[str, float]
    figures: Mapping[str, Figures]
    coverage: Mapping[str, Coverage]
    detail: Mapping[str, Detail]
    facets_deg: Mapping[str, Floats] = field(default_factory=dict)
    transfer: Mapping[str, complex] = field(default_factory=dict)
    inner_deg: Mapping[str, float] = field(default_factory=dict)
    bound_deg: float | None = None

    def ratio(self, method: str, to: str = CLASSICAL) -> float:
        """Of the slope errors."""
        return self.figures[method].slope_deg / self.figures[to].slope_deg


@dataclass(frozen=True, slots=True)
class Seen:
    """A case with all that was computed on it, while it lasts."""

    case: Case
    scene: Scene
    calibration: Calibration
    truth: Floats
    occluded: bool
    slopes: Mapping[str, Slopes]
    heights: Mapping[str, Floats]

    def slope_error_deg(self, method: str) -> Floats:
        """(H-1, W-1) angle between the normals of a method's height and of the truth."""
        cosine = (normals(self.heights[method], 1.0) * normals(self.truth, 1.0)).sum(axis=0)
        return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))), np.float64)


def seen_cases(
    data: Path | None, quick: bool, sets: Mapping[str, ModelSet], wanted: Callable[[Scene], bool] = lambda scene: True
) -> Iterator[Seen]:
    """Every case of the wanted scenes with slopes and heights of the sets (`CLASSICAL` among them). Each scene is
    rendered once and let go. With `quick` nothing is called occluded: that needs a frame without noise."""
    classical = sets[CLASSICAL]
    for scene in held_out_scenes(data, quick):
        if not wanted(scene):
            continue
        tell_progress(scene.name)
        occluded: bool | None = None if scene.family not in SPECIAL and not quick else False
        for case in exposures(scene):
            calibration = calibration_of(case.sample)
            if occluded is None:
                occluded = occlusion_deg(scene, classical, calibration) > OCCLUDED_DEG
            answers = {name: model.answer(case.sample.images, calibration) for name, model in sets.items()}
            yield Seen(
                case,
                scene,
                calibration,
                case.sample.height.astype(np.float64),
                occluded,
                {name: slopes for name, (slopes, _) in answers.items()},
                {name: height for name, (_, height) in answers.items()},
            )


def judge(seen: Seen, classical: ModelSet, quick: bool) -> tuple[Verdict, Seen]:
    """The verdict, and what was seen with the peers' heights added. `quick` leaves out the peers that take long."""
    sample, truth, family = seen.case.sample, seen.truth, seen.scene.family
    raw = seen.slopes[CLASSICAL]
    azimuths_rad = np.radians([one.centre_azimuth_deg for one in sample.instrument.detector.segments])
    turned_rad = azimuths_rad + np.radians(sample.instrument.detector.rotation_deg)
    heights = dict(seen.heights)
    heights[SMOOTHED], _ = oracle_smoothed(
        sample.images, seen.calibration, classical, lambda height: compare(height, truth, 1.0).slope_error_deg
    )
    heights[FC] = frankot_chellappa(raw)
    heights[PCA] = principal_components(sample.images, seen.calibration.dark_counts, turned_rad, truth)
    if not quick:
        heights[IRLS], heights[WEIGHTED] = irls(raw), weighted(raw)
    facet, chirp, spectrum = (family == special for special in SPECIAL)
    bound_deg, inner_deg = None, {}
    if spectrum:
        variance = slope_variance(truth, sample.instrument)
        bound_deg = wiener_bound_deg(seen.case.known, variance)
        heights[WIENER] = wiener_filtered(heights[CLASSICAL], seen.case.known, variance)
        inner_deg = {name: inner_slope_deg(height, truth) for name, height in heights.items()}
    verdict = Verdict(
        seen.case.name,
        family,
        sample.dose,
        seen.scene.beam_px,
        seen.occluded,
        seen.case.known,
        {name: figures(height, truth) for name, height in heights.items()},
        {name: _coverage(slopes, truth) for name, slopes in seen.slopes.items()},
        {name: detail(slopes, seen.heights[name], truth) for name, slopes in seen.slopes.items()},
        _facets_deg(seen, heights) if facet else {},
        {name: transfer(heights[name], truth, seen.case.known) for name in heights if chirp},
        inner_deg,
        bound_deg,
    )
    return verdict, Seen(seen.case, seen.scene, seen.calibration, truth, seen.occluded, seen.slopes, heights)


def figures(height: Floats, truth: Floats) -> Figures:
    """Both (H, W) in pixels."""
    found = compare(height, truth, 1.0)
    return Figures(found.slope_error_deg, found.height_error_m, found.height_error_over_std, drift(height - truth))


def model_sets(names: Sequence[str]) -> dict[str, ModelSet]:
    """The named sets and classical, which every judge needs. Raises `BadInput` for a set that is not installed."""
    return {name: ModelSet(name) for name in dict.fromkeys([CLASSICAL, *names])}


def _facets_deg(seen: Seen, heights: Mapping[str, Floats]) -> dict[str, Floats]:
    found = {name: facet_angles_deg(height, seen.case.known) for name, height in heights.items()}
    found[FITTED] = fitted_angles_deg(seen.case.sample.images, seen.calibration, heights[CLASSICAL], seen.case.known)
    return found


def _coverage(slopes: Slopes, truth: Floats) -> Coverage:
    """Of p and q together, between pixels of which none is rejected."""
    kept = slopes.rejected == 0
    on_x, on_y = kept[:, 1:] & kept[:, :-1], kept[1:] & kept[:-1]
    errors = (slopes.p - np.diff(truth, axis=1))[on_x], (slopes.q - np.diff(truth, axis=0))[on_y]
    sigmas = slopes.sigma_p[on_x], slopes.sigma_q[on_y]
    return coverage(np.concatenate(errors), np.concatenate(sigmas))
