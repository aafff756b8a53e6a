"""The simulated microscope: one physical truth (world.py) and one file per simulated device."""

from hardware_drivers.simulated.detector import SimulatedDetector
from hardware_drivers.simulated.gas import SimulatedMassFlowController
from hardware_drivers.simulated.gauge import SimulatedPressureGauge
from hardware_drivers.simulated.heater import SimulatedLaserHeater
from hardware_drivers.simulated.pyrometer import SimulatedPyrometer
from hardware_drivers.simulated.scenes import scene_names
from hardware_drivers.simulated.stage import SimulatedStage
from hardware_drivers.simulated.world import World

__all__ = [
    "SimulatedDetector",
    "SimulatedLaserHeater",
    "SimulatedMassFlowController",
    "SimulatedPressureGauge",
    "SimulatedPyrometer",
    "SimulatedStage",
    "World",
    "scene_names",
]
