"""GCS 2.0, the language of PI's controllers: questions, commands and errors of the axes behind one line."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from acquisition.devices import Limits
from acquisition.errors import DeviceFailed
from hardware_drivers.connection import Connection, Step

log = logging.getLogger(__name__)

# #24 acts even while the controller is busy; STP serves those that lack it. Both leave error 10 behind.
STOP = b"\x18STP\n"
MOTION_STATUS, END = b"\x05", b"\n"
NO_ERROR, STOPPED = 0, 10
ERRORS = {
    1: "parameter syntax error",
    5: "move of an axis that is not referenced or whose servo is off",
    7: "position out of the controller's limits",
    STOPPED: "stopped by command",
    15: "invalid axis identifier",
    51: "axis is under joystick control",
    83: "joystick is active",
    91: "collision",
    333: "hardware error",
    500: "emergency stop button is pressed",
    504: "following error: the axis did not follow its motion",
}


@dataclass(frozen=True, slots=True)
class PiAxis:
    """PI's name of an axis, its limits in metres, and its unit: 1000 for millimetres, 1e6 for micrometres."""

    name: str
    limits: Limits
    units_per_m: float = 1e3


class Gcs2Controller:
    """`axes` by the quantity that each is, such as `x_m`. Everything raises `DeviceFailed`.

    Source: PI manual PZ285 and design page hardware.md.
    """

    def __init__(self, name: str, address: str, axes: Mapping[str, PiAxis], *, baud: int, timeout_s: float) -> None:
        self.address = address
        self._name = name
        self._axes = axes
        self._connection = Connection(address, baud=baud, timeout_s=timeout_s)

    @property
    def in_step(self) -> bool:
        """See `Connection.in_step`."""
        return self._connection.in_step

    async def open(self, *greetings: bytes) -> None:
        await self._connection.open(*greetings)

    async def close(self) -> None:
        await self._connection.close()

    async def identify(self) -> str:
        """What it calls itself. Raises `DeviceFailed` when that is none of PI's."""
        (told,) = await self._connection.converse(Step(b"*IDN?\n", END))
        identification = told.decode("ascii", "replace").strip()
        if "Physik Instrumente" not in identification:
            raise self._nonsense("*IDN?", told)
        return identification

    async def command(self, command: str) -> None:
        """Send what has no answer of its own, and ask at once whether it was accepted."""
        error = await self._error(f"{command}\n".encode())
        if error != NO_ERROR:
            raise DeviceFailed(f"{self._name} refused {command}: {_meaning(error)}")

    async def forget_error(self, command: bytes) -> None:
        error = await self._error(command)
        if error not in (NO_ERROR, STOPPED):
            log.warning("%s had %s", self._name, _meaning(error))

    async def _error(self, command: bytes) -> int:
        """Send `command` and read the controller's error, which clears it."""
        (told,) = await self._connection.converse(Step(command + b"ERR?\n", END))
        try:
            return int(told)
        except ValueError:
            raise self._nonsense("ERR?", told) from None

    async def in_motion(self) -> bool:
        """The answer to #5 is hexadecimal with a bit per axis."""
        (told,) = await self._connection.converse(Step(MOTION_STATUS, END))
        try:
            return int(told.strip(), 16) != 0
        except ValueError:
            raise self._nonsense("#5", told) from None

    async def positions_m(self) -> dict[str, float]:
        told = await self._ask_axes("POS?")
        return {quantity: told[quantity] / axis.units_per_m for quantity, axis in self._axes.items()}

    async def ask_flags(self, question: str) -> dict[str, bool]:
        told = await self._ask_axes(question)
        if not set(told.values()) <= {0.0, 1.0}:
            raise self._nonsense(question, repr(told).encode())
        return {quantity: value == 1.0 for quantity, value in told.items()}

    async def _ask_axes(self, question: str) -> dict[str, float]:
        """The answer of every axis by its coordinate, e.g. `POS? 1` -> `1=25.3`. Raises `DeviceFailed`."""
        steps = [Step(f"{question} {axis.name}\n".encode(), END) for axis in self._axes.values()]
        answers = {}
        for (quantity, axis), told in zip(self._axes.items(), await self._connection.converse(*steps), strict=True):
            name, _, value = told.decode("ascii", "replace").partition("=")
            number = _number(value)
            if name.strip() != axis.name or not math.isfinite(number):
                raise self._nonsense(f"{question} {axis.name}", told)
            answers[quantity] = number
        return answers

    def _nonsense(self, asked: str, came: bytes) -> DeviceFailed:
        return DeviceFailed(
            f"{self._name} at {self.address} answered {came!r} to {asked}: check baud rate, axis names, "
            "and that a controller with GCS 2.0 is on this line"
        )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _meaning(error: int) -> str:
    return f"error {error}, {ERRORS.get(error, 'see the manual of the controller')}"
