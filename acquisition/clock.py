"""Two clocks read together: monotonic time orders and ages things, UTC labels them for people."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

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


class Clock(Protocol):
    """What paces a source of frames: the real clock at a microscope, a virtual one when simulating offline."""

    def now(self) -> Instant: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """This host's clocks."""

    def now(self) -> Instant:
        return Instant(time.monotonic_ns(), time.time_ns())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class LoopClock:
    """The running event loop's time: for work on a loop whose time leaps (`acquisition.leaping`)."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._start = SystemClock().now()

    def now(self) -> Instant:
        return self._start.later(self._loop.time() - self._began_s)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class VirtualClock:
    """Time that passes only by sleeping, and then at once: an hour-long run is simulated as fast as it computes."""

    def __init__(self, start: Instant | None = None) -> None:
        self._now = start or SystemClock().now()

    def now(self) -> Instant:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._now = self._now.later(max(0.0, seconds))
        await asyncio.sleep(0)
