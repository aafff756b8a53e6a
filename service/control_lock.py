"""Who drives: at most one session holds the lab; the others look on until it lets go, falls silent or is relieved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from acquisition.errors import RequestRefused

LEASE_S = 30.0


@dataclass(frozen=True, slots=True)
class Holder:
    """`session` is a random text of the holder's own choice, `name` what people see."""

    session: str
    name: str
    since_utc_ns: int


class ControlLock:
    """A lease of `LEASE_S` that every request of the holder renews. While nobody holds it, everybody may drive."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._changing = threading.Lock()
        self._holder: Holder | None = None
        self._until = 0.0

    @property
    def holder(self) -> Holder | None:
        return self._holder if self._seconds() < self._until else None

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - self._seconds())

    def take(self, session: str, name: str, *, take_over: bool = False) -> Holder:
        """Raises `RequestRefused` while another session holds it, unless `take_over`."""
        with self._changing:
            holder = self.holder
            if holder is None or holder.session != session:
                if holder is not None and not take_over:
                    raise _held_by(holder)
                holder = Holder(session, name, time.time_ns())
            self._holder, self._until = holder, self._seconds() + LEASE_S
            return holder

    def release(self, session: str) -> None:
        """Nothing happens when this session does not hold it."""
        with self._changing:
            if self._holder is not None and self._holder.session == session:
                self._holder, self._until = None, 0.0

    def seen(self, session: str) -> None:
        """A sign of life renews the holder's lease."""
        with self._changing:
            holder = self.holder
            if holder is not None and holder.session == session:
                self._until = self._seconds() + LEASE_S

    def require(self, session: str) -> None:
        """Raises `RequestRefused` when another session drives."""
        holder = self.holder
        if holder is not None and holder.session != session:
            raise _held_by(holder)


def _held_by(holder: Holder) -> RequestRefused:
    return RequestRefused(
        f"{holder.name} has control: wait, or take over with POST /api/v1/control; nothing was done",
        permitted=("take_over", "off", "safe_state"),
    )
