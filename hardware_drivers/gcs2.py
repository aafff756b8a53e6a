"""A stage of PI axes whose controller speaks GCS 2.0, on serial (8N1) or TCP (`socket://host:50000`)."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from acquisition.clock import Clock
from acquisition.devices import Limits, Reading, Readings, StagePosition, require_entered
from acquisition.errors import BadInput, DeviceFailed, RequestRefused
from hardware_drivers.connection import Connection, Step
from hardware_drivers.probing import Probe, refuse_entered

log = logging.getLogger(__name__)

QUANTITIES = ("x_m", "y_m", "z_m")
# No stage in a microscope stands further out than this; what tells more is misread.
FURTHEST_M = 1.0
ANSWERS_WITHIN_S = 0.5
POLL_S = 0.05
# How long after the motion's end an axis may take to settle on its target.
SETTLING_S = 2.0
STANDSTILL_POLLS = 40
LONGEST_MOVE_S = 600.0
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


class Gcs2Stage:
    """A coordinate without an axis stands at 0 and cannot be moved. Entering stops all motion and moves nothing.

    An axis that has lost its reference has no known position: its readings are invalid, and moves are refused until it
    is referenced with the maker's program. Source: PI manual PZ285 and design page hardware.md.
    """

    def __init__(
        self,
        name: str,
        address: str,
        clock: Clock,
        axes: Mapping[Literal["x", "y", "z"], PiAxis],
        *,
        tolerance_m: float = 1e-6,
        baud: int = 38400,
        timeout_s: float = ANSWERS_WITHIN_S,
    ) -> None:
        if not axes or not set(axes) <= {"x", "y", "z"}:
            raise BadInput(f"{name} has axes {', '.join(axes) or 'none'}; a stage has some of x, y and z")
        self._name = name
        self._connection = Connection(address, baud=baud, timeout_s=timeout_s)
        self._axes = {f"{coordinate}_m": axis for coordinate, axis in axes.items()}
        fixed = Limits(0.0, 0.0, f"{name} has no such axis")
        self._limits = dict.fromkeys(QUANTITIES, fixed) | {at: axis.limits for at, axis in self._axes.items()}
        self._clock = clock
        self._tolerance_m = tolerance_m
        self._entered = False
        self._moving = False
        self._stopped = False
        self.identification = ""

    @property
    def name(self) -> str:
        return self._name

    async def __aenter__(self) -> Self:
        await self._connection.open(STOP)
        try:
            await self._identify()
            await self._halt()
            await self._ask_flags("FRF?")
        except BaseException:
            await self._connection.close()
            raise
        self._entered = True
        log.info("%s is %s at %s", self._name, self.identification, self._connection.address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered, self._stopped = False, True
        try:
            if error is None:
                await self._halt()
            else:
                await self._abandon()
        finally:
            await self._connection.close()

    async def move(self, target: StagePosition) -> StagePosition:
        """Move all axes and verify. A move that `stop` ends early returns where it ended.

        Raises `LimitExceeded` before anything is sent, `RequestRefused` while another move runs or without a reference,
        and `DeviceFailed` with where the stage stands when it does not end within `tolerance_m` of the target. A move
        that fails or is cancelled is stopped.
        """
        self._require_connection()
        for quantity in QUANTITIES:
            self._limits[quantity].check(getattr(target, quantity), f"{self._name} {quantity}")
        if self._moving:
            raise RequestRefused(f"{self._name} is moving; wait until it stands, or stop it", permitted=("stop",))
        self._moving, self._stopped = True, False
        try:
            await self._prepare()
            if not self._stopped:
                words = [_target(axis, getattr(target, quantity)) for quantity, axis in self._axes.items()]
                await self._command(f"MOV {' '.join(words)}")
            return await self._arrive(target)
        except (asyncio.CancelledError, DeviceFailed):
            if self._entered:  # otherwise leaving stops it
                await self._abandon()
            raise
        finally:
            self._moving = False

    async def stop(self) -> None:
        """Stop every axis at once and verify that all stand. Raises `DeviceFailed` when they do not."""
        self._require_connection()
        self._stopped = True
        await self._halt()

    async def read(self) -> Readings:
        self._require_connection()
        return await self._look()

    async def probe(self) -> Probe:
        """See `hardware_drivers.probing`. Axes go on moving, and an error stays to be read."""
        refuse_entered(self._name, entered=self._entered)
        try:
            await self._connection.open()
            await self._identify()
            return Probe(self.identification, await self._look())
        finally:
            await self._connection.close()

    async def _identify(self) -> None:
        (told,) = await self._connection.converse(Step(b"*IDN?\n", END))
        self.identification = told.decode("ascii", "replace").strip()
        if "Physik Instrumente" not in self.identification:
            raise self._nonsense("*IDN?", told)

    async def _look(self) -> Readings:
        referenced = await self._ask_flags("FRF?")
        told_m = await self._positions_m()
        moving = await self._in_motion() or self._moving
        now = self._clock.now()
        readings = {"moving": Reading(float(moving), True, now)}
        for quantity, value_m in told_m.items():
            reason = "" if abs(value_m) <= FURTHEST_M else f"{value_m:g} m is no position of a stage"
            if not referenced.get(quantity, True):
                reason = f"axis {self._axes[quantity].name} is not referenced, so that its position is unknown"
            readings[quantity] = Reading(math.nan if reason else value_m, not reason, now, reason)
        return readings

    async def _prepare(self) -> None:
        """Refuse unreferenced axes; switch servos on that are off; read away an error left from before."""
        for quantity, referenced in (await self._ask_flags("FRF?")).items():
            if not referenced:
                raise RequestRefused(
                    f"{self._name} {quantity}: axis {self._axes[quantity].name} is not referenced and was not moved; "
                    "reference it with the maker's program first"
                )
        await self._forget_error(b"")
        for quantity, servo in (await self._ask_flags("SVO?")).items():
            if not servo:
                await self._command(f"SVO {self._axes[quantity].name} 1")

    async def _arrive(self, target: StagePosition) -> StagePosition:
        began = self._clock.now()
        still_since = began
        while True:
            moving = await self._in_motion()
            on_target = all((await self._ask_flags("ONT?")).values())
            stands_m = await self._positions_m()
            reached = StagePosition(**stands_m)
            miss_m = max(abs(stands_m[quantity] - getattr(target, quantity)) for quantity in QUANTITIES)
            if not moving and (self._stopped or (on_target and miss_m <= self._tolerance_m)):
                return reached
            now = self._clock.now()
            still_since = now if moving else still_since
            if now.seconds_since(still_since) > SETTLING_S or now.seconds_since(began) > LONGEST_MOVE_S:
                raise DeviceFailed(
                    f"{self._name} did not reach its target: it stands at {_shown(reached)}, {miss_m:g} m from "
                    f"{_shown(target)} (at most {self._tolerance_m:g} m is allowed) and "
                    f"{'still moves' if moving else 'does not move'}; it is stopped: look for an obstacle, "
                    "joystick or limit, then move again"
                )
            await self._clock.sleep(POLL_S)

    async def _halt(self) -> None:
        """What counts is the standstill, not what the controller says of the command."""
        await self._forget_error(STOP)
        for _ in range(STANDSTILL_POLLS):
            if not await self._in_motion():
                return
            await asyncio.sleep(POLL_S)
        raise DeviceFailed(f"{self._name} still moves after it was stopped: use its emergency stop")

    async def _abandon(self) -> None:
        """Stop after another failure, which is the one to tell; on a fresh port when the old one broke."""
        try:
            if not self._connection.in_step:
                await self._connection.open(STOP)
            await self._halt()
        except DeviceFailed as failure:
            log.critical("%s may still move, use its emergency stop: %s", self._name, failure)

    async def _command(self, command: str) -> None:
        """Send what has no answer of its own, and ask at once whether it was accepted."""
        error = await self._error(f"{command}\n".encode())
        if error != NO_ERROR:
            raise DeviceFailed(f"{self._name} refused {command}: {_meaning(error)}")

    async def _forget_error(self, command: bytes) -> None:
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

    async def _in_motion(self) -> bool:
        """The answer to #5 is hexadecimal with a bit per axis."""
        (told,) = await self._connection.converse(Step(MOTION_STATUS, END))
        try:
            return int(told.strip(), 16) != 0
        except ValueError:
            raise self._nonsense("#5", told) from None

    async def _positions_m(self) -> dict[str, float]:
        told = await self._ask_axes("POS?")
        stands_m = {quantity: told[quantity] / axis.units_per_m for quantity, axis in self._axes.items()}
        return dict.fromkeys(QUANTITIES, 0.0) | stands_m

    async def _ask_flags(self, question: str) -> dict[str, bool]:
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

    def _require_connection(self) -> None:
        require_entered(self._name, entered=self._entered)

    def _nonsense(self, asked: str, came: bytes) -> DeviceFailed:
        return DeviceFailed(
            f"{self._name} at {self._connection.address} answered {came!r} to {asked}: check baud rate, axis names, "
            "and that a controller with GCS 2.0 is on this line"
        )


def _shown(position: StagePosition) -> str:
    return f"({position.x_m:g}, {position.y_m:g}, {position.z_m:g}) m"


def _target(axis: PiAxis, position_m: float) -> str:
    """To a millionth of the axis's unit, and never as a power of ten, which not every controller reads."""
    number = f"{position_m * axis.units_per_m:.6f}".rstrip("0").rstrip(".")
    return f"{axis.name} {'0' if number == '-0' else number}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _meaning(error: int) -> str:
    return f"error {error}, {ERRORS.get(error, 'see the manual of the controller')}"
