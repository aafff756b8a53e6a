"""The same line through a run's frames, and the velocity of a step that it crosses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.metrology.edges import best_edge, fit_edge
from inference.metrology.height_map import FrameMap
from inference.metrology.profiles import Points, line_profile
from inference.metrology.scatter import robust_line

REACH_PX = 12.0
FEWEST_REACH_PX = 6.0
FEWEST_FRAMES = 3
LEAST_SHARE_OF_RISE = 0.4

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Kymograph:
    """`height_m` and `sigma_m` (T, n) over `time_s` (T,), from the first frame on, and `distance_m` (n,)."""

    sequences: tuple[int, ...]
    time_s: Floats
    distance_m: Floats
    height_m: Floats
    sigma_m: Floats

    @property
    def pixel_m(self) -> float:
        return float(self.distance_m[-1]) / (len(self.distance_m) - 1)

    def csv(self) -> str:
        """One line a frame: number, time, then the height at each of the distances of the heading."""
        heading = ",".join(["sequence", "time_s", *(f"{at:.6e}" for at in self.distance_m)])
        rows = zip(self.sequences, self.time_s, self.height_m, strict=True)
        lines = (",".join([str(n), f"{t:.6f}", *(f"{height:.6e}" for height in row)]) for n, t, row in rows)
        return "\n".join([heading, *lines]) + "\n"


@dataclass(frozen=True, slots=True, eq=False)
class StepMotion:
    """Where one step was in each frame in which it was found, and the line through these places.

    `velocity_m_per_s` is positive away from the start of the line, along it; `sigma` counts the scatter of the places
    about the straight line with its correlation in time. `rise_m`: median height of the step. `missed`: frames in
    which the step was not found.
    """

    sequences: tuple[int, ...]
    time_s: Floats
    position_m: Floats
    velocity_m_per_s: float
    sigma_m_per_s: float
    rise_m: float
    residual_m: float
    missed: tuple[int, ...]


def kymograph(
    frames: Iterable[FrameMap],
    points_px: Points,
    width_px: int = 1,
    shifts_px: Floats | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Kymograph:
    """Profiles along one line of all `frames`, each less its mean (absolute heights cannot be seen from slopes).

    `shifts_px` (T, 2): by how many rows and columns the specimen lies further down and right in each frame than in
    the frame in which the line was drawn; the line goes with it. `progress` is told each frame that is done.
    Raises `BadInput` where the line leaves a frame, or shifts and frames differ in number.
    """
    sequences, times_ns, profiles = [], [], []
    for index, frame in enumerate(frames):
        if shifts_px is not None and index >= len(shifts_px):
            raise BadInput(f"{len(shifts_px)} shifts were given for more frames than that: give one for each")
        down, right = (0.0, 0.0) if shifts_px is None else shifts_px[index]
        moved = [(x + right, y + down) for x, y in points_px]
        profiles.append(line_profile(frame.map, moved, width_px))
        sequences.append(frame.sequence)
        times_ns.append(frame.monotonic_ns)
        progress(index + 1)
    if not profiles or (shifts_px is not None and len(shifts_px) != len(profiles)):
        given = "none" if shifts_px is None else len(shifts_px)
        raise BadInput(f"{len(profiles)} frames and {given} shifts: a kymograph takes a shift for each frame, if any")
    heights_m = np.array([one.height_m - one.height_m.mean() for one in profiles])
    sigmas_m = np.array([one.sigma_m for one in profiles])
    time_s = np.array([1e-9 * (at - times_ns[0]) for at in times_ns], np.float64)
    return Kymograph(tuple(sequences), time_s, profiles[0].distance_m, heights_m, sigmas_m)


def step_motion(seen: Kymograph, start_m: float | None = None, reach_m: float | None = None) -> StepMotion:
    """Follow one step from frame to frame, placed between points by `fit_edge`, and fit a line to its places by
    Huber's estimator.

    It starts nearest to `start_m` in the first frame (by default the clearest edge) and is sought within `reach_m`
    (12 points) of where its motion so far lets it be expected: keep that below half of the distance to the next step.
    A frame whose edge has another sense or less than 0.4 of the usual height is missed. Raises `BadInput` below 3
    frames, when the step is found in fewer than 3, or for frames without a time between them.
    """
    if len(seen.time_s) < FEWEST_FRAMES or float(np.ptp(seen.time_s)) <= 0.0:
        raise BadInput(f"{len(seen.time_s)} frames in {np.ptp(seen.time_s):g} s: a velocity takes 3 at different times")
    reach = max(REACH_PX * seen.pixel_m if reach_m is None else reach_m, FEWEST_REACH_PX * seen.pixel_m)
    expected = best_edge(seen.distance_m, seen.height_m[0]) if start_m is None else start_m
    found: list[tuple[int, float, float]] = []
    for index, row_m in enumerate(seen.height_m):
        place = _near(seen.distance_m, row_m, _expected(seen.time_s, found, index, expected), reach)
        if place is not None and _is_same(place[1], [rise for _, _, rise in found]):
            found.append((index, *place))
    if len(found) < FEWEST_FRAMES:
        raise BadInput(
            f"the step near {expected:.3g} m was found in {len(found)} of {len(seen.time_s)} frames: start it on a "
            f"clear edge, or change the reach of {reach:.3g} m"
        )
    indices = [index for index, _, _ in found]
    time_s, position_m = seen.time_s[indices], np.array([place for _, place, _ in found])
    line = robust_line(time_s, position_m)
    missed = tuple(number for index, number in enumerate(seen.sequences) if index not in set(indices))
    rise_m = float(np.median([rise for _, _, rise in found]))
    numbers = tuple(seen.sequences[index] for index in indices)
    return StepMotion(numbers, time_s, position_m, line.slope, line.sigma_slope, rise_m, line.residual, missed)


def _near(x_m: Floats, z_m: Floats, expected_m: float, reach_m: float) -> tuple[float, float] | None:
    """Place and rise of the clearest edge within reach, then with it in the middle; None where there is none."""
    try:
        window = np.abs(x_m - expected_m) <= reach_m
        window = np.abs(x_m - best_edge(x_m[window], z_m[window])) <= reach_m
        edge = fit_edge(x_m[window], z_m[window])
    except BadInput:
        return None
    return edge.at_m, edge.rise_m


def _expected(time_s: Floats, found: list[tuple[int, float, float]], index: int, start_m: float) -> float:
    """On the line through the last places, where there are two."""
    if len(found) < 2:
        return found[-1][1] if found else start_m
    last = found[-6:]
    at, places = time_s[[one for one, _, _ in last]], np.array([place for _, place, _ in last])
    slope = float(np.polyfit(at - at[-1], places, 1)[0])
    return float(places[-1] + slope * (time_s[index] - at[-1]))


def _is_same(rise_m: float, before_m: list[float]) -> bool:
    usual = float(np.median(before_m)) if before_m else rise_m
    return math.copysign(1.0, rise_m) == math.copysign(1.0, usual) and abs(rise_m) > LEAST_SHARE_OF_RISE * abs(usual)
