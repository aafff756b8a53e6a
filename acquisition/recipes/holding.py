"""One hold in force: a channel of the lab kept at its target by steering one setpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from acquisition.clock import Instant
from acquisition.devices import Limits, Reading
from acquisition.errors import EclipsError
from acquisition.live_figures import PREFIX
from acquisition.recipes.feedback import FeedbackLoop, LoopSettings
from acquisition.recipes.steps import SETPOINTS, Hold


class RecipeFailed(EclipsError):
    """A recipe cannot go on; what it drives goes to the safe state."""


def usable(readings: Mapping[str, Reading], channel: str, now: Instant, stale_after_s: float) -> Reading:
    """The newest reading of a channel. Raises `RecipeFailed` unless it is there, valid and fresh."""
    reading = readings.get(channel)
    if reading is None:
        way_out = "; is inference.metrology on, and does a run go on?" if channel.startswith(PREFIX) else ""
        raise RecipeFailed(f"{channel} was never read{way_out}")
    age_s = now.seconds_since(reading.instant)
    if not reading.valid or not math.isfinite(reading.value):
        raise RecipeFailed(f"{channel} is invalid: {reading.reason or reading.value}")
    if age_s > stale_after_s:
        raise RecipeFailed(f"{channel} is {age_s:.1f} s old, the limit is {stale_after_s:g} s (stale_after_s)")
    return reading


class Held:
    """`target` and `reading` are in the channel's unit, `output` in that of the key which is steered."""

    def __init__(self, spec: Hold, reading: Reading, output: float, limits: Limits | None) -> None:
        self.spec = spec
        self.device, _, self.key = spec.by.partition(".")
        self.setpoint, self.factor = SETPOINTS[self.key]
        self.target = reading.value if spec.target is None else spec.target
        self.reading = reading.value
        low = spec.low if spec.low is not None else limits.low if limits else -math.inf
        high = spec.high if spec.high is not None else limits.high if limits else math.inf
        per_s = math.inf if spec.per_s is None else spec.per_s
        self._loop = FeedbackLoop(LoopSettings(spec.gain, spec.integral_s, low, high, per_s), output)
        self._instant = reading.instant
        # A gap in the readings is no reason for one great step; figures come as seldom as their frames.
        self._longest_s = spec.stale_after_s if spec.channel.startswith(PREFIX) else 1.0

    @property
    def output(self) -> float:
        return self._loop.output

    def follow(self, readings: Mapping[str, Reading], now: Instant) -> float | None:
        """The setpoint to send, SI, where a new reading asks for another one. Raises `RecipeFailed` for a reading that
        nothing may be steered by: invalid, stale or missing."""
        try:
            reading = usable(readings, self.spec.channel, now, self.spec.stale_after_s)
        except RecipeFailed as error:
            raise RecipeFailed(f"the hold of {self.spec.channel} by {self.spec.by} cannot go on: {error}") from None
        elapsed_s = reading.instant.seconds_since(self._instant)
        if elapsed_s <= 0:
            return None
        before, self._instant, self.reading = self.output, reading.instant, reading.value
        output = self._loop.update(self.target, reading.value, min(elapsed_s, self._longest_s))
        return None if output == before else output * self.factor

    def tree(self) -> dict[str, Any]:
        """For people and programs; names carry no unit because channel and setpoint do."""
        return {
            "channel": self.spec.channel,
            "by": self.spec.by,
            "target": self.target,
            "reading": self.reading,
            "output": self.output,
        }
