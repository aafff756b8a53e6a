"""What a settings file may name: kind of lab -> factory. No device is touched by building one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from acquisition.clock import Clock
from acquisition.devices import Limits
from acquisition.instrument import Instrument
from acquisition.lab import Lab
from hardware_drivers.simulated.detector import SimulatedDetector
from hardware_drivers.simulated.gas import SimulatedMassFlowController
from hardware_drivers.simulated.gauge import SimulatedPressureGauge
from hardware_drivers.simulated.heater import SimulatedLaserHeater
from hardware_drivers.simulated.pyrometer import SimulatedPyrometer
from hardware_drivers.simulated.stage import SimulatedStage
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
    flows: Mapping[str, Limits]
    stage_axis: Limits


def simulated_lab(spec: LabSpec) -> Lab:
    """The simulated microscope with everything that hangs on it, looking at one world."""
    world = World(spec.scene, spec.instrument, spec.clock, spec.seed, spec.dose)
    gases = tuple(SimulatedMassFlowController(gas, world, gas, limits) for gas, limits in spec.flows.items())
    axis = spec.stage_axis
    return Lab(
        detector=SimulatedDetector("detector", world, SCAN_PX, spec.width_px, spec.height_px),
        stage=SimulatedStage("stage", world, axis, axis, axis),
        heater=SimulatedLaserHeater("heater", world, spec.heater_current),
        pyrometer=SimulatedPyrometer("pyrometer", world, EMISSIVITY, PYROMETER_RANGE_K),
        gauge=SimulatedPressureGauge("gauge", world),
        gases=gases,
        limits={
            "heater": {"current_a": spec.heater_current},
            "pyrometer": {"emissivity": EMISSIVITY},
            "stage": dict.fromkeys(("x_m", "y_m", "z_m"), axis),
            **{gas: {"flow_mol_per_s": limits} for gas, limits in spec.flows.items()},
        },
        simulated=True,
    )


LABS: Mapping[str, Callable[[LabSpec], Lab]] = {"simulated": simulated_lab}
