"""Steps, their velocity, spirals and drift while a run goes on: what feedback loops and conditions may go by."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.frames import Frame, Result
from acquisition.instrument import Instrument
from inference.metrology.height_map import HeightMap
from inference.metrology.spirals import find_spirals
from inference.metrology.step_advance import Advance, find_advance
from inference.metrology.steps import Steps, find_steps

MOST_PX = 192
"""Heights are averaged over blocks down to this many pixels: more would cost more than the height itself."""
SHARE = 0.23
"""Of a worker's time: one that waits for frames most of the time measures each, a busy one only some."""
USUAL_DRIFT_M_PER_S = 0.5e-9
"""Steps that run all one way cannot tell drift from growth: their velocity is uncertain by this much."""
LEAST_TRAVEL_PX = 1.0
MOST_KEPT = 6
MOST_ERROR_PX = 1.0
STAGE_STILL_PX = 0.1
LEAST_SPREAD = 0.05
WARM_UP_PX, WARM_UP_STEP_PX = 64, 16

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One frame that was measured. `drift_m`: columns and rows by which the specimen lies further right and down than
    in the first frame of this view; None where its steps do not tell."""

    time_s: float
    steps: Steps
    drift_m: Floats | None


class LiveMetrology:
    """Measures the heights of one run after the other, those that it is given: consecutive ones of one worker.

    Figures, each only where it is determined: `step_density_per_m`, `step_velocity_m_per_s` (along the normals,
    downhill positive) with `step_velocity_error_m_per_s`, `drift_x_m` and `drift_y_m` (by which the specimen lies
    further right and down than in the first frame of this view) and `spirals` (how many cores are in view). A frame
    older than the last one tells its density and spirals only. Steps that go on by 45 % of their spacing or more
    between two frames look as if they went back: frames must come often enough, so one worker is best.

    It takes at most `share` of the time that passes and leaves frames out for it. Memory is bounded: the
    step lines of the last few frames. A moved stage, another pixel size or another run begins anew (metrology.md, 1
    and 4).
    """

    def __init__(self, share: float = SHARE) -> None:
        self._lines = _Allowance(0.6 * share)
        self._cores = _Allowance(0.4 * share)
        self._view: tuple[object, ...] = ()
        self._place_m: Floats | None = None
        self._kept: deque[_Seen] = deque(maxlen=MOST_KEPT)
        self._velocity_m_per_s = 0.0
        _warm_up()
        self._last_s = time.perf_counter()

    def measured(self, frame: Frame, instrument: Instrument, result: Result) -> Result:
        """`result` of `frame` with what is determined among its figures, and the time for it as `metrology`."""
        header, began = result.header, time.perf_counter()
        map = _coarse(result.height_m, header.pixel_size_m, instrument)
        figures = self.add(frame, map, began - self._last_s)
        self._last_s = began
        if not figures:
            return result
        timing_s = {**header.timing_s, "metrology": time.perf_counter() - began}
        return replace(result, header=replace(header, figures={**header.figures, **figures}, timing_s=timing_s))

    def add(self, frame: Frame, map: HeightMap, passed_s: float) -> dict[str, float]:
        """The figures of one height map, `passed_s` after the one before, SI units; empty for one that is left out."""
        self._lines.earn(passed_s)
        self._cores.earn(passed_s)
        if not self._lines.granted:
            return {}
        with self._lines:
            steps = find_steps(map)
            figures = {"step_density_per_m": steps.density_per_m, **self._motion(frame, map, steps)}
        if self._cores.granted:
            with self._cores:
                figures["spirals"] = float(len(find_spirals(map, steps)))
        return figures

    def _motion(self, frame: Frame, map: HeightMap, steps: Steps) -> dict[str, float]:
        figures: dict[str, float] = {}
        header = frame.header
        time_s = 0.5e-9 * (header.exposure_start_ns + header.exposure_end_ns)
        self._begin_anew_if_elsewhere(frame, map)
        if self._kept and time_s <= self._kept[-1].time_s:
            return figures
        drift_m: Floats | None = np.zeros(2) if not self._kept else None
        base = self._base(time_s, min(steps.pixel_m))
        if base is not None:
            seconds = time_s - base.time_s
            advance = _advance(base.steps, steps, USUAL_DRIFT_M_PER_S * seconds)
            if advance is not None:
                self._velocity_m_per_s = advance.mean_m / seconds
                figures["step_velocity_m_per_s"] = self._velocity_m_per_s
                figures["step_velocity_error_m_per_s"] = advance.error_m / seconds
                if base.drift_m is not None and _several_ways(steps):
                    drift_m = base.drift_m + np.array(advance.slipped_m[::-1])
                    figures["drift_x_m"], figures["drift_y_m"] = float(drift_m[0]), float(drift_m[1])
        self._kept.append(_Seen(time_s, steps, drift_m))
        return figures

    def _base(self, time_s: float, pixel_m: float) -> _Seen | None:
        """The newest frame since which steps have gone far enough to be measured, or the oldest that is kept."""
        for seen in reversed(self._kept):
            if abs(self._velocity_m_per_s) * (time_s - seen.time_s) >= LEAST_TRAVEL_PX * pixel_m:
                return seen
        return self._kept[0] if self._kept else None

    def _begin_anew_if_elsewhere(self, frame: Frame, map: HeightMap) -> None:
        header = frame.header
        view = (header.run_id, map.pixel_size_m, map.height_m.shape, header.optics.scan_rotation_deg)
        place_m = _stage_m(header.state)
        moved_m = 0.0 if self._place_m is None or place_m is None else float(np.abs(place_m - self._place_m).max())
        if view != self._view or moved_m > STAGE_STILL_PX * map.pixel_size_m:
            self._kept.clear()
            self._view, self._place_m, self._velocity_m_per_s = view, place_m, 0.0


class _Allowance:
    """Work may begin when `share` of the time that has passed since covers what it took the last time."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._owed_s = 0.0
        self._began = 0.0

    @property
    def granted(self) -> bool:
        return self._owed_s <= 0.0

    def earn(self, passed_s: float) -> None:
        self._owed_s = max(self._owed_s - self._share * passed_s, 0.0)

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._owed_s += time.perf_counter() - self._began


def _warm_up() -> None:
    """What is loaded on first use would be taken for the cost of measuring."""
    stairs_m = np.arange(WARM_UP_PX) // WARM_UP_STEP_PX * np.ones((WARM_UP_PX, 1))
    map = HeightMap(stairs_m, 1.0, 1.0)
    find_spirals(map, find_steps(map))


def _coarse(height_m: NDArray[np.float32], pixel_m: float, instrument: Instrument) -> HeightMap:
    """Means of square blocks; what does not fill one at the right and lower rim is left out."""
    block = max(-(-max(height_m.shape) // MOST_PX), 1)
    rows, columns = (size // block for size in height_m.shape)
    blocks = height_m[: rows * block, : columns * block].reshape(rows, block, columns, block)
    scan = instrument.scan
    aspect = 1.0 if scan.pixel_size_y_m is None else scan.pixel_size_y_m / scan.pixel_size_m
    means = np.asarray(blocks.mean(axis=(1, 3), dtype=np.float64))
    return HeightMap(means, block * pixel_m, block * aspect * pixel_m)


def _advance(before: Steps, after: Steps, drift_error_m: float) -> Advance | None:
    """None where steps are not found again, or no better than to a pixel."""
    try:
        error_px = [drift_error_m / size for size in after.pixel_m]
        found = find_advance(before, after, moved_error_px=error_px)
    except BadInput:
        return None
    return found if found.error_m <= MOST_ERROR_PX * min(after.pixel_m) else None


def _several_ways(steps: Steps) -> bool:
    """Whether the normals spread enough in both directions to tell where the view went."""
    normals = steps.downhill()
    return len(normals) > 2 and bool(np.linalg.eigvalsh(np.cov(normals.T))[0] > LEAST_SPREAD)


def _stage_m(state: Mapping[str, object]) -> Floats | None:
    values = [getattr(state.get(f"stage.{axis}_m"), "value", None) for axis in "xy"]
    return None if None in values else np.array(values, np.float64)
