"""The one physical truth that every simulated device reads and acts on: surface, heat, gas, stage, drift."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import Clock, Instant
from acquisition.devices import StagePosition
from acquisition.instrument import Instrument
from hardware_drivers.simulated.charging import SurfaceCharge
from hardware_drivers.simulated.scenes import find_scene

Floats = NDArray[np.float64]

GAS_CONSTANT_J_PER_MOL_K = 8.314462618
BOLTZMANN_EV_PER_K = 8.617333262e-5
ROOM_TEMPERATURE_K = 295.0
BASE_PRESSURE_PA = 1e-4

# Estimates, chosen for a familiar working point: 1.2 A give 1100 K, and 100 sccm of hydrogen with 20 sccm of oxygen
# (7.436e-5 and 1.487e-5 mol/s) settle at 121 Pa.
LASER_THRESHOLD_A = 0.2
LASER_SLOPE_W_PER_A = 20.0
THERMAL_RESISTANCE_K_PER_W = 40.25
THERMAL_TIME_S = 4.0
CHAMBER_VOLUME_M3 = 0.03
PUMPING_SPEED_M3_PER_S = 1.809e-3
COPPER_EMISSIVITY = 0.05
OXIDE_EMISSIVITY = 0.7
REFERENCE_TEMPERATURE_K = 1100.0
REFERENCE_OXYGEN_PA = 121.0 / 6
REFERENCE_STEP_VELOCITY_M_PER_S = 12e-9
ACTIVATION_ENERGY_EV = 1.1
OXYGEN_ORDER = 0.5
THERMAL_DRIFT_M_PER_K = 0.2e-9
FASTEST_DRIFT_M_PER_S = 0.15e-9
GROWTH_STEP_S = 0.25
MOST_GROWTH_STEPS = 400


class World:
    """State in SI units; every look or change first brings it forward to the clock's present.

    `scene` is a name of `scene_names()` or a height map file, which is then scanned at its own pixel size. Temperature
    and partial pressures relax exponentially; steps advance by an Arrhenius law in temperature and the square root of
    the oxygen pressure. What the beam leaves on the surface is `charge`. `dose` fixes the detected electrons per pixel,
    otherwise current and dwell time do. All chance comes from `seed`. Not thread-safe: use it from one event loop.
    Raises `BadInput` for a bad scene.
    """

    def __init__(
        self, scene: str, instrument: Instrument, clock: Clock, seed: int = 1, dose: float | None = None
    ) -> None:
        self.scene = find_scene(scene, seed)
        self.instrument = instrument.with_scan(pixel_size_m=self.scene.pixel_size_m)
        self.clock = clock
        self.seed = seed
        self.dose = dose
        self.stage = StagePosition(0.0, 0.0)
        self.charge = SurfaceCharge()
        self._start = self._present = clock.now()
        self._temperature_k = ROOM_TEMPERATURE_K
        self._partial_pa: dict[str, float] = {}
        self._flows: dict[str, float] = {}
        self._laser_target_a = 0.0
        self._held_power_w: float | None = None
        self._most_current_a = math.inf
        self._diode_efficiency = 1.0
        self._emitting = False
        self._interlock_closed = True
        self._growth_m = 0.0
        heading = self.generator("drift").uniform(0, 2 * math.pi)
        self._drift_m_per_s = FASTEST_DRIFT_M_PER_S * np.array([math.cos(heading), math.sin(heading)])

    def generator(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose, independent of what the others draw."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])

    # Surface

    def heights_m(self, width_px: int, height_px: int, pixel_m: tuple[float, float], at: Instant) -> Floats:
        """(H, W) float64 metres: what the beam would meet at that time, the frame centred on the stage's position.

        `pixel_m` is (height, width). A time after the present is reached at the present's growth rate.
        """
        self.advance()
        ahead_s = max(at.seconds_since(self._present), 0.0)
        drift_x, drift_y = self.drift_m()
        y_m = _pixel_centres(self.stage.y_m + drift_y, height_px, pixel_m[0])
        x_m = _pixel_centres(self.stage.x_m + drift_x, width_px, pixel_m[1])
        return self.scene.heights_m(x_m, y_m, self._growth_m + ahead_s * self.step_velocity_m_per_s())

    def step_velocity_m_per_s(self) -> float:
        """Speed of a free step now: the truth that kinetics measured from the frames must reproduce."""
        self.advance()
        return _step_velocity(self._temperature_k, self._partial_pa.get("oxygen", 0.0))

    def figures(self) -> dict[str, float]:
        """What live metrology should find, as far as it is known without a frame; see `acquisition.live_figures`. Of
        spirals only that there are some."""
        drift_x_m, drift_y_m = self.drift_m()
        return {
            "step_velocity_m_per_s": self.step_velocity_m_per_s(),
            "spirals": float(self._growth_m >= getattr(self.scene, "spirals_after_m", math.inf)),
            "drift_x_m": -drift_x_m,
            "drift_y_m": -drift_y_m,
        }

    def drift_m(self) -> tuple[float, float]:
        """How far the sample has crept under the beam (x, y): steadily, and with its thermal expansion."""
        self.advance()
        warming_m = THERMAL_DRIFT_M_PER_K * (self._temperature_k - ROOM_TEMPERATURE_K)
        x, y = self._drift_m_per_s * self._present.seconds_since(self._start) + np.array([warming_m, 0.5 * warming_m])
        return float(x), float(y)

    # Heat

    @property
    def temperature_k(self) -> float:
        self.advance()
        return self._temperature_k

    @property
    def emissivity(self) -> float:
        self.advance()
        oxide = self.scene.oxide_fraction(self._growth_m)
        return COPPER_EMISSIVITY + oxide * (OXIDE_EMISSIVITY - COPPER_EMISSIVITY)

    @property
    def laser_target_a(self) -> float:
        """The current that is set, or the one that the power held needs, as far as the driver may go."""
        if self._held_power_w is None:
            return self._laser_target_a
        needed_a = LASER_THRESHOLD_A + self._held_power_w / (LASER_SLOPE_W_PER_A * self._diode_efficiency)
        return min(needed_a, self._most_current_a) if self._held_power_w > 0 else 0.0

    @property
    def laser_power_w(self) -> float:
        """What reaches the specimen now."""
        above_a = max(self.laser_target_a - LASER_THRESHOLD_A, 0.0)
        return LASER_SLOPE_W_PER_A * self._diode_efficiency * above_a if self._emitting else 0.0

    @property
    def laser_emitting(self) -> bool:
        return self._emitting

    @property
    def interlock_closed(self) -> bool:
        return self._interlock_closed

    def drive_laser(self, target_a: float, emitting: bool) -> None:
        """Constant current: set the diode's target and switch; an open interlock keeps it off."""
        self.advance()
        self._laser_target_a, self._held_power_w = target_a, None
        self.switch_laser(emitting)

    def hold_laser_power(self, power_w: float, most_current_a: float) -> None:
        """Constant power: a photodiode sets the current, up to `most_current_a`, whatever the diode has become and
        whatever a pyrometer with a wrong emissivity shows. Neither starts nor ends emission."""
        self.advance()
        self._held_power_w, self._most_current_a = power_w, most_current_a

    def switch_laser(self, emitting: bool) -> None:
        """Begin or end emission in the present mode; an open interlock keeps it off."""
        self.advance()
        self._emitting = emitting and self._interlock_closed

    def set_diode_efficiency(self, share: float) -> None:
        """How much of its light the diode still gives at a current: it falls as a diode warms or ages."""
        self.advance()
        self._diode_efficiency = share

    def set_interlock(self, closed: bool) -> None:
        """Open or close the laser's interlock loop. Opening stops emission, and closing does not resume it."""
        self.advance()
        self._interlock_closed = closed
        self._emitting = self._emitting and closed

    # Gas

    @property
    def partial_pressures_pa(self) -> dict[str, float]:
        self.advance()
        return dict(self._partial_pa)

    @property
    def pressure_pa(self) -> float:
        return BASE_PRESSURE_PA + sum(self.partial_pressures_pa.values())

    def set_flow(self, gas: str, flow_mol_per_s: float) -> None:
        self.advance()
        self._flows[gas] = flow_mol_per_s
        self._partial_pa.setdefault(gas, 0.0)

    def flow_mol_per_s(self, gas: str) -> float:
        return self._flows.get(gas, 0.0)

    # Time

    def advance(self) -> None:
        """Bring heat, gas and surface forward to the clock's present."""
        now = self.clock.now()
        elapsed_s = now.seconds_since(self._present)
        if elapsed_s <= 0:
            return
        steps = min(max(math.ceil(elapsed_s / GROWTH_STEP_S), 1), MOST_GROWTH_STEPS)
        for _ in range(steps):
            self._step(elapsed_s / steps)
        self._present = now

    def _step(self, seconds: float) -> None:
        before = _step_velocity(self._temperature_k, self._partial_pa.get("oxygen", 0.0))
        settled_k = ROOM_TEMPERATURE_K + THERMAL_RESISTANCE_K_PER_W * self.laser_power_w
        self._temperature_k = _relaxed(self._temperature_k, settled_k, seconds / THERMAL_TIME_S)
        pump_out = seconds * PUMPING_SPEED_M3_PER_S / CHAMBER_VOLUME_M3
        for gas, flow in self._flows.items():
            settled_pa = flow * GAS_CONSTANT_J_PER_MOL_K * ROOM_TEMPERATURE_K / PUMPING_SPEED_M3_PER_S
            self._partial_pa[gas] = _relaxed(self._partial_pa[gas], settled_pa, pump_out)
        after = _step_velocity(self._temperature_k, self._partial_pa.get("oxygen", 0.0))
        self._growth_m += 0.5 * (before + after) * seconds


def _pixel_centres(middle_m: float, count: int, pixel_m: float) -> Floats:
    centres: Floats = middle_m + pixel_m * (np.arange(count, dtype=np.float64) - 0.5 * (count - 1))
    return centres


def _relaxed(value: float, settled: float, time_constants: float) -> float:
    return settled + (value - settled) * math.exp(-time_constants)


def _step_velocity(temperature_k: float, oxygen_pa: float) -> float:
    hindrance = ACTIVATION_ENERGY_EV / BOLTZMANN_EV_PER_K * (1 / temperature_k - 1 / REFERENCE_TEMPERATURE_K)
    supply: float = (max(oxygen_pa, 0.0) / REFERENCE_OXYGEN_PA) ** OXYGEN_ORDER
    return REFERENCE_STEP_VELOCITY_M_PER_S * supply * math.exp(-hindrance)
