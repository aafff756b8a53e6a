"""What the command line and REST measure on a height map: everything about a line, about facets, through time; and as
trees for JSON, in which what is not known is null."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.budget import (
    Budget,
    Circumstances,
    angle_budgets,
    blur_of,
    edge_budgets,
    facet_budgets,
    step_budget,
)
from inference.metrology.crystal import Crystal, Named, load_crystal, name_facets, top_facet
from inference.metrology.directions import Directions, in_plane_directions
from inference.metrology.facet_angle import SAME_SIGMAS, FacetAngle, facet_angles
from inference.metrology.facet_fit import FacetFit, facets_along
from inference.metrology.facets import Facet, Facets, find_facets
from inference.metrology.height_map import HeightMap, frame_map
from inference.metrology.kymograph import Kymograph, step_motion
from inference.metrology.orientation import Orientation, fit_orientation
from inference.metrology.profiles import Points, Profile, line_profile
from inference.metrology.step_fit import step_in_images
from inference.metrology.step_height import StepHeight, step_height
from inference.metrology.wulff import Wulff, wulff_polyhedron
from service.budgets import budget_trees, circumstances

MOST_FACETS, MOST_BUDGETS = 200, 12


@dataclass(frozen=True, slots=True, eq=False)
class LineMeasures:
    """A profile with the step and the edges on it, and straight faces fitted to the images. `step` is from the images
    where these tell (its `method` says so), `step_on_map` from the heights alone; `edges` are the profile's. `budgets`:
    the figures with all that makes them uncertain. `reasons`: why one of them (`step`, `step_in_images`, `facet`,
    `fit`) could not be had."""

    profile: Profile
    step: StepHeight | None
    edges: tuple[FacetAngle, ...]
    reasons: dict[str, str]
    step_on_map: StepHeight | None = None
    fit: FacetFit | None = None
    budgets: tuple[Budget, ...] = ()

    @property
    def facet(self) -> FacetAngle | None:
        """The sharpest edge. A cliff between parallel terraces has no face beside it that a profile could tell."""
        return min(self.edges, key=lambda edge: edge.external_deg, default=None)

    def tree(self) -> dict[str, Any]:
        one = self.profile
        return {
            "distances_m": one.distance_m.tolist(),
            "heights_m": one.height_m.tolist(),
            "sigma_m": plain(one.sigma_m),
            "pixel_size_m": one.pixel_m,
            "corners_m": list(one.corners_m),
            "step": plain(self.step),
            "step_on_map": plain(self.step_on_map),
            "facet": plain(self.facet),
            "edges": plain(self.edges),
            "fit": plain(self.fit),
            "budgets": budget_trees(self.budgets),
            "reasons": self.reasons,
        }


@dataclass(frozen=True, slots=True, eq=False)
class FacetMeasures:
    """Facets, their names as seen from `top`, the crystal's orientation, in-plane directions, the Wulff polyhedron.
    `budgets` of the largest facets. `reasons`: why one of them (`names`, `orientation`, `directions`) could not be
    had."""

    found: Facets
    crystal: Crystal
    top: Facet | None
    names: tuple[Named, ...]
    orientation: Orientation | None
    directions: Directions | None
    wulff: Wulff
    reasons: dict[str, str]
    budgets: tuple[Budget, ...] = ()

    def tree(self) -> dict[str, Any]:
        orientation = None if self.orientation is None else {"determined": self.orientation.determined}
        return {
            "smoothing_px": self.found.smoothing_px,
            "crystal": self.crystal.name,
            "facets": plain(self.found.facets[:MOST_FACETS]),
            "facets_in_all": len(self.found.facets),
            "top": None if self.top is None else self.top.number,
            "names": plain(self.names[:MOST_FACETS]),
            "orientation": orientation and {**orientation, **plain(self.orientation)},
            "directions": plain(self.directions),
            "wulff": plain(self.wulff),
            "budgets": budget_trees(self.budgets),
            "reasons": self.reasons,
        }


def measure_line(surface: HeightMap, points_px: Points, width_px: int = 1) -> LineMeasures:
    """Raises `BadInput` as `line_profile` does; a step or edge that is not there is a reason, not an error."""
    profile, reasons = line_profile(surface, points_px, width_px), {}
    step: StepHeight | None = None
    edges: tuple[FacetAngle, ...] = ()
    try:
        step = step_height(profile)
    except BadInput as error:
        reasons["step"] = str(error)
    try:
        edges = tuple(one for one in facet_angles(profile) if 180.0 - one.external_deg > SAME_SIGMAS * one.sigma_deg)
        if not edges:
            reasons["facet"] = "all parts of the profile are parallel: there is no angle to measure"
    except BadInput as error:
        reasons["facet"] = str(error)
    return LineMeasures(profile, step, edges, reasons, step)


def measure_recorded_line(run: RecordedRun, sequence: int, points_px: Points, width_px: int = 1) -> LineMeasures:
    """`measure_line` on one frame of `run`, with what its images themselves show along a line of two points, a step and
    straight faces, and the figures' uncertainty budgets. Raises `BadInput` as that does, and for a frame without
    height."""
    surface = frame_map(run, sequence).map
    line = measure_line(surface, points_px, width_px)
    images = run.read_frame(sequence).images
    at = circumstances(run, sequence, images)
    if len(points_px) != 2:
        no = "only a line of two points is fitted to the images, not a polyline"
        return _with_budgets(replace(line, reasons={**line.reasons, "fit": no}), points_px, at)
    calibration, (start_px, end_px), reasons = at.instrument.calibration, points_px, dict(line.reasons)
    step, fit = line.step, None
    if step is not None:
        try:
            step = step_in_images(images, calibration, surface, start_px, end_px, width_px, step)
        except BadInput as error:
            reasons["step_in_images"] = str(error)
    try:
        fit = facets_along(images, calibration, surface, start_px, end_px, width_px)
    except BadInput as error:
        reasons["fit"] = str(error)
    return _with_budgets(replace(line, step=step, fit=fit, reasons=reasons), points_px, at)


def _with_budgets(line: LineMeasures, points_px: Points, at: Circumstances) -> LineMeasures:
    (x0, y0), (x1, y1) = points_px[0], points_px[-1]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    direction = (x1 - x0) / length, (y1 - y0) / length
    blur_px = blur_of(float(at.instrument.calibration.beam_sigma_px))
    steps = [line.step] if line.step is line.step_on_map else [line.step, line.step_on_map]
    budgets = [step_budget(step, direction, blur_px, line.profile.pixel_m, at) for step in steps if step is not None]
    budgets += edge_budgets(line.edges, direction, at) if line.fit is None else angle_budgets(line.fit, direction, at)
    return replace(line, budgets=tuple(budgets))


def measure_facets(
    surface: HeightMap,
    crystal: str = "cu2o",
    top_family: str = "100",
    top: int | None = None,
    smoothing_px: float | None = None,
    table: Path | None = None,
) -> FacetMeasures:
    """`top`: number of the facet that `top_family` is about, by default the largest level one. Raises `BadInput` for
    an unknown crystal, family or number."""
    known, reasons = load_crystal(crystal, table), {}
    known.family(top_family)
    found = find_facets(surface) if smoothing_px is None else find_facets(surface, smoothing_px)
    chosen, orientation, directions = None, None, None
    names: tuple[Named, ...] = ()
    if top is not None:
        chosen = next((facet for facet in found.facets if facet.number == top), None)
        if chosen is None:
            raise BadInput(f"there is no facet {top}: {len(found.facets)} were found")
    try:
        chosen = chosen or top_facet(found.facets)
        names = tuple(name_facets(found.facets, chosen, known, top_family))
    except BadInput as error:
        reasons["names"] = str(error)
    try:
        orientation = fit_orientation(found.facets, known, chosen, None if chosen is None else top_family)
    except BadInput as error:
        reasons["orientation"] = str(error)
    try:
        directions = in_plane_directions(surface, found.smoothing_px)
    except BadInput as error:
        reasons["directions"] = str(error)
    return FacetMeasures(found, known, chosen, names, orientation, directions, wulff_polyhedron(known), reasons)


def measure_recorded_facets(
    run: RecordedRun,
    sequence: int,
    crystal: str = "cu2o",
    top_family: str = "100",
    top: int | None = None,
    smoothing_px: float | None = None,
    table: Path | None = None,
) -> FacetMeasures:
    """`measure_facets` on one frame of `run`, with uncertainty budgets. Raises `BadInput` as that does."""
    measured = measure_facets(frame_map(run, sequence).map, crystal, top_family, top, smoothing_px, table)
    at = circumstances(run, sequence, run.read_frame(sequence).images)
    facets = measured.found.facets[:MOST_BUDGETS]
    return replace(measured, budgets=tuple(budget for facet in facets for budget in facet_budgets(facet, at)))


def kymograph_tree(seen: Kymograph, start_m: float | None = None, reach_m: float | None = None) -> dict[str, Any]:
    """The kymograph and the motion of the step on it, or why there is none."""
    motion, reason = None, ""
    try:
        motion = step_motion(seen, start_m, reach_m)
    except BadInput as error:
        reason = str(error)
    return {**plain(seen), "motion": plain(motion), "reasons": {"motion": reason} if reason else {}}


def plain(value: Any) -> Any:
    """Dataclasses and arrays as what JSON has; label images are left out, and what is not a number is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
