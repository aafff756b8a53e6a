"""Bytes to and from one instrument: a serial port or a TCP socket, its one thread, and a timeout without exception."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import serial

from acquisition.errors import DeviceFailed

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

OPEN_TIMEOUT_S = 2.0
SETTLE_S = 0.05
HANG_AFTER_S = 0.5
POLL_S = 0.02
LONGEST_ANSWER = 65536


@dataclass(frozen=True, slots=True)
class Step:
    """Part of an exchange: send `request`, then read up to and with `until`; what is empty is left out."""

    request: bytes
    until: bytes


class Connection:
    """One instrument's line, opened from `/dev/ttyUSB0`, `COM3` or `socket://host:port`.

    Exchanges follow one another and never interleave: a lock orders the tasks, and all input and output happens in
    the port's one thread. A task cancelled in the middle of an exchange leaves at once, while the thread finishes it;
    the next exchange begins only then, within that one's timeout. Each exchange drops stale input first.

    After an exchange that failed the connection is out of step, as an answer may still be on its way: everything is
    refused until `open` has made a fresh port and heard nothing on it for `timeout_s`. What comes later still can be
    known only by what it says, so drivers begin with questions whose answers they know.
    """

    def __init__(
        self,
        address: str,
        *,
        baud: int = 9600,
        data_bits: Literal[5, 6, 7, 8] = 8,
        parity: Literal["N", "E", "O"] = "N",
        stop_bits: Literal[1, 2] = 1,
        timeout_s: float = 1.0,
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._settings = {"baudrate": baud, "bytesize": data_bits, "parity": parity, "stopbits": stop_bits}
        self._port: _Port | None = None
        self._owed = False
        self._lock = asyncio.Lock()

    @property
    def in_step(self) -> bool:
        """Whether the next exchange may be tried: open, and none has failed since."""
        return self._port is not None and not self._port.lost

    async def open(self, *greetings: bytes) -> None:
        """Open a fresh port (closing one that is open) and drop all that comes, until it is silent.

        Each greeting is sent at once and then its answer dropped: what must reach the instrument before anything is
        asked of it, whatever state it is in. Raises `DeviceFailed`.
        """
        async with self._lock:
            await self._close(wait=True)
            port = self._port = _Port(self.address, self._settings, self.timeout_s)
            silence_s = self.timeout_s if self._owed else SETTLE_S
            limit_s = OPEN_TIMEOUT_S + self.timeout_s * (2 + len(greetings))
            try:
                await self._in_thread(port, lambda: port.open(greetings, silence_s), limit_s)
            except BaseException:
                await self._close(wait=False)
                raise
            self._owed = False

    async def close(self) -> None:
        """Close the port; harmless when closed, and never raises."""
        async with self._lock:
            await self._close(wait=True)

    async def ask(self, request: bytes, until: bytes) -> bytes:
        """Send `request` and return what comes, up to and without `until`. Raises `DeviceFailed` within the timeout."""
        return (await self.converse(Step(request, until)))[0]

    async def tell(self, request: bytes) -> None:
        """Send what the instrument does not answer. Raises `DeviceFailed`."""
        await self.converse(Step(request, b""))

    async def converse(self, *steps: Step) -> list[bytes]:
        """Several steps as one exchange that no other task comes between, each with the timeout of its own.

        Returns each step's answer without its `until`. Raises `DeviceFailed`.
        """
        async with self._lock:
            port = self._port
            if port is None:
                raise DeviceFailed(f"{self.address} is not open; nothing was sent: connect the device first")
            # A cancelled exchange may occupy the thread before this one: hence twice the time.
            limit_s = 2 * len(steps) * self.timeout_s + HANG_AFTER_S
            return await self._in_thread(port, lambda: port.converse(steps), limit_s)

    async def _in_thread(self, port: _Port, job: Callable[[], Answer], limit_s: float) -> Answer:
        """Within the limit even if the operating system's driver hangs; cancelling drops a job not yet begun."""
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.get_running_loop().run_in_executor(port.thread, job)
        except TimeoutError:
            port.lost = f"its port hung for {limit_s:g} s"
            raise DeviceFailed(
                f"{self.address}: {port.lost}; check that the address is right, or unplug the adapter and plug it in"
            ) from None

    async def _close(self, wait: bool) -> None:
        port, self._port = self._port, None
        if port is None:
            return
        port.lost = port.lost or "it was closed"
        closing = asyncio.get_running_loop().run_in_executor(port.thread, port.close)
        port.thread.shutdown(wait=False)
        if wait:
            await asyncio.wait({closing}, timeout=self.timeout_s + HANG_AFTER_S)
        self._owed = self._owed or port.owes


class _Port:
    """What lives in the port's own thread. `lost` says why nothing more may be asked, and is empty while in step;
    `owes` means that an answer may still come."""

    def __init__(self, address: str, settings: dict[str, Any], timeout_s: float) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=address)
        self.lost = ""
        self.owes = False
        self._address = address
        self._settings = settings
        self._timeout_s = timeout_s
        self._serial: Any = None

    def open(self, greetings: tuple[bytes, ...], silence_s: float) -> None:
        try:
            # Exclusive, as two programs on one laser's port would take each other's answers.
            self._serial = serial.serial_for_url(
                self._address, timeout=POLL_S, write_timeout=self._timeout_s, exclusive=True, **self._settings
            )
            for greeting in greetings:
                self._serial.write(greeting)
                self._settle(SETTLE_S)
            self._settle(silence_s)
        except Exception as error:
            self.lost = f"could not be opened ({error})"
            raise DeviceFailed(
                f"{self._address} {self.lost}: check cable, power and address, and that no other program holds it"
            ) from error

    def close(self) -> None:
        try:
            if self._serial is not None:
                self._serial.close()
        except Exception as error:  # what cannot be closed is gone
            log.debug("closing %s: %s", self._address, error)

    def converse(self, steps: tuple[Step, ...]) -> list[bytes]:
        if self.lost:
            raise DeviceFailed(
                f"{self._address} is out of step: {self.lost}; nothing was sent: it is connected anew by itself"
            )
        try:
            self._serial.reset_input_buffer()
            self.owes = True
            answers = [self._take(step) for step in steps]
            self.owes = False
            return answers
        except DeviceFailed as error:
            self.lost = self.lost or str(error)
            raise
        except Exception as error:  # pyserial lets more than OSError through, such as termios.error
            self.lost = f"the connection broke ({error})"
            sent = " ".join(repr(step.request) for step in steps)
            raise DeviceFailed(f"{self._address}: {self.lost} at {sent}: check cable, power and address") from error

    def _take(self, step: Step) -> bytes:
        if self.lost:  # given up while this thread hung: what it would send now is no longer wanted
            raise DeviceFailed(f"{self._address}: {self.lost}; {step.request!r} was not sent")
        if step.request:
            self._serial.write(step.request)
        came = bytearray()
        ends = time.monotonic() + self._timeout_s
        while not came.endswith(step.until):
            more = self._serial.read(1)
            # What came in time counts, even if this thread was kept from reading it on a busy machine.
            late_s = time.monotonic() - ends
            if (late_s > 0 and not more) or late_s > self._timeout_s or len(came) > LONGEST_ANSWER:
                raise DeviceFailed(
                    f"{self._address}: no whole answer to {step.request!r} within {self._timeout_s:g} s, came "
                    f"{bytes(came[:80])!r}: check power, cable, baud rate and parity"
                )
            came += more
        return bytes(came[: len(came) - len(step.until)])

    def _settle(self, silence_s: float) -> None:
        """Read away what still comes, until it is silent; an instrument that never is fails when it is asked."""
        quiet_since = time.monotonic()
        ends = quiet_since + self._timeout_s + silence_s
        while time.monotonic() < min(ends, quiet_since + silence_s):
            if self._serial.read(1):
                quiet_since = time.monotonic()
