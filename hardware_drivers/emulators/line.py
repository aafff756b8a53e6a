"""What the emulators share: serving an instrument's bytes on TCP or on a pseudo-terminal, well or badly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from acquisition.errors import BadInput

CHUNK = 4096
HOST = "127.0.0.1"


class Fault(StrEnum):
    """How an emulator misbehaves. The line does those up to `UNPLUGGED`; the rest is for instruments that know it."""

    NONE = "none"
    SILENCE = "silence"
    GARBAGE = "garbage"
    HALF = "half"
    SLOW = "slow"
    UNPLUGGED = "unplugged"
    OVER_RANGE = "over_range"
    UNDER_RANGE = "under_range"
    NOT_READY = "not_ready"
    SENSOR = "sensor"
    REFUSING = "refusing"


class Instrument(Protocol):
    """Bytes in, bytes out. `fault` is set by the line; `receive` takes what came, in pieces of any size.

    `restart` forgets what was half received, as when the cable is plugged in anew.
    """

    fault: Fault

    def receive(self, data: bytes) -> bytes: ...

    def restart(self) -> None: ...


class Line:
    """Serves an instrument while entered, on TCP or, with `terminal`, on a pseudo-terminal (not on Windows).

    `address` is what a driver is given: `socket://127.0.0.1:port`, or a path that stays the same over unplugging.
    `fault` may be set at any time, also from within the world of a running test. With `Fault.SLOW` answers come
    `slow_s` late, on a pseudo-terminal also to whoever has opened it meanwhile, as on a real wire. Pseudo-terminals
    know no parity, so that a driver that sets one may be refused there.
    """

    def __init__(
        self, instrument: Instrument, *, port: int = 0, host: str = HOST, terminal: bool = False, slow_s: float = 3.0
    ) -> None:
        self.instrument = instrument
        self.slow_s = slow_s
        self.address = ""
        self._port = port
        self._host = host
        self._terminal = terminal
        self._fault = Fault.NONE
        self._noise = np.random.default_rng(1)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._ends: tuple[int, int] | None = None

    async def __aenter__(self) -> Self:
        if self._terminal:
            if os.name != "posix":
                raise BadInput("this system has no pseudo-terminals: serve the emulator on TCP")
            self._folder = tempfile.TemporaryDirectory(prefix="eclips-line-")
            self.address = str(Path(self._folder.name) / "tty")
            self._plug_terminal()
        else:
            self._server = await asyncio.start_server(self._serve, self._host, self._port)
            self._port = self._server.sockets[0].getsockname()[1]
            self.address = f"socket://{self._host}:{self._port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unplug()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def fault(self) -> Fault:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        was, self._fault = self._fault, fault
        self.instrument.fault = fault
        if fault is Fault.UNPLUGGED:
            self._unplug()
        elif was is Fault.UNPLUGGED:
            self.instrument.restart()
            if self._terminal:
                self._plug_terminal()

    def send(self, data: bytes) -> None:
        """Say something unasked, as an instrument that streams does."""
        for writer in self._writers:
            self._answer(data, writer.write)
        if self._ends is not None:
            self._answer(data, self._write_terminal)

    # TCP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.UNPLUGGED:
            writer.transport.abort()
            return
        self._writers.add(writer)
        self.instrument.restart()
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(CHUNK):
                    self._answer(self.instrument.receive(data), writer.write)
        finally:
            self._writers.discard(writer)
            writer.close()

    # Pseudo-terminal

    def _plug_terminal(self) -> None:
        """The instrument keeps the computer's end open too, so that closing there does not hang up here."""
        import tty

        instrument_end, computer_end = os.openpty()
        tty.setraw(computer_end)
        os.set_blocking(instrument_end, False)
        self._ends = (instrument_end, computer_end)
        Path(self.address).symlink_to(os.ttyname(computer_end))
        asyncio.get_running_loop().add_reader(instrument_end, self._read_terminal, instrument_end)

    def _read_terminal(self, end: int) -> None:
        with contextlib.suppress(OSError):
            self._answer(self.instrument.receive(os.read(end, CHUNK)), self._write_terminal)

    def _write_terminal(self, data: bytes) -> None:
        if self._ends is not None:
            with contextlib.suppress(BlockingIOError):  # nobody reads: on a wire the bytes would be lost too
                os.write(self._ends[0], data)

    # Faults

    def _answer(self, data: bytes, write: Callable[[bytes], None]) -> None:
        if not data or self._fault in (Fault.SILENCE, Fault.UNPLUGGED):
            return
        match self._fault:
            case Fault.GARBAGE:
                write(self._noise.bytes(len(data) - 1).replace(data[-1:], b"?") + data[-1:])
            case Fault.HALF:
                write(data[: len(data) // 2])
            case Fault.SLOW:
                asyncio.get_running_loop().call_later(self.slow_s, write, data)
            case _:
                write(data)

    def _unplug(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        if self._ends is not None:
            asyncio.get_running_loop().remove_reader(self._ends[0])
            for end in self._ends:
                os.close(end)
            self._ends = None
            Path(self.address).unlink()
