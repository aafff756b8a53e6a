"""A program that a busy machine keeps from reading: what an instrument said in time still counts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from acquisition.errors import DeviceFailed
from hardware_drivers import connection
from hardware_drivers.connection import Connection

TIMEOUT_S = 0.2


class BusyPort:
    """Its first byte is handed over after the timeout, although the whole answer has been there at once."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._left = b""
        self._kept = True

    def reset_input_buffer(self) -> None: ...

    def write(self, data: bytes) -> None:
        self._left = self._answer

    def close(self) -> None: ...

    def read(self, count: int) -> bytes:
        if self._kept and self._left:
            time.sleep(1.5 * TIMEOUT_S)
            self._kept = False
        taken, self._left = self._left[:count], self._left[count:]
        return taken


async def asked(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> bytes:
    def port(*_: Any, **__: Any) -> BusyPort:
        return BusyPort(answer)

    monkeypatch.setattr(connection.serial, "serial_for_url", port)
    line = Connection("socket://127.0.0.1:1", timeout_s=TIMEOUT_S)
    await line.open()
    try:
        return await line.ask(b"?\r", b"\r")
    finally:
        await line.close()


async def test_an_answer_that_was_there_in_time_is_taken_however_late_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await asked(monkeypatch, b"05237\r") == b"05237"


async def test_half_an_answer_is_none_however_late_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceFailed, match="no whole answer"):
        await asked(monkeypatch, b"052")
