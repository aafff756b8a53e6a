"""`eclips measure`: steps, angles, facets and velocities of a recorded run, with their uncertainties."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.budget import Budget, velocity_budget
from inference.metrology.drift import Drift
from inference.metrology.facet_fit import FacetFit
from inference.metrology.height_map import HeightMap, frame_map, frame_maps
from inference.metrology.instrument_error import pixel_error
from inference.metrology.kymograph import Kymograph, StepMotion, kymograph, step_motion
from inference.metrology.profiles import Points
from inference.metrology.step_height import StepHeight
from inference.metrology.tracking import run_drift
from inference.metrology.volume import parse_region
from inference.pixel_noise import length
from service.budgets import budget_lines, budget_trees
from service.commands.plan import metres
from service.commands.shared import RunArgument, progress_bar, say
from service.measurements import FacetMeasures, LineMeasures, measure_recorded_facets, measure_recorded_line, plain
from service.routes.profiles import corners

MOST_SHOWN = 12
BENT_SHARE = 0.05
MOST_WAYS_SHOWN = 3


def add_to(app: typer.Typer) -> None:
    app.command()(measure)


def measure(
    run: RunArgument,
    frame: Annotated[int, typer.Option("--frame", min=0, help="Sequence number of the frame.")] = 0,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Corners of a line in pixels: x0,y0,x1,y1[,x2,y2...].")
    ] = None,
    width: Annotated[int, typer.Option("--width", min=1, max=1024, help="Average so many pixels across.")] = 9,
    through_time: Annotated[
        bool, typer.Option("--through-time", help="The same line in every frame, and the step's velocity.")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--start", help="Where on the line the step is in the first frame, such as 200nm.")
    ] = None,
    reach: Annotated[
        str | None, typer.Option("--reach", help="How far around it to look: below half the way to the next step.")
    ] = None,
    drift: Annotated[
        bool, typer.Option("--drift/--no-drift", help="Let the line go with the specimen through time, or lie still.")
    ] = True,
    reference: Annotated[
        str | None, typer.Option("--reference", help="x,y,width,height in the first frame that tells the drift alone.")
    ] = None,
    facets: Annotated[bool, typer.Option("--facets", help="Facets, their faces, orientation and directions.")] = False,
    top: Annotated[str, typer.Option("--top", help="Family of the top facet.")] = "100",
    crystal: Annotated[str, typer.Option("--crystal", help="Crystal of the table.")] = "cu2o",
    crystals: Annotated[
        Path | None, typer.Option("--crystals", help="A table of your own (TOML).", exists=True, dir_okay=False)
    ] = None,
    budget: Annotated[
        bool, typer.Option("--budget", help="Print what makes each figure uncertain, term by term.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the profile (or kymograph) to this file.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw it into this PNG file.")] = None,
) -> None:
    """Measure on the heights of a run: step height and angles along a line, its velocity, facets.

    Through time the line goes with the specimen: the drift since the frame in which it was drawn is taken out. Where
    steps flow, name a place that does not grow (`--reference`): without one drift is known to about a pixel.

    Example: eclips measure spiral --frame 3 --profile 40,200,200,200 --width 15 --facets --picture spiral.png
    """
    points = corners(profile or "")
    if not points and not facets:
        raise BadInput("nothing to measure: give --profile x0,y0,x1,y1, or --facets, or both")
    if (through_time or csv) and not points:
        raise BadInput("--through-time and --csv are about a line: give --profile x0,y0,x1,y1")
    recorded = RecordedRun(run)
    surface = frame_map(recorded, frame).map
    tree: dict[str, Any] = {"run": run.name, "frame": frame}
    line = measure_recorded_line(recorded, frame, points, width) if points else None
    if line is not None:
        tree["line"] = line.tree()
        _say_line(line)
    seen, motion, moved = None, None, list[Budget]()
    if through_time:
        drifts = _drifts(recorded, reference) if drift else None
        seen = _seen(recorded, points, width, None if drifts is None else _shifts(drifts, frame))
        motion = _motion(seen, start, reach)
        unsure = None if drifts is None else _say_drift(drifts, points, surface)
        moved = [] if motion is None else [velocity_budget(motion, *pixel_error(recorded.instrument), unsure)]
        budgets = budget_trees(moved)
        tree["kymograph"] = {**plain(seen), "motion": plain(motion), "drift": plain(drifts), "budgets": budgets}
    measured = measure_recorded_facets(recorded, frame, crystal, top, table=crystals) if facets else None
    if measured is not None:
        tree["facets"] = measured.tree()
        _say_facets(measured)
    if budget:
        told = [part.budgets for part in (line, measured) if part is not None]
        say("\n".join(budget_lines(chain(*told, moved))))
    if csv is not None and line is not None:
        csv.write_text(line.profile.csv() if seen is None else seen.csv(), encoding="utf-8")
        say(f"wrote {csv}")
    if json_file is not None:
        json_file.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
        say(f"wrote {json_file}")
    if picture is not None:
        from service.measure_picture import draw_measures

        draw_measures(picture, surface, line, seen, motion, measured)
        say(f"wrote {picture}")


def _drifts(recorded: RecordedRun, reference: str | None) -> list[Drift]:
    with progress_bar("drift") as progress:
        return run_drift(recorded, None if reference is None else parse_region(reference), progress)


def _shifts(drifts: list[Drift], frame: int) -> NDArray[np.float64]:
    """(T, 2) rows and columns since the frame in which the line was drawn."""
    drawn = next(drift for drift in drifts if drift.sequence == frame)
    return np.array([drift.shift_px - drawn.shift_px for drift in drifts])


def _say_drift(drifts: list[Drift], points: Points, surface: HeightMap) -> float:
    """By what it was told, and how uncertain it leaves a velocity along the line, which is returned in m/s."""
    pixel_m = np.array([surface.pixel_size_y_m, surface.pixel_size_m])
    moved_m, error_m = (np.asarray(one) * pixel_m for one in (drifts[-1].shift_px, drifts[-1].error_px))
    sources = [one.source for one in drifts[1:]]
    by = ", ".join(f"{sources.count(source)} {source}" for source in dict.fromkeys(sources))
    seconds = drifts[-1].time_s - drifts[0].time_s
    (x0, y0), (x1, y1) = points[0], points[-1]
    along = np.abs(np.array([y1 - y0, x1 - x0]) * pixel_m)
    unsure = float(np.hypot(*(along / np.hypot(*along) * error_m))) / seconds
    say(
        f"drift taken out: {1e9 * moved_m[1]:+.2f} nm right, {1e9 * moved_m[0]:+.2f} nm down at the end ({by}); it "
        f"leaves the velocity uncertain by {1e9 * unsure:.2g} nm/s more"
    )
    return unsure


def _seen(recorded: RecordedRun, points: Points, width: int, shifts_px: NDArray[np.float64] | None) -> Kymograph:
    count = len(recorded.heights)
    with progress_bar("profiles") as progress:
        return kymograph(frame_maps(recorded), points, width, shifts_px, lambda done: progress(done, count))


def _motion(seen: Kymograph, start: str | None, reach: str | None) -> StepMotion | None:
    start_m = None if start is None else metres(start, "--start")
    reach_m = None if reach is None else metres(reach, "--reach")
    try:
        motion = step_motion(seen, start_m, reach_m)
    except BadInput as error:
        say(f"velocity: none, {error}")
        return None
    velocity = f"{1e9 * motion.velocity_m_per_s:.4g} ± {1e9 * motion.sigma_m_per_s:.2g} nm/s along the line"
    found = f"found in {len(motion.sequences)} of {len(seen.sequences)} frames"
    say(f"velocity {velocity}; {found}, {length(motion.residual_m)} rms about it")
    return motion


def _say_line(line: LineMeasures) -> None:
    if line.step is None:
        say(f"step: none, {line.reasons['step']}")
    else:
        _say_step(line.step, line.budgets[0])
        if line.step_on_map is not None and line.step_on_map is not line.step:
            on_map = line.step_on_map
            say(f"  on the height map {_nm(on_map.height_m, on_map.sigma_m)} ({on_map.rule}): low, where edges mix")
    if "step_in_images" in line.reasons:
        say(f"step in the images: none, {line.reasons['step_in_images']}")
    if line.fit is None:
        say(f"faces in the images: none, {line.reasons['fit']}")
    else:
        _say_fit(line.fit, line.profile.pixel_m)
    for edge in line.edges[:MOST_SHOWN]:
        sides = " and ".join(f"{_deg(part.inclination_deg, part.sigma_deg)}" for part in (edge.before, edge.behind))
        kind = "convex" if edge.convex else "concave"
        narrow = "; NARROW, below 8 pixels: may be off by degrees" if edge.before.narrow or edge.behind.narrow else ""
        angle = _deg(edge.external_deg, edge.sigma_deg)
        say(f"on the height map: edge at {length(edge.edge_m)}, external angle {angle}, {kind}, {sides}{narrow}")
    if "facet" in line.reasons:
        say(f"angles on the height map: none, {line.reasons['facet']}")
    if line.budgets:
        say("  ± is of this line alone; with calibration, pixel size and drift: --budget, or budgets in --json")


def _say_step(step: StepHeight, budget: Budget) -> None:
    edges = ", ".join(length(edge) for edge in step.edges_m)
    how = f"from the {step.method}, {step.rule}; uncertainty from {step.sigma_from}"
    in_all = f"in all ± {1e9 * budget.sigma:.2g} nm, most by {budget.largest.name}"
    say(f"step {_nm(step.height_m, step.sigma_m)} at {edges} ({how}; {in_all})")
    if step.method != "images" and step.residual_m > BENT_SHARE * abs(step.height_m):
        bent = f"the flanks are bent by {length(step.residual_m)} rms"
        say(f"  {bent}: draw the line across one edge, or one flat groove or ridge, and end it before the next")


def _say_fit(fit: FacetFit, pixel_m: float) -> None:
    faces = ", ".join(_deg(angle, sigma) for angle, sigma in zip(fit.angle_deg, fit.sigma_deg, strict=True))
    edges = ", ".join(_deg(angle, sigma) for angle, sigma in zip(fit.external_deg, fit.external_sigma_deg, strict=True))
    say(f"faces in the images: inclined {faces}; external angles {edges}")
    if len(fit.step_px):
        told = zip(pixel_m * fit.step_px, pixel_m * fit.step_sigma_px, strict=True)
        say(f"  between the edges the surface rises by {', '.join(_nm(rise, sigma) for rise, sigma in told)}")
    chi2 = f"chi² {fit.reduced_chi2:.2f} from {fit.pixels} pixels"
    say(
        f"  across at {fit.azimuth_deg:.1f}°, edges climb {fit.along_deg:.2f}°, blurred by {fit.blur_px:.2f} px; {chi2}"
    )
    if fit.shadowed:
        say("  a face may lie in shadow, which this fit doesn't know: take its angle with care")


def _say_facets(measured: FacetMeasures) -> None:
    names = {named.number: named for named in measured.names}
    say(f"{len(measured.found.facets)} facets (slopes smoothed by {measured.found.smoothing_px:g} px):")
    for facet in measured.found.facets[:MOST_SHOWN]:
        named, slope = names.get(facet.number), _deg(facet.inclination_deg, facet.sigma_inclination_deg)
        told = "top" if named is None else f"{_deg(named.angle_deg, named.sigma_deg)} to the top, {named.family}"
        looks = f"looks to {_deg(facet.azimuth_deg, facet.sigma_azimuth_deg)}"
        area = f"{1e12 * facet.area_m2:.3g} ± {1e12 * facet.sigma_area_m2:.1g} µm²"
        say(f"  {facet.number:3d}  inclined {slope}, {looks}, {area}; {told}")
    if measured.orientation is not None:
        found = measured.orientation
        say(
            f"orientation: {'determined' if found.determined else 'undetermined'}; "
            f"that these are no faces of {found.crystal}: {found.none:.2g}"
        )
        for way in found.candidates[:MOST_WAYS_SHOWN]:
            faces = " ".join("-" if hkl is None else "(" + " ".join(map(str, hkl)) + ")" for hkl in way.faces)
            say(f"  {way.probability:.3f}  ± {way.sigma_deg.max():.2g}°, misfit {way.misfit_deg:.2g}°: {faces}")
    if measured.directions is not None:
        for met in measured.directions.meetings:
            sides = f"{met.first_deg:.1f}° and {met.second_deg:.1f}°"
            say(f"sides that look to {sides} meet at {_deg(met.angle_deg, met.sigma_deg)}")
    for what, reason in measured.reasons.items():
        say(f"{what}: none, {reason}")


def _deg(value: float, sigma: float) -> str:
    return f"{value:.2f} ± {sigma:.2g}°"


def _nm(value_m: float, sigma_m: float) -> str:
    return f"{1e9 * value_m:.4g} ± {1e9 * sigma_m:.2g} nm"
