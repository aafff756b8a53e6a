"""A motorised stage that carries the simulated specimen under the beam."""

from __future__ import annotations

import math

import numpy as np

from acquisition.devices import Limits, Readings, StagePosition
from acquisition.errors import DeviceFailed, RequestRefused
from hardware_drivers.simulated.device import SimulatedDevice
from hardware_drivers.simulated.world import World

SPEED_M_PER_S = 50e-6
SETTLING_S = 0.1
POLL_S = 0.05
REPEATABILITY_M = 10e-9
TOLERANCE_M = 100e-9


class SimulatedStage(SimulatedDevice):
    """Moves in a straight line at constant speed; it repeats a position to some 10 nm, and tells where it stands."""

    def __init__(self, name: str, world: World, x_limits: Limits, y_limits: Limits, z_limits: Limits) -> None:
        super().__init__(name, world)
        self._limits = {"x_m": x_limits, "y_m": y_limits, "z_m": z_limits}
        self._moving = False
        self._stopped = False

    async def move(self, target: StagePosition) -> StagePosition:
        """Move and verify. A move that `stop` ends early returns where it ended.

        Raises `LimitExceeded` before anything moves, `RequestRefused` while another move runs, and `DeviceFailed`
        when the stage ends further than 100 nm from the target.
        """
        self._require_connection()
        for axis, limits in self._limits.items():
            limits.check(getattr(target, axis), f"{self.name} {axis}")
        if self._moving:
            raise RequestRefused(f"{self.name} is moving; wait until it stands, or stop it", permitted=("stop",))
        self._moving, self._stopped = True, False
        try:
            await self._travel(np.array([target.x_m, target.y_m, target.z_m]))
        finally:
            self._moving = False
        reached = self._world.stage
        miss_m = math.dist((reached.x_m, reached.y_m, reached.z_m), (target.x_m, target.y_m, target.z_m))
        if miss_m > TOLERANCE_M and not self._stopped:
            raise DeviceFailed(f"{self.name} ended {miss_m:g} m from its target (at most {TOLERANCE_M:g} m is allowed)")
        return reached

    async def stop(self) -> None:
        self._stopped = True

    async def read(self) -> Readings:
        self._require_connection()
        stage = self._world.stage
        return {
            "x_m": self._reading(stage.x_m),
            "y_m": self._reading(stage.y_m),
            "z_m": self._reading(stage.z_m),
            "moving": self._reading(self._moving),
        }

    async def _rest(self) -> None:
        await self.stop()

    async def _travel(self, target: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        clock, stage = self._world.clock, self._world.stage
        start = np.array([stage.x_m, stage.y_m, stage.z_m])
        end = target + REPEATABILITY_M * self._rng.standard_normal(3).clip(-3, 3)
        duration_s = float(np.linalg.norm(end - start)) / SPEED_M_PER_S
        began = clock.now()
        while not self._stopped:
            share = 1.0 if duration_s == 0 else min(clock.now().seconds_since(began) / duration_s, 1.0)
            self._world.stage = StagePosition(*(float(axis) for axis in start + share * (end - start)))
            if share == 1.0:
                await clock.sleep(SETTLING_S)
                return
            await clock.sleep(min(POLL_S, duration_s))
