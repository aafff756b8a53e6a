"""A PI controller with bounds and a speed limit; pure sums, no clock and no device."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """`gain` in output per unit of the reading; `low`, `high` and `per_s` bound the output and its speed."""

    gain: float
    integral_s: float
    low: float
    high: float
    per_s: float = math.inf


class FeedbackLoop:
    """Begins at the output that is in force, without a jump.

    Anti-windup: while a bound or the speed limit holds the output back, the integral does not grow further that way.
    """

    def __init__(self, settings: LoopSettings, output: float) -> None:
        self._settings = settings
        self.output = min(max(output, settings.low), settings.high)
        self._integral = self.output

    def update(self, target: float, reading: float, elapsed_s: float) -> float:
        """The output for a reading that came `elapsed_s` after the one before. Raises `ValueError` for no number."""
        if not (math.isfinite(target) and math.isfinite(reading) and elapsed_s >= 0):
            raise ValueError(f"a loop cannot act on {reading} for {target} after {elapsed_s} s")
        settings = self._settings
        push = settings.gain * (target - reading)
        integral = self._integral + push * elapsed_s / settings.integral_s
        wanted = push + integral
        reach = settings.per_s * elapsed_s
        bounded = min(max(wanted, self.output - reach), self.output + reach)
        bounded = min(max(bounded, settings.low), settings.high)
        held_back = (wanted - bounded) * push > 0
        if not held_back:
            self._integral = min(max(integral, settings.low), settings.high)
        self.output = bounded
        return bounded
