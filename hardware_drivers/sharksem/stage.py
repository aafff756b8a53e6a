"""The stage of a TESCAN microscope: every move is polled, under the server's watchdog, and verified afterwards."""

from __future__ import annotations

import asyncio
import logging
import math
import time

from acquisition.clock import Clock
from acquisition.devices import Limits, Reading, Readings, StagePosition
from acquisition.errors import DeviceFailed, RequestRefused
from hardware_drivers.sharksem.client import SharkSemSession
from hardware_drivers.sharksem.device import SharkSemDevice
from hardware_drivers.sharksem.message import Body

log = logging.getLogger(__name__)

MM_PER_M = 1e3
POLL_S = 0.1
START_S = 1.0
"""By then a stage that took its order is busy, or there."""
WATCHDOG_S = 5
"""The server stops a move when it is asked for this long no more whether the stage is busy."""


class SharkSemStage(SharkSemDevice):
    """Positions in metres on the microscope's own axes (it counts in mm); rotation and tilt stay as they are.

    `tolerance_m`: how far from its target a move may end. `longest_move_s`: then it is stopped and has failed.
    Source: hardware.md, SharkSEM (`StgMoveTo`, `StgIsBusy`, `StgWatchdog`).
    """

    def __init__(
        self,
        name: str,
        session: SharkSemSession,
        x_limits: Limits,
        y_limits: Limits,
        z_limits: Limits,
        tolerance_m: float = 2e-6,
        longest_move_s: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, session, clock)
        self._limits = {"x_m": x_limits, "y_m": y_limits, "z_m": z_limits}
        self._tolerance_m = tolerance_m
        self._longest_move_s = longest_move_s
        self._moving = self._stopped = False

    async def move(self, target: StagePosition) -> StagePosition:
        """Move and verify. A move that `stop` ends early returns where it ended.

        Raises `LimitExceeded` before anything is sent, `RequestRefused` while the stage is busy or not calibrated, and
        `DeviceFailed` when it does not answer, moves for too long, or ends elsewhere: the microscope ignores or clamps
        what it cannot do without saying so.
        """
        self._require_entered()
        for axis, limits in self._limits.items():
            limits.check(getattr(target, axis), f"{self.name} {axis}")
        if self._moving:
            raise RequestRefused(f"{self.name} is moving; wait until it stands, or stop it", permitted=("stop",))
        self._moving, self._stopped = True, False
        standing = True
        try:
            await self._require_ready()
            start = await self._position()
            standing = False
            await self._travel(start, target)
            reached = await self._position()
            standing = True
        finally:
            if not standing:
                await self._halt()
            self._moving = False
        if not self._stopped:
            self._verify(start, reached, target)
        return reached

    async def stop(self) -> None:
        """Raises `DeviceFailed` when the microscope cannot be told; its watchdog then stops the stage."""
        self._stopped = True
        if self._entered:
            await self._session.order("StgStop")

    async def _look(self) -> Readings:
        """Also `rotation_deg` and `tilt_deg` of a stage that has them."""
        axes = await self._session.ask("StgGetPosition", answer=_axes)
        busy = await self._is_busy()
        values = {name: value / MM_PER_M for name, value in zip(("x_m", "y_m", "z_m"), axes, strict=False)}
        values |= dict(zip(("rotation_deg", "tilt_deg"), axes[3:], strict=False))
        values["moving"] = float(busy or self._moving)
        now = self._clock.now()
        return {name: Reading(value, True, now) for name, value in values.items()}

    async def _set_up(self) -> None:
        """A stage that moves is stopped."""
        await self._session.order("StgStop")

    async def _rest(self) -> None:
        self._stopped = True
        await self._session.order("StgStop")

    async def _require_ready(self) -> None:
        if not await self._session.ask("StgIsCalibrated", answer=Body.integer):
            raise RequestRefused(f"{self.name} is not calibrated; calibrate it at the microscope, then move it")
        if await self._is_busy():
            raise RequestRefused(
                f"{self.name} is being moved at the microscope; wait until it stands, or stop it", permitted=("stop",)
            )

    async def _travel(self, start: StagePosition, target: StagePosition) -> None:
        """Until the stage stands, as far as the microscope says."""
        # Servers that do not know the watchdog ignore it, and would not answer.
        await self._session.mention("StgWatchdog", WATCHDOG_S)
        if self._stopped:
            return
        goal_mm = (MM_PER_M * target.x_m, MM_PER_M * target.y_m, MM_PER_M * target.z_m)
        await self._session.order("StgMoveTo", *map(float, goal_mm))
        began, seen_moving = time.monotonic(), False
        way_m = _distance_m(start, target)
        while True:
            await asyncio.sleep(POLL_S)
            taken_s = time.monotonic() - began
            busy = await self._is_busy()
            if busy and taken_s > self._longest_move_s:
                raise DeviceFailed(f"{self.name} moves for more than {self._longest_move_s:g} s; it was stopped")
            seen_moving = seen_moving or busy
            if busy:
                continue
            if seen_moving or self._stopped or taken_s > START_S:
                return
            # A short move that has not begun yet is near its target too.
            if _distance_m(await self._position(), target) <= min(self._tolerance_m, 0.1 * way_m):
                return

    def _verify(self, start: StagePosition, reached: StagePosition, target: StagePosition) -> None:
        miss_m = _distance_m(reached, target)
        if miss_m <= self._tolerance_m:
            return
        what = "did not move" if _distance_m(start, reached) <= self._tolerance_m else "ended elsewhere"
        raise DeviceFailed(
            f"{self.name} {what}: it stands at {_told(reached)}, {miss_m:.3g} m from {_told(target)} (at most "
            f"{self._tolerance_m:g} m is allowed); the microscope ignores or clamps what is out of its range"
        )

    async def _halt(self) -> None:
        try:
            await self._session.order("StgStop")
        except DeviceFailed as failure:
            log.warning("%s: could not be stopped, its watchdog does within %d s: %s", self.name, WATCHDOG_S, failure)

    async def _position(self) -> StagePosition:
        x_mm, y_mm, z_mm = (await self._session.ask("StgGetPosition", answer=_axes))[:3]
        return StagePosition(x_mm / MM_PER_M, y_mm / MM_PER_M, z_mm / MM_PER_M)

    async def _is_busy(self) -> bool:
        return await self._session.ask("StgIsBusy", answer=Body.integer) != 0


def _axes(body: Body) -> tuple[float, ...]:
    """x, y, z in mm, then rotation and tilt in degrees where the stage has them."""
    first = (body.number(), body.number(), body.number())
    rest: list[float] = []
    while body.left and len(rest) < 2:
        rest.append(body.number())
    return (*first, *rest)


def _distance_m(one: StagePosition, other: StagePosition) -> float:
    return math.dist((one.x_m, one.y_m, one.z_m), (other.x_m, other.y_m, other.z_m))


def _told(position: StagePosition) -> str:
    return f"({position.x_m:g}, {position.y_m:g}, {position.z_m:g}) m"
