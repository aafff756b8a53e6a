"""Who drives: at most one session holds the lab; the others look on until it lets go, falls silent or is relieved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from acquisition.errors import RequestRefused

LEASE_S = 30.0
Place = Literal["service", "terminal"]
SERVICE: Place = "service"
TERMINAL: Place = "terminal"


@dataclass(frozen=True, slots=True)
class Holder:
    """`session` is a random text of the holder's own choice, `name` what people see, `place` where it drives from."""

    session: str
    name: str
    since_utc_ns: int
    place: Place = SERVICE


class ControlLock:
    """A lease of `LEASE_S` that every request of the holder renews. While nobody holds it, everybody may drive.

    `way_out` says how one takes over here. `elsewhere` tells who drives in another place: nobody drives here then.
    """

    def __init__(self, way_out: str, seconds: Callable[[], float] = time.monotonic) -> None:
        self._way_out = way_out
        self._seconds = seconds
        self.elsewhere: Callable[[], Holder | None] = lambda: None
        self._changing = threading.Lock()
        self._holder: Holder | None = None
        self._until = 0.0

    @property
    def holder(self) -> Holder | None:
        return self._holder if self._seconds() < self._until else None

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - self._seconds())

    def take(self, session: str, name: str, *, take_over: bool = False, place: Place = SERVICE) -> Holder:
        """Raises `RequestRefused` while another session holds it, unless `take_over`."""
        with self._changing:
            holder, elsewhere = self.holder, self.elsewhere()
            if elsewhere is not None and not take_over:
                raise self._held_by(elsewhere)
            if holder is None or (holder.session, holder.name) != (session, name):
                if holder is not None and holder.session != session and not take_over:
                    raise self._held_by(holder)
                holder = Holder(session, name, time.time_ns(), place)
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
        holder = self.elsewhere() or self.holder
        if holder is not None and holder.session != session:
            raise self._held_by(holder)

    def tree(self) -> dict[str, Any] | None:
        """For those who look on; None while nobody holds it."""
        holder = self.holder
        if holder is None:
            return None
        told = {"holder": holder.name, "place": holder.place, "since_utc_ns": holder.since_utc_ns}
        return told | {"left_s": self.left_s}

    def _held_by(self, holder: Holder) -> RequestRefused:
        return RequestRefused(
            f"{holder.name} has control: wait, or take over {self._way_out}; nothing was done",
            permitted=("take_over", "off", "safe_state"),
        )
