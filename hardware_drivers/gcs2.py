"""A stage of PI axes whose controller speaks GCS 2.0, on serial (8N1) or TCP (`socket://host:50000`)."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

from acquisition.clock import Clock
from acquisition.devices import Limits, Reading, Readings, StagePosition, require_entered
from acquisition.errors import BadInput, DeviceFailed, RequestRefused
from hardware_drivers.gcs2_controller import STOP, Gcs2Controller, PiAxis
from hardware_drivers.probing import Probe, refuse_entered

log = logging.getLogger(__name__)

__all__ = ["Gcs2Stage", "PiAxis"]

QUANTITIES = ("x_m", "y_m", "z_m")
# No stage in a microscope stands further out than this; what tells more is misread.
FURTHEST_M = 1.0
ANSWERS_WITHIN_S = 0.5
POLL_S = 0.05
# How long after the motion's end an axis may take to settle on its target.
SETTLING_S = 2.0
STANDSTILL_POLLS = 40
LONGEST_MOVE_S = 600.0


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
        self._axes = {f"{coordinate}_m": axis for coordinate, axis in axes.items()}
        self._controller = Gcs2Controller(name, address, self._axes, baud=baud, timeout_s=timeout_s)
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
        await self._controller.open(STOP)
        try:
            self.identification = await self._controller.identify()
            await self._halt()
            await self._controller.ask_flags("FRF?")
        except BaseException:
            await self._controller.close()
            raise
        self._entered = True
        log.info("%s is %s at %s", self._name, self.identification, self._controller.address)
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
            await self._controller.close()

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
                await self._controller.command(f"MOV {' '.join(words)}")
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
            await self._controller.open()
            self.identification = await self._controller.identify()
            return Probe(self.identification, await self._look())
        finally:
            await self._controller.close()

    async def _look(self) -> Readings:
        referenced = await self._controller.ask_flags("FRF?")
        told_m = await self._positions_m()
        moving = await self._controller.in_motion() or self._moving
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
        for quantity, referenced in (await self._controller.ask_flags("FRF?")).items():
            if not referenced:
                raise RequestRefused(
                    f"{self._name} {quantity}: axis {self._axes[quantity].name} is not referenced and was not moved; "
                    "reference it with the maker's program first"
                )
        await self._controller.forget_error(b"")
        for quantity, servo in (await self._controller.ask_flags("SVO?")).items():
            if not servo:
                await self._controller.command(f"SVO {self._axes[quantity].name} 1")

    async def _arrive(self, target: StagePosition) -> StagePosition:
        began = self._clock.now()
        still_since = began
        while True:
            moving = await self._controller.in_motion()
            on_target = all((await self._controller.ask_flags("ONT?")).values())
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
        await self._controller.forget_error(STOP)
        for _ in range(STANDSTILL_POLLS):
            if not await self._controller.in_motion():
                return
            await asyncio.sleep(POLL_S)
        raise DeviceFailed(f"{self._name} still moves after it was stopped: use its emergency stop")

    async def _abandon(self) -> None:
        """Stop after another failure, which is the one to tell; on a fresh port when the old one broke."""
        try:
            if not self._controller.in_step:
                await self._controller.open(STOP)
            await self._halt()
        except DeviceFailed as failure:
            log.critical("%s may still move, use its emergency stop: %s", self._name, failure)

    async def _positions_m(self) -> dict[str, float]:
        return dict.fromkeys(QUANTITIES, 0.0) | await self._controller.positions_m()

    def _require_connection(self) -> None:
        require_entered(self._name, entered=self._entered)


def _shown(position: StagePosition) -> str:
    return f"({position.x_m:g}, {position.y_m:g}, {position.z_m:g}) m"


def _target(axis: PiAxis, position_m: float) -> str:
    """To a millionth of the axis's unit, and never as a power of ten, which not every controller reads."""
    number = f"{position_m * axis.units_per_m:.6f}".rstrip("0").rstrip(".")
    return f"{axis.name} {'0' if number == '-0' else number}"
