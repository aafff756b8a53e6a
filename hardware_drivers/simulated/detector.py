"""A segmented backscattered-electron detector that scans the simulated world, paced by its clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import Instant
from acquisition.devices import Limits, Readings, ScanRequest
from acquisition.frames import Exposure
from acquisition.instrument import Instrument
from acquisition.stamping import optics_of
from hardware_drivers.scanning import require_frames_possible, require_set_up_possible
from hardware_drivers.simulated.charging import charged
from hardware_drivers.simulated.device import SimulatedDevice
from hardware_drivers.simulated.truth import INSIDE, MARGIN_PX, Truth
from hardware_drivers.simulated.world import World
from inference import forward_model

LINE_FLYBACK_S = 50e-6
WAIT_SLICE_S = 0.1
FORMULAS = {"hydrogen": "H2", "oxygen": "O2"}
FULL_SCALE = np.iinfo(np.uint16).max


@dataclass(frozen=True, slots=True)
class SimulatedExposure(Exposure):
    """An exposure with all that is true of it."""

    truth: Truth | None = None


class SimulatedDetector(SimulatedDevice):
    """Renders the world with the forward model; the truth rides with every exposure, a `SimulatedExposure`.

    `size_limits` bound width and height in pixels. A frame takes pixels x dwell + lines x 50 µs of flyback, which the
    rendering counts towards; it shows the surface of the middle of that time. Frame n of a world is the same for the
    same seed and state. Where `effects.gases` of the instrument name a gas that the world has, its pressure of the
    moment scatters the beam.
    """

    def __init__(
        self,
        name: str,
        world: World,
        size_limits: Limits,
        width_px: int = 512,
        height_px: int = 512,
    ) -> None:
        super().__init__(name, world)
        self._size_limits = size_limits
        self._width_px = width_px
        self._height_px = height_px
        self._instrument = world.instrument
        self._armed = False
        self._scanning = False
        self._count = 0

    @property
    def frame_time_s(self) -> float:
        return frame_time_s(self._instrument, (self._width_px, self._height_px))

    async def configure(self, scan: ScanRequest) -> Instrument:
        """Raises `RequestRefused` while scanning, `LimitExceeded` for size or pixel size, `BadInput` for dwell."""
        self._require_connection()
        require_set_up_possible(self.name, scan, self._size_limits, scanning=self._scanning)
        self._instrument = self._instrument.with_scan(pixel_size_m=scan.pixel_size_m, dwell_time_s=scan.dwell_time_s)
        self._width_px, self._height_px = scan.width_px, scan.height_px
        return self._instrument

    async def arm(self) -> None:
        self._require_connection()
        self._armed = True

    async def exposures(self, count: int | None) -> AsyncIterator[Exposure]:
        """Raises `RequestRefused` unless armed, or while another iterator scans."""
        self._require_connection()
        require_frames_possible(self.name, armed=self._armed, scanning=self._scanning)
        self._scanning = True
        try:
            left = count
            while self._armed and left != 0:
                exposure = await self._expose()
                if not self._armed:
                    return
                yield exposure
                left = None if left is None else left - 1
        finally:
            self._scanning = False
            self._armed = False

    async def stop(self) -> None:
        self._armed = False

    async def read(self) -> Readings:
        self._require_connection()
        beam = self._instrument.beam
        return {
            "beam_current_a": self._reading(beam.current_a),
            "landing_energy_ev": self._reading(beam.energy_ev),
            "scanning": self._reading(self._scanning),
        }

    async def _rest(self) -> None:
        await self.stop()

    async def _expose(self) -> Exposure:
        clock = self._world.clock
        start, frame_time_s = clock.now(), self.frame_time_s
        size_px = (self._width_px, self._height_px)
        middle = start.later(0.5 * frame_time_s)
        count, self._count = self._count, self._count + 1
        images, truth = await scanned(self._world, self._instrument, size_px, count, middle)
        await self._wait_until(start.later(frame_time_s))
        saturated = bool((images == FULL_SCALE).any())
        return SimulatedExposure(
            images=images,
            start=start,
            end=clock.now(),
            optics=optics_of(self._instrument),
            hardware_time_ns=start.utc_ns,
            flags=frozenset({"simulated", "saturated"} if saturated else {"simulated"}),
            truth_m=truth.height_m,
            truth=truth,
        )

    async def _wait_until(self, end: Instant) -> None:
        """In slices, so that stopping a slow scan doesn't take as long as the scan."""
        clock = self._world.clock
        while self._armed and (left_s := end.seconds_since(clock.now())) > 0:
            await clock.sleep(min(left_s, WAIT_SLICE_S))


async def scanned(
    world: World, instrument: Instrument, size_px: tuple[int, int], count: int, at: Instant
) -> tuple[NDArray[np.uint16], Truth]:
    """Frame number `count` of the world as `instrument` sees it with its middle `at`: images (S, H, W), and the truth.

    `size_px` is (width, height). The rendering is done in a thread. The surface is left charged.
    """
    scan = instrument.scan
    pixel_m = (scan.pixel_size_y_m or scan.pixel_size_m, scan.pixel_size_m)
    width_px, height_px = size_px
    heights_m = world.heights_m(width_px + 2 * MARGIN_PX, height_px + 2 * MARGIN_PX, pixel_m, at=at)
    half_s = 0.5 * frame_time_s(instrument, size_px)
    where = (world.stage.x_m, world.stage.y_m), (width_px * pixel_m[1], height_px * pixel_m[0])
    instrument, brightness = charged(_in_gas(instrument, world), world.charge.left(at.later(-half_s), *where))
    world.charge.fill(at.later(half_s), *where)
    truth = Truth(heights_m, instrument, world.dose, brightness)
    rng = np.random.default_rng([world.seed, count])
    return await asyncio.to_thread(_rendered, truth, rng), truth


def frame_time_s(instrument: Instrument, size_px: tuple[int, int]) -> float:
    """Pixels x dwell + lines x flyback; `size_px` is (width, height)."""
    width_px, height_px = size_px
    return width_px * height_px * instrument.beam.dwell_time_s + height_px * LINE_FLYBACK_S


def _in_gas(instrument: Instrument, world: World) -> Instrument:
    pressures_pa = {FORMULAS[gas]: pressure for gas, pressure in world.partial_pressures_pa.items()}
    gases = tuple(
        gas.model_copy(update={"pressure_pa": pressures_pa.get(gas.formula, gas.pressure_pa)})
        for gas in instrument.effects.gases
    )
    return instrument.model_copy(update={"effects": instrument.effects.model_copy(update={"gases": gases})})


def _rendered(truth: Truth, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Images (S, H, W) of the frame inside its margin."""
    instrument, brightness = _paced(truth.instrument, truth.surface_m.shape[0])
    relative_yield = np.full(truth.surface_m.shape, truth.brightness * brightness, np.float32)
    images = forward_model.render(
        truth.surface_m, instrument, rng, truth.dose, None if (relative_yield == 1).all() else relative_yield
    )
    return np.ascontiguousarray(images[INSIDE])


def _paced(instrument: Instrument, rows: int) -> tuple[Instrument, float]:
    """What drifts and charges over the frame's lines, for the `rows` with the margin's, and the brightness they begin
    with: the margin is rendered with the frame, and takes no time at the microscope."""
    effects, share = instrument.effects, 1.0 - 2 * MARGIN_PX / rows
    rise = effects.charging / share
    begins = 1.0 - rise * MARGIN_PX / rows
    paced = {
        "drift_x_px": effects.drift_x_px / share,
        "drift_y_px": effects.drift_y_px / share,
        "charging": rise / begins,
    }
    return instrument.model_copy(update={"effects": effects.model_copy(update=paced)}), begins
