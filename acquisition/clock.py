"""Two clocks read together: monotonic time orders and ages things, UTC labels them for people."""

from __future__ import annotations

import time
from dataclasses import dataclass

NANOSECONDS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks of this host. A step of the UTC clock never reorders instants."""

    monotonic_ns: int
    utc_ns: int

    def seconds_since(self, earlier: Instant) -> float:
        """Elapsed seconds since `earlier` on the monotonic clock."""
        return (self.monotonic_ns - earlier.monotonic_ns) / NANOSECONDS_PER_SECOND

    def later(self, seconds: float) -> Instant:
        """The instant `seconds` after this one on both clocks."""
        step_ns = round(seconds * NANOSECONDS_PER_SECOND)
        return Instant(self.monotonic_ns + step_ns, self.utc_ns + step_ns)


def now() -> Instant:
    """The present moment."""
    return Instant(time.monotonic_ns(), time.time_ns())
