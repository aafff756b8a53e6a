"""Threads that do a part of their work in the order in which they began."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self


class Turns:
    """Gives out turns, one after the other. For any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._drawn = 0
        self._over = 0

    def draw(self) -> Turn:
        """The next one. It has to be entered, or all that are drawn later wait for ever."""
        with self._changed:
            self._drawn += 1
            return Turn(self, self._drawn)

    def wait_for(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._over == number - 1)

    def end(self, number: int) -> None:
        self.wait_for(number)
        with self._changed:
            self._over = number
            self._changed.notify_all()


class Turn:
    """`with` it: what comes after its `wait` is done once all earlier turns have ended, and before any later one's.
    It ends with its block, waited for or not."""

    def __init__(self, turns: Turns, number: int) -> None:
        self._turns = turns
        self._number = number

    def __enter__(self) -> Self:
        return self

    def wait(self) -> None:
        self._turns.wait_for(self._number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.end(self._number)
