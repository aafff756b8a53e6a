"""A laser diode that heats the simulated specimen."""

from __future__ import annotations

from acquisition.devices import HeaterStatus, Limits, Readings
from acquisition.errors import RequestRefused
from hardware_drivers.simulated.device import SimulatedDevice
from hardware_drivers.simulated.world import World


class SimulatedLaserHeater(SimulatedDevice):
    """`current_limits` in amperes, `power_limits` in watts. The status is the world's, never what was last sent."""

    def __init__(self, name: str, world: World, current_limits: Limits, power_limits: Limits) -> None:
        super().__init__(name, world)
        self._current_limits = current_limits
        self._power_limits = power_limits

    async def arm(self) -> None:
        """Allow emission. Raises `RequestRefused` while the interlock is open."""
        self._require_connection()
        if not self._world.interlock_closed:
            raise RequestRefused(f"{self.name} stays off: its interlock is open; close it, then arm again")
        self._world.switch_laser(emitting=True)

    async def set_current(self, current_a: float) -> None:
        self._require_connection()
        self._current_limits.check(current_a, f"{self.name} current_a")
        self._world.drive_laser(current_a, emitting=self._world.laser_emitting)

    async def set_power(self, power_w: float) -> None:
        """Constant-power mode, until a current is set or the laser is off: the diode's current follows."""
        self._require_connection()
        self._power_limits.check(power_w, f"{self.name} power_w")
        self._world.hold_laser_power(power_w, self._current_limits.high)

    async def off(self) -> None:
        self._world.drive_laser(0.0, emitting=False)

    async def status(self) -> HeaterStatus:
        self._require_connection()
        emitting = self._world.laser_emitting
        return HeaterStatus(
            emission_on=emitting,
            interlock_closed=self._world.interlock_closed,
            current_a=self._world.laser_target_a if emitting else 0.0,
            current_target_a=self._world.laser_target_a,
        )

    async def read(self) -> Readings:
        status = await self.status()
        return {
            "current_a": self._reading(status.current_a),
            "current_target_a": self._reading(status.current_target_a),
            "emission": self._reading(status.emission_on),
            "interlock": self._reading(status.interlock_closed),
            "power_w": self._reading(self._world.laser_power_w),
        }

    async def _rest(self) -> None:
        await self.off()
