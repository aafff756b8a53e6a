"""A whole run, tracked: its coordinate frame, steps, spirals, growth and kinetics, frame after frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.calibration import calibrate
from inference.metrology.descriptors import Kind, look_around
from inference.metrology.drift import Drift, Tracker, View, interpolated
from inference.metrology.height_map import FrameMap, frame_map
from inference.metrology.kinetics import LEAST_SPAN_OF_LOG_PRESSURE, TEMPERATURE, RateLaw, Series, fit_rate_law
from inference.metrology.resolution import Rings, ring_correlation
from inference.metrology.spirals import SAME_PLACE, Spiral, Track, find_spirals, join
from inference.metrology.step_advance import find_advance
from inference.metrology.steps import SMOOTHED_PX, Steps, find_steps
from inference.metrology.steps_fit import FittedSteps, fit_pitches, fit_steps
from inference.metrology.volume import NO_DATUM, Change, Levelling, Region, change

STILL_PX = 0.25
MOST_WARMING_K = 10.0
EVERY = 8
UNTOLD: tuple[Kind, float] = ("step", math.nan)
"""Of pixels that are not square: no descriptor says what a line is."""
ARTEFACTS: frozenset[Kind] = frozenset({"spike", "scan line"})

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Seen:
    """One frame: when, what it shows, and what its step lines look like. `steps` are without artefacts,
    `fitted` is their height in the images, None where these do not tell."""

    sequence: int
    time_s: float
    state: dict[str, float]
    steps: Steps
    spirals: list[Spiral]
    looks: list[tuple[Kind, float]]
    fitted: FittedSteps | None = None

    @property
    def step_height_m(self) -> tuple[float, float]:
        """With its standard error; from the images, or from the heights where these do not tell."""
        if self.fitted is not None:
            return self.fitted.height_m, self.fitted.sigma_m
        return self.steps.height_m, self.steps.height_error_m


@dataclass(slots=True)
class Tracked:
    """A run's motion. `velocity`: of steps along their normals, downhill positive, each between two frames;
    `growth` between neighbouring frames, or why there is none; `law` likewise,
    through the velocities between frames of about one temperature, the `steady` ones.
    `still`: rings of the heights of two frames between which nothing moved. `last`: the last frame's map."""

    pixel_m: tuple[float, float]
    levelling: Levelling
    seen: list[Seen]
    drifts: list[Drift]
    velocity: Series
    tracks: list[Track]
    growth: list[Change] = field(default_factory=list)
    no_growth: str = ""
    law: RateLaw | None = None
    gas: str = ""
    no_law: str = ""
    steady: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    still: Rings | None = None
    first: FrameMap | None = None
    last: FrameMap | None = None


def track_run(
    run: RecordedRun,
    levelling: Levelling | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    smoothed_px: float = SMOOTHED_PX,
) -> Tracked:
    """Measure every frame of `run` that has a height, one after the other; two are held in memory.

    Raises `BadInput` for fewer than two heights, for heights of differing pixels, or where a declared region leaves the
    view. `progress(done, total)` is called after each frame.
    """
    sequences = [sequence for sequence in run.sequences if sequence in run.heights]
    if len(sequences) < 2:
        raise BadInput(
            f"{run.path} has {len(sequences)} heights: motion needs two or more; make them with `eclips reprocess`"
        )
    levelling = levelling or Levelling()
    tracker = Tracker(levelling.regions[0] if levelling.regions else None)
    drifts: list[Drift] = []
    seen: list[Seen] = []
    tracks: list[Track] = []
    maps: list[FrameMap] = []
    for done, view, map in _views(run, sequences):
        drift = tracker.add(view)
        looked = _look(view, map, smoothed_px)
        if looked.spirals:
            known = drift if math.isfinite(drift.error_px[0]) or not drifts else drifts[-1]
            reach_px = SAME_PLACE * looked.steps.spacing_m / min(looked.steps.pixel_m)
            join(tracks, view.sequence, view.time_s, looked.spirals, known.shift_px, reach_px)
        drifts.append(drift)
        seen.append(looked)
        maps = [*maps[:1], map]
        progress(done, len(sequences))
    drifts = interpolated(drifts)
    found = Tracked(seen[0].steps.pixel_m, levelling, seen, drifts, step_velocity(seen, drifts), tracks)
    found.first, found.last = maps[0], maps[-1]
    if levelling.regions:
        found.growth = list(_growth(run, found))
    else:
        found.no_growth = NO_DATUM
    _fit(found)
    found.still = _still(run, found)
    return found


def run_drift(
    run: RecordedRun, region: Region | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Drift]:
    """The drift of every frame that has a height, in the order of `frame_maps`; with a `region` that does not grow, by
    its images alone. Raises `BadInput` for a frame that cannot be read or a region outside it."""
    tracker, drifts, sequences = Tracker(region), [], sorted(run.heights)
    for done, view, _ in _views(run, sequences):
        drifts.append(tracker.add(view))
        progress(done, len(sequences))
    return interpolated(drifts)


def step_velocity(seen: Sequence[Seen], drifts: Sequence[Drift]) -> Series:
    """Along the normals, downhill positive, from each frame to the next; NaN where no step was found again."""
    times_s, values, errors, states = [], [], [], []
    for (one, other), (before, after) in zip(pairwise(seen), pairwise(drifts), strict=True):
        seconds = other.time_s - one.time_s
        value, error = math.nan, math.nan
        try:
            slip_px = np.hypot(before.error_px, after.error_px)
            advance = find_advance(one.steps, other.steps, after.shift_px - before.shift_px, slip_px)
            value, error = advance.mean_m / seconds, advance.error_m / seconds
        except BadInput:
            pass
        times_s.append(0.5 * (one.time_s + other.time_s))
        values.append(value)
        errors.append(error)
        states.append(
            {name: 0.5 * (value + other.state[name]) for name, value in one.state.items() if name in other.state}
        )
    return Series("step velocity", "m/s", np.array(times_s), np.array(values), np.array(errors), tuple(states))


def _views(run: RecordedRun, sequences: list[int]) -> Iterator[tuple[int, View, FrameMap]]:
    start_ns, place = None, None
    for done, sequence in enumerate(sequences, start=1):
        frame, map = run.read_frame(sequence), frame_map(run, sequence)
        header = frame.header
        middle_ns = (header.exposure_start_ns + header.exposure_end_ns) // 2
        start_ns = middle_ns if start_ns is None else start_ns
        here = np.array([map.state.get("stage.x_m", math.nan), map.state.get("stage.y_m", math.nan)])
        place = here if place is None else place
        pixel_m = (map.map.pixel_size_y_m, map.map.pixel_size_m)
        stage_px = _stage_px(here - place, header.optics.scan_rotation_deg, pixel_m)
        calibration = calibrate(run.instrument, frame.images)
        yield (
            done,
            View(sequence, (middle_ns - start_ns) / 1e9, frame.images, calibration, map.map, stage_px),
            map,
        )


def _stage_px(moved_m: Floats, rotation_deg: float, pixel_m: tuple[float, float]) -> tuple[float, float]:
    """Where the content goes when the view moves by (x, y), y down, seen with scan axes that are turned
    counter-clockwise; nowhere where the stage tells no place."""
    if not np.isfinite(moved_m).all():
        return 0.0, 0.0
    cosine, sine = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
    right, down = cosine * moved_m[0] - sine * moved_m[1], sine * moved_m[0] + cosine * moved_m[1]
    return float(-down / pixel_m[0]), float(-right / pixel_m[1])


def _look(view: View, map: FrameMap, smoothed_px: float) -> Seen:
    steps = find_steps(map.map, smoothed_px)
    square = math.isclose(map.map.pixel_size_m, map.map.pixel_size_y_m, rel_tol=0.01)
    looks = [look_around(map.map, line.places_px[::EVERY]).together() if square else UNTOLD for line in steps.lines]
    kept = steps.only([kind not in ARTEFACTS for kind, _ in looks])
    fitted: FittedSteps | None = None
    with suppress(BadInput):
        fitted = fit_steps(kept, view.images, view.calibration)
    return Seen(
        sequence=map.sequence,
        time_s=view.time_s,
        state=map.state,
        steps=kept,
        spirals=fit_pitches(find_spirals(map.map, steps), steps, view.images, view.calibration),
        looks=looks,
        fitted=fitted,
    )


def _growth(run: RecordedRun, found: Tracked) -> Iterator[Change]:
    before = found.first
    assert before is not None
    for (one, other), (first, second) in zip(pairwise(found.seen), pairwise(found.drifts), strict=True):
        after = frame_map(run, other.sequence)
        seconds = other.time_s - one.time_s
        yield change(before.map, after.map, seconds, found.levelling, first.shift_px, second.shift_px)
        before = after


def _fit(found: Tracked) -> None:
    series = found.velocity
    kelvin = series.against(TEMPERATURE)
    # Over a wide span the law of the mean temperature is not the mean of the law.
    at = [seen.state.get(TEMPERATURE, math.nan) for seen in found.seen]
    found.steady = np.asarray(np.abs(np.diff(at)) <= MOST_WARMING_K)
    kelvin = np.where(found.steady, kelvin, math.nan)
    pressures = {gas: series.partial_pressure_pa(gas) for gas in series.gases()}
    spans = {gas: float(np.ptp(np.log(values))) for gas, values in pressures.items() if (values > 0).all()}
    most = max(spans, key=lambda gas: spans[gas], default="")
    found.gas = most if most and spans[most] > LEAST_SPAN_OF_LOG_PRESSURE else ""
    pascal = pressures[found.gas] if found.gas else None
    try:
        found.law = fit_rate_law(kelvin, series.values, series.errors, pascal)
    except BadInput as error:
        found.no_law = str(error)


def _still(run: RecordedRun, found: Tracked) -> Rings | None:
    """Of the first two neighbouring frames that show the same pixels of the same surface."""
    for number, (one, other) in enumerate(pairwise(found.seen)):
        moved_px = np.abs(found.drifts[number + 1].shift_px - found.drifts[number].shift_px).max()
        pace = found.velocity.values[number] * (other.time_s - one.time_s) / min(found.pixel_m)
        if moved_px < STILL_PX and abs(pace) < STILL_PX:
            first, second = (run.read_height(each.sequence) for each in (one, other))
            return ring_correlation(first, second, found.pixel_m[1], found.pixel_m[0])
    return None
