"""What a settings file may name: kind of lab -> factory. No device is touched by building one, and only the devices of
that lab are imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from acquisition.clock import Clock
from acquisition.devices import ConstantPower, LaserHeater, Limits
from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from acquisition.lab import Lab
from hardware_drivers import instruments
from hardware_drivers.instruments import Instruments, Means
from hardware_drivers.scanning import PIXEL_SIZE_M

if TYPE_CHECKING:
    from hardware_drivers.simulated.world import World

MOL_PER_S_PER_SCCM = 7.436e-7
SCAN_PX = Limits(16, 8192, "the simulated detector's range")
EMISSIVITY = Limits(0.01, 1.0, "the pyrometer's range")
PYROMETER_RANGE_K = Limits(573.15, 1573.15, "the pyrometer's range")


@dataclass(frozen=True, slots=True)
class LabSpec:
    """What a factory is given. Limits are in SI; names of settings ride in them."""

    instrument: Instrument
    clock: Clock
    scene: str
    seed: int
    dose: float | None
    width_px: int
    height_px: int
    heater_current: Limits
    heater_power: Limits
    flows: Mapping[str, Limits]
    stage_axis: Limits
    instruments: Instruments | None = None

    def world(self) -> World:
        from hardware_drivers.simulated.world import World

        return World(self.scene, self.instrument, self.clock, self.seed, self.dose)

    def limits(
        self, emissivity: Limits, gases: Iterable[str], heater: LaserHeater | None
    ) -> dict[str, dict[str, Limits]]:
        """What people are told of the limits, by device and setpoint."""
        laser = {"current_a": self.heater_current}
        if isinstance(heater, ConstantPower):
            laser["power_w"] = self.heater_power
        return {
            "detector": {"width_px": SCAN_PX, "height_px": SCAN_PX, "pixel_size_m": PIXEL_SIZE_M},
            "heater": laser,
            "pyrometer": {"emissivity": emissivity},
            "stage": dict.fromkeys(("x_m", "y_m", "z_m"), self.stage_axis),
            **{gas: {"flow_mol_per_s": self.flows[gas]} for gas in gases},
        }


def simulated_lab(spec: LabSpec) -> Lab:
    """The simulated microscope with everything that hangs on it, looking at one world."""
    from hardware_drivers import simulated

    world = spec.world()
    gases = tuple(simulated.SimulatedMassFlowController(gas, world, gas, limits) for gas, limits in spec.flows.items())
    axis = spec.stage_axis
    heater = simulated.SimulatedLaserHeater("heater", world, spec.heater_current, spec.heater_power)
    return Lab(
        detector=simulated.SimulatedDetector("detector", world, SCAN_PX, spec.width_px, spec.height_px),
        stage=simulated.SimulatedStage("stage", world, axis, axis, axis),
        heater=heater,
        pyrometer=simulated.SimulatedPyrometer("pyrometer", world, EMISSIVITY, PYROMETER_RANGE_K),
        gauge=simulated.SimulatedPressureGauge("gauge", world),
        gases=gases,
        limits=spec.limits(EMISSIVITY, spec.flows, heater),
        simulated=True,
        truth=world.figures,
    )


def real_lab(spec: LabSpec) -> Lab:
    """The instruments that the settings name. Raises `BadInput` when they name none, or a gas without a limit."""
    named = spec.instruments
    if named is None or named.detector is None:
        raise BadInput("the settings name no detector: add [instruments.detector], or take kind = 'simulated'")
    means = Means(spec.instrument, spec.clock, spec.heater_current, spec.flows, spec.stage_axis)
    gases = tuple(entry.build(means) for entry in named.gases)
    heater = named.heater.build(means) if named.heater else None
    return Lab(
        detector=named.detector.build(means),
        stage=named.stage.build(means) if named.stage else None,
        heater=heater,
        pyrometer=named.pyrometer.build(means) if named.pyrometer else None,
        gauge=named.gauge.build(means) if named.gauge else None,
        gases=gases,
        limits=spec.limits(instruments.EMISSIVITY, [gas.gas for gas in gases], heater),
    )


def emulated_lab(spec: LabSpec) -> Lab:
    """The drivers of real instruments; at the ends of their lines emulators speak, and what they tell is simulated."""
    return replace(real_lab(spec), simulated=True)


LABS: Mapping[str, Callable[[LabSpec], Lab]] = {
    "simulated": simulated_lab,
    "emulated": emulated_lab,
    "real": real_lab,
}
