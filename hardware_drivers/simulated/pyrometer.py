"""A one-colour pyrometer, which is right only as far as the emissivity set in it is."""

from __future__ import annotations

import math

from acquisition.devices import Limits, Readings
from hardware_drivers.simulated.device import SimulatedDevice
from hardware_drivers.simulated.world import World

WAVELENGTH_M = 1.6e-6
SECOND_RADIATION_CONSTANT_M_K = 1.438776877e-2
NOISE_K = 0.4


class SimulatedPyrometer(SimulatedDevice):
    """`range_k` bounds what it can show: colder specimens read its low end, hotter ones are invalid (over-range).

    A specimen must be heated through the cold part with the laser on, so cold cannot count as invalid. `emissivity`
    is what it assumes at first.
    """

    def __init__(
        self, name: str, world: World, emissivity_limits: Limits, range_k: Limits, emissivity: float = 0.7
    ) -> None:
        super().__init__(name, world)
        self._emissivity_limits = emissivity_limits
        self._range_k = range_k
        self._emissivity = emissivity

    async def set_emissivity(self, emissivity: float) -> None:
        self._require_connection()
        self._emissivity_limits.check(emissivity, f"{self.name} emissivity")
        self._emissivity = emissivity

    async def read(self) -> Readings:
        self._require_connection()
        shown_k = shown_temperature_k(self._world.temperature_k, self._world.emissivity, self._emissivity)
        shown_k += NOISE_K * self._rng.standard_normal()
        reason = ""
        if shown_k > self._range_k.high:
            reason = f"above the pyrometer's range of {self._range_k.high:g} K"
        return {
            "temperature_k": self._reading(math.nan if reason else max(shown_k, self._range_k.low), reason),
            "emissivity": self._reading(self._emissivity),
        }


def shown_temperature_k(true_k: float, true_emissivity: float, set_emissivity: float) -> float:
    """Wien's law: the temperature at which a body of the set emissivity would be as bright."""
    shift = WAVELENGTH_M / SECOND_RADIATION_CONSTANT_M_K * math.log(true_emissivity / set_emissivity)
    return 1.0 / (1.0 / true_k - shift)
