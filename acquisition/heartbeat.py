"""The heartbeat of a hardware relay in the laser's interlock loop: a line that toggles only while all is well.

The relay must be one that drops when edges stay away (a watchdog relay): then it also drops when this program is killed
or hangs, when the machine stops, and when the cable is pulled, whatever level the line was left at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from acquisition.clock import Clock
from acquisition.errors import EclipsError

log = logging.getLogger(__name__)

REOPEN_AFTER_S = 1.0
LONGEST_PERIOD_S = 0.8
"""Half of it, and the guard's patience with its own watch, are a second together."""


class HeartbeatLine(Protocol):
    """Where the edges leave the machine. Each call may block and raise `DeviceFailed`; each is made in a thread."""

    @property
    def name(self) -> str: ...

    def open(self) -> None: ...

    def set(self, high: bool) -> None: ...

    def close(self) -> None:
        """Leave the line low; harmless when closed."""
        ...


class RelayHeartbeat:
    """An edge every half `period_s` while `unwell` says nothing; each edge is judged anew, on the event loop that the
    guard and the recorder live on, so that a loop which hangs lets the relay drop too.

    `changed(reason)` is told each time the beat begins (empty) or ends, with why.
    """

    def __init__(
        self,
        line: HeartbeatLine,
        period_s: float,
        unwell: Callable[[], str],
        clock: Clock,
        changed: Callable[[str], None],
    ) -> None:
        self.reason = "not begun yet"
        self.edges = 0
        self._line = line
        self._period_s = period_s
        self._unwell = unwell
        self._clock = clock
        self._changed = changed
        self._last_edge = clock.now()
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._beat(), name="relay heartbeat")

    def end(self) -> None:
        """No further edge, from now on; see `closed`."""
        self._ending = True
        self.reason = "the acquisition program is ending"

    async def closed(self) -> None:
        """Wait until the line is left, low."""
        self.end()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=2 * REOPEN_AFTER_S)
            self._task.cancel()

    def tree(self) -> dict[str, Any]:
        """For people and programs. `beating` also needs that the last edge is not overdue."""
        age_s = self._clock.now().seconds_since(self._last_edge)
        late = "" if self.reason or age_s <= 2 * self._period_s else f"the line blocks since {age_s:.1f} s"
        return {
            "line": self._line.name,
            "period_s": self._period_s,
            "beating": not self.reason and not late,
            "reason": self.reason or late,
            "edges": self.edges,
        }

    async def _beat(self) -> None:
        while not self._ending:
            try:
                await asyncio.to_thread(self._line.open)
                await self._toggle()
            except (EclipsError, OSError) as error:
                self._now(f"{self._line.name} failed: {error}")
                await asyncio.sleep(REOPEN_AFTER_S)
            except Exception as error:
                log.exception("relay heartbeat")
                self._now(f"{type(error).__name__}: {error}")
                await asyncio.sleep(REOPEN_AFTER_S)
            finally:
                await asyncio.to_thread(self._line.close)

    async def _toggle(self) -> None:
        high = False
        while not self._ending:
            await asyncio.sleep(0)  # after a stall of the loop the guard's watch, which is due as well, goes first
            self._now(self._unwell())
            if not self.reason:
                high = not high
                await asyncio.to_thread(self._line.set, high)
                self.edges += 1
                self._last_edge = self._clock.now()
            await asyncio.sleep(0.5 * self._period_s)

    def _now(self, reason: str) -> None:
        """Why has figures that change all the time; only beginning and end are news."""
        news = bool(reason) != bool(self.reason) or self.reason == "not begun yet"
        self.reason = reason
        if news:
            self._changed(reason)
