"""A connection that expects exactly the bytes of a script, in its order, and gives their answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hardware_drivers.connection import Connection, Step


class ScriptedConnection(Connection):
    """In memory, without a port. What differs from the script fails the test at once."""

    def __init__(self, script: list[tuple[bytes, bytes]]) -> None:
        super().__init__("script")
        self.script = list(script)
        self._is_open = False

    @property
    def in_step(self) -> bool:
        return self._is_open

    async def open(self, *greetings: bytes) -> None:
        self._is_open = True
        for greeting in greetings:
            self._speak(Step(greeting, b""))

    async def close(self) -> None:
        self._is_open = False

    async def converse(self, *steps: Step) -> list[bytes]:
        assert self._is_open
        return [self._speak(step) for step in steps]

    def _speak(self, step: Step) -> bytes:
        expected, answer = self.script.pop(0) if self.script else (b"", b"")
        assert step.request == expected
        assert answer.find(step.until) == len(answer) - len(step.until)
        return answer.removesuffix(step.until)


@asynccontextmanager
async def scripted(*script: tuple[bytes, bytes]) -> AsyncIterator[Connection]:
    """A connection to such an instrument; at the end the whole script must have been spoken, and the port be closed."""
    connection = ScriptedConnection(list(script))
    yield connection
    assert (connection.script, connection.in_step) == ([], False)
