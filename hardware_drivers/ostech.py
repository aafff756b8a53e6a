"""A laser that heats, driven by an OsTech diode driver over its serial line.

Source: OsTech LDC manual, chapters 7 (remote control) and 9.3 (status and mode bits); what was not verified there is
read back instead of believed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from types import TracebackType
from typing import Self

from acquisition.clock import Clock
from acquisition.devices import HeaterStatus, Limits, Reading, Readings, require_entered
from acquisition.errors import DeviceFailed, RequestRefused
from hardware_drivers.connection import Connection, Step
from hardware_drivers.probing import Probe, refuse_entered

log = logging.getLogger(__name__)

LONGEST_LINE = 14
ANSWERS_WITHIN_S = 0.9
"""For a busy computer; a reading is lost after 2 s in any case. The safe state does not wait for it: the first bytes of
each try stop the laser, whether it answers or not."""
RESOLUTION_MA = 0.1
MEASURING_ERROR = 0.05

ECHO_OFF = 0x0002
BINARY = 0x0008
REDUCED = 0x8000
INTERLOCK_CLOSED = 0x0001
EMITTING = 0x4000

NUMBER = re.compile(r"-?[0-9]{1,6}(\.[0-9]+)?")
WORD = re.compile(r"[0-9]{1,5}")
COMMENTED = re.compile(r"([A-Za-z ]+: )?(?P<number>-?[0-9]{1,6}(\.[0-9]+)?)( [A-Za-z]+)?")

CANCEL = b"\x1b"
"""ESC takes back what somebody half typed."""

GREETINGS = (b"\x1bLS\r", b"LCT0\r", f"GMC{ECHO_OFF | BINARY}\r".encode(), f"GMS{REDUCED}\r".encode())
"""Stop, whatever was half typed before; then target 0; then answers with echo, as text, as bare values."""

FAULTS = (
    (0x0004, False, "its supply is not good"),
    (0x0008, False, "its driver is too hot"),
    (0x0400, False, "the diode's temperature sensor is missing"),
    (0x0800, False, "the crystal's temperature sensor is missing"),
    (0x0010, True, "the diode is above its temperature limit"),
    (0x0020, True, "the diode is below its temperature limit"),
    (0x0040, True, "the crystal is above its temperature limit"),
    (0x0080, True, "the crystal is below its temperature limit"),
    (0x2000, True, "the diode is above its maximum temperature"),
    (0x8000, True, "its current control reports an error"),
)
"""Bits of the status word, whether a set bit is bad, and what that means."""


class OsTechLaserHeater:
    """9600 8N1, one value per line, every character echoed; `current_limits` in amperes are set in the device too.

    The first bytes on each fresh port stop the laser. `arm`, `set_current` and `off` never overlap, so that no start
    can follow a stop that was asked for later. Each answer is taken only after the echo of its own question.
    It holds a current and no power: the maker's list of commands has no target for the light, only a photocurrent to
    read (`LPCA`).

    The instrument has no communication watchdog that is known: when this program, its computer or the cable dies, the
    laser stays as it was last told. Only a relay in its interlock loop that needs this program's heartbeat, or a
    hand, takes it off then. An open interlock that is read stops the laser also by command, so that closing the loop
    alone resumes nothing.
    """

    def __init__(
        self, name: str, address: str, clock: Clock, current_limits: Limits, timeout_s: float = ANSWERS_WITHIN_S
    ) -> None:
        self._name = name
        self._clock = clock
        self._current_limits = current_limits
        self._connection = Connection(address, baud=9600, timeout_s=timeout_s)
        self._commands = asyncio.Lock()
        self._entered = False

    @property
    def name(self) -> str:
        return self._name

    async def __aenter__(self) -> Self:
        async with self._commands:
            try:
                await self._open_at_rest()
                await self._limit_the_device()
            except BaseException:
                await self._connection.close()
                raise
            self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.off()
        except DeviceFailed as failure:
            if error is None:
                raise
            log.critical("%s may still be on, cut its power by hand: %s", self.name, failure)
        finally:
            self._entered = False
            await self._connection.close()

    async def arm(self) -> None:
        """Let the laser run at its present target. Raises `RequestRefused` while the interlock is open."""
        self._require_entered()
        async with self._commands:
            if not await self._status_word() & INTERLOCK_CLOSED:
                raise RequestRefused(f"{self.name} stays off: its interlock is open; close it, then arm again")
            await self._ask("LR")
            word = await self._status_word()
            faults = _faults(word)
            if not word & EMITTING and faults:
                raise DeviceFailed(f"{self.name} did not start: {'; '.join(faults)} (status word {word:#06x})")

    async def set_current(self, current_a: float) -> None:
        """Raises `LimitExceeded` before anything is sent, and `DeviceFailed` when it is not taken over as asked."""
        self._require_entered()
        self._current_limits.check(current_a, f"{self.name} current_a")
        async with self._commands:
            await self._set("LCT", current_a * 1e3)

    async def off(self) -> None:
        """Stop, then target 0, also outside the context, where the port is left open for the caller to verify.

        An exchange that breaks is tried again on a fresh port, once; then raises `DeviceFailed`.
        """
        async with self._commands:
            if self._connection.in_step:
                try:
                    return await self._stop()
                except DeviceFailed as failure:
                    log.warning("%s: stopping it again on a fresh port, as %s", self.name, failure)
            return await self._open_at_rest()

    async def status(self) -> HeaterStatus:
        """Read back from the device. Raises `DeviceFailed`, also for a current that cannot be."""
        return (await self._look())[0]

    async def read(self) -> Readings:
        """Besides what every heater reads: `healthy` is 1, or invalid with the faults in words."""
        self._require_entered()
        status, faults = await self._look()
        if not status.interlock_closed and (status.emission_on or status.current_target_a > 0):
            await self.off()
            status, faults = await self._look()
        return self._readings(status, faults)

    async def probe(self) -> Probe:
        """See `hardware_drivers.probing`: it may answer in another mode than this driver sets, which stays as it is."""
        refuse_entered(self._name, entered=self._entered)
        try:
            await self._connection.open(CANCEL)
            echoes = (await self._connection.ask(b"GM\r", b"\r")).endswith(b"GM")
            await self._connection.open(CANCEL)
            told = [await self._number_in_any_mode(line, echoes) for line in ("GS", "LCA", "LCT")]
        finally:
            await self._connection.close()
        word, current_a, target_a = int(told[0]), 1e-3 * told[1], 1e-3 * told[2]
        return Probe("", self._readings(_status(word, current_a, target_a), _faults(word)))

    def _readings(self, status: HeaterStatus, faults: list[str]) -> Readings:
        return {
            "current_a": self._reading(status.current_a),
            "current_target_a": self._reading(status.current_target_a),
            "emission": self._reading(status.emission_on),
            "interlock": self._reading(status.interlock_closed),
            "healthy": self._reading(not faults, "; ".join(faults)),
        }

    # What the instrument is told

    async def _open_at_rest(self) -> None:
        await self._connection.open(*GREETINGS)
        mode = await self._word("GM")
        if mode & (ECHO_OFF | BINARY) or not mode & REDUCED:
            raise DeviceFailed(f"{self._where} does not take the mode it needs (reads {mode:#06x}): is it an OsTech?")
        await self._stop()

    async def _stop(self) -> None:
        await self._ask("LS")
        await self._set("LCT", 0.0)

    async def _limit_the_device(self) -> None:
        limit_ma = self._current_limits.high * 1e3
        await self._number(f"LCL{limit_ma:.1f}")
        held_ma = await self._number("LCL")
        if abs(held_ma - limit_ma) > RESOLUTION_MA:
            raise DeviceFailed(
                f"{self._where} holds a current limit of {held_ma:g} mA instead of {limit_ma:g} mA: "
                f"set {self._current_limits.setting} to what the diode may carry"
            )

    async def _look(self) -> tuple[HeaterStatus, list[str]]:
        word = await self._status_word()
        current_a, target_a = 1e-3 * await self._number("LCA"), 1e-3 * await self._number("LCT")
        ceiling_a = self._current_limits.high * (1 + MEASURING_ERROR)
        for what, value_a in (("current", current_a), ("current target", target_a)):
            if abs(value_a) > ceiling_a:
                raise DeviceFailed(
                    f"{self._where} reads a {what} of {value_a:g} A, above its limit of "
                    f"{self._current_limits.high:g} A ({self._current_limits.setting}): it is brought to rest"
                )
        return _status(word, current_a, target_a), _faults(word)

    # Lines

    async def _status_word(self) -> int:
        return await self._word("GS")

    async def _set(self, command: str, value_ma: float) -> None:
        taken_ma = await self._number(f"{command}{value_ma:.1f}")
        if abs(taken_ma - value_ma) > RESOLUTION_MA:
            raise DeviceFailed(f"{self._where} took {command} as {taken_ma:g} mA instead of {value_ma:g} mA")

    async def _number(self, line: str) -> float:
        answer = await self._ask(line)
        if not NUMBER.fullmatch(answer):
            raise self._nonsense(line, answer)
        return float(answer)

    async def _number_in_any_mode(self, line: str, echoes: bool) -> float:
        """Of `GS` or `Status: 3085`, `LCA` or `Laser Current Actual: 0.0 mA`, echoed first or not."""
        steps = [Step(f"{line}\r".encode(), b"\r"), *([Step(b"", b"\r")] if echoes else [])]
        answer = (await self._connection.converse(*steps))[-1].decode("ascii", "replace").strip()
        told = COMMENTED.fullmatch(answer)
        if told is None:
            raise self._nonsense(line, answer)
        return float(told["number"])

    async def _word(self, line: str) -> int:
        answer = await self._ask(line)
        if not WORD.fullmatch(answer):
            raise self._nonsense(line, answer)
        return int(answer)

    async def _ask(self, line: str) -> str:
        if len(line) > LONGEST_LINE:
            raise DeviceFailed(f"{self.name}: {line!r} is longer than the {LONGEST_LINE} characters the line may have")
        echo, answer = await self._connection.converse(Step(f"{line}\r".encode(), b"\r"), Step(b"", b"\r"))
        if echo != line.encode():
            raise self._nonsense(line, f"{echo!r} for an echo")
        return answer.decode("ascii", "replace").strip()

    def _nonsense(self, line: str, answer: str) -> DeviceFailed:
        return DeviceFailed(f"{self._where} answered {line!r} with {answer!r}: check baud rate, cable and instrument")

    @property
    def _where(self) -> str:
        return f"{self.name} at {self._connection.address}"

    def _require_entered(self) -> None:
        require_entered(self.name, entered=self._entered)

    def _reading(self, value: float, reason: str = "") -> Reading:
        return Reading(float(value), not reason, self._clock.now(), reason)


def _status(word: int, current_a: float, target_a: float) -> HeaterStatus:
    return HeaterStatus(bool(word & EMITTING), bool(word & INTERLOCK_CLOSED), current_a, target_a)


def _faults(word: int) -> list[str]:
    return [meaning for bit, bad_when_set, meaning in FAULTS if bool(word & bit) == bad_when_set]
