"""A mass flow controller that lets one gas into the simulated chamber."""

from __future__ import annotations

from acquisition.devices import Limits, Readings
from hardware_drivers.simulated.device import SimulatedDevice
from hardware_drivers.simulated.world import World

NOISE_FRACTION = 1e-3


class SimulatedMassFlowController(SimulatedDevice):
    """`gas` is the world's name for it (`hydrogen`, `oxygen`); `flow_limits` in mol/s."""

    def __init__(self, name: str, world: World, gas: str, flow_limits: Limits) -> None:
        super().__init__(name, world)
        self._gas = gas
        self._flow_limits = flow_limits

    @property
    def gas(self) -> str:
        return self._gas

    async def set_flow(self, flow_mol_per_s: float) -> None:
        self._require_connection()
        self._flow_limits.check(flow_mol_per_s, f"{self.name} flow_mol_per_s")
        self._world.set_flow(self._gas, flow_mol_per_s)

    async def read(self) -> Readings:
        self._require_connection()
        flow = self._world.flow_mol_per_s(self._gas)
        return {
            "flow_mol_per_s": self._reading(flow * (1 + NOISE_FRACTION * self._rng.standard_normal())),
            "flow_setpoint_mol_per_s": self._reading(flow),
        }

    async def _rest(self) -> None:
        self._world.set_flow(self._gas, 0.0)
