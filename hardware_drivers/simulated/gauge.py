"""A pressure gauge on the simulated chamber: capacitance gauges are right, Pirani gauges misread hydrogen."""

from __future__ import annotations

import math
from typing import Literal

from acquisition.devices import Readings
from hardware_drivers.simulated.device import SimulatedDevice
from hardware_drivers.simulated.world import BASE_PRESSURE_PA, World

NOISE_FRACTION = 2e-3
PIRANI_HYDROGEN_FACTOR = 2.0


class SimulatedPressureGauge(SimulatedDevice):
    """`full_scale_pa` is the highest pressure it can show; above, readings are invalid."""

    def __init__(
        self,
        name: str,
        world: World,
        technology: Literal["capacitance", "pirani"] = "capacitance",
        full_scale_pa: float = 1333.0,
    ) -> None:
        super().__init__(name, world)
        self._technology = technology
        self._full_scale_pa = full_scale_pa

    @property
    def technology(self) -> str:
        return self._technology

    async def read(self) -> Readings:
        self._require_connection()
        pressure_pa = self._indicated_pa() * (1 + NOISE_FRACTION * self._rng.standard_normal())
        if pressure_pa > self._full_scale_pa:
            return {
                "pressure_pa": self._reading(math.nan, f"above the gauge's full scale of {self._full_scale_pa:g} Pa")
            }
        return {"pressure_pa": self._reading(pressure_pa)}

    def _indicated_pa(self) -> float:
        if self._technology == "capacitance":
            return self._world.pressure_pa
        partial_pa = self._world.partial_pressures_pa
        weight = {"hydrogen": PIRANI_HYDROGEN_FACTOR}
        return BASE_PRESSURE_PA + sum(weight.get(gas, 1.0) * pressure for gas, pressure in partial_pa.items())
