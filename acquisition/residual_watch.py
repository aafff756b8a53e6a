"""Whether frames are still explained by their calibration: an alarm when several residuals lie outside their band."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from acquisition.alarms import AlarmBook
from acquisition.frames import ResultHeader

ALARM = "residual"
SEVERAL = 5
BAND = ("residual_low", "residual_high", "cycle_height")
ABOVE = (
    "look for a segment that charges, is contaminated or changed its gain, then compare with `eclips check RUN` and "
    "calibrate again with `eclips calibrate`; surfaces so steep that they shadow themselves raise it too"
)
BELOW = "the file's gains are too high or its images were smoothed: calibrate with `eclips calibrate --pairs`"


class ResidualWatch:
    """Of the present run, the newest band against the medians of the newest frames (`inference.consistency`), in
    whatever order their heights come.

    `take` is called by the stream's thread, the others by the node's.
    """

    def __init__(self, alarms: AlarmBook, tell: Callable[..., None]) -> None:
        self._alarms = alarms
        self._tell = tell
        self._run_id = ""
        self._newest = -1
        self._last: list[tuple[int, float]] = []
        self.band: Mapping[str, float] = {}

    def begin(self, run_id: str) -> None:
        """Another run: its frames may be of another calibration."""
        self._run_id, self._newest, self.band, self._last = run_id, -1, {}, []

    def take(self, header: ResultHeader) -> None:
        """A height that was kept; those of other runs say nothing of this one."""
        if header.run_id != self._run_id:
            return
        told = {name: header.figures[name] for name in BAND if math.isfinite(header.figures.get(name, math.nan))}
        if told and header.sequence > self._newest:
            self.band, self._newest = told, header.sequence
        if math.isfinite(median := header.figures.get("residual_median", math.nan)):
            self._last = sorted([*self._last, (header.sequence, median)])[-SEVERAL:]

    def look(self, utc_ns: int) -> None:
        """Sound the alarm, or let it cease once as many frames lie inside again."""
        values, band = [median for _, median in self._last], self.band
        if len(values) < SEVERAL or not {"residual_low", "residual_high"} <= band.keys():
            return
        low, high = band["residual_low"], band["residual_high"]
        if min(values) > high:
            self._sound(values, low, high, ABOVE, utc_ns)
        elif max(values) < low:
            self._sound(values, low, high, BELOW, utc_ns)
        elif all(low <= value <= high for value in values):
            self._alarms.cease(ALARM)

    def _sound(self, values: list[float], low: float, high: float, way_out: str, utc_ns: int) -> None:
        latest = values[-1]
        text = (
            f"the images no longer fit their calibration: the last {len(values)} residuals are "
            f"{'above' if latest > high else 'below'} their band, {latest:.3g} times the noise (median) where "
            f"{low:.3g} to {high:.3g} is expected"
        )
        if self._alarms.sound(ALARM, text, way_out, utc_ns):
            details: dict[str, Any] = {"alarm": ALARM, "residual_median": latest, "low": low, "high": high}
            self._tell("alarm", f"{text}; {way_out}", "alarm", **details)
