"""The simulated microscope against the sentences of its contract that `test_world` leaves open: constant power,
pumping, charging, jitter, and the truth on request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from acquisition.clock import Instant, VirtualClock
from acquisition.devices import Limits, ScanRequest, StagePosition
from acquisition.errors import LimitExceeded
from acquisition.instrument import Effects, four_quadrant
from hardware_drivers.simulated import SimulatedDetector, SimulatedLaserHeater, World
from hardware_drivers.simulated.detector import SimulatedExposure
from hardware_drivers.simulated.truth import Truth
from inference.forward_model import expected_electrons

CURRENT, POWER = Limits(0.0, 1.5, "limits.heater_current_a"), Limits(0.0, 26.0, "limits.heater_power_w")
PIXEL_M = 5e-9


def make_world(scene: str = "flat", dose: float | None = None, effects: Effects | None = None) -> World:
    instrument = four_quadrant().model_copy(update={"effects": effects or Effects()})
    return World(scene, instrument, VirtualClock(Instant(0, 0)), dose=dose)


@asynccontextmanager
async def heating(world: World) -> AsyncIterator[SimulatedLaserHeater]:
    async with SimulatedLaserHeater("heater", world, CURRENT, POWER) as heater:
        yield heater


async def frames(world: World, count: int = 1, size: int = 64) -> list[SimulatedExposure]:
    async with SimulatedDetector("detector", world, Limits(8, 8192, "detector.size_limit_px")) as detector:
        await detector.configure(ScanRequest(size, size, PIXEL_M, 10e-6))
        await detector.arm()
        taken = [exposure async for exposure in detector.exposures(count)]
    return [exposure for exposure in taken if isinstance(exposure, SimulatedExposure)]


def brightness(exposure: SimulatedExposure, rows: slice = slice(None)) -> float:
    return float(exposure.images[:, rows].mean()) - 200.0


def truth_of(exposure: SimulatedExposure) -> Truth:
    assert exposure.truth is not None
    return exposure.truth


async def test_constant_power_holds_the_temperature_where_constant_current_does_not() -> None:
    """A diode that has lost a tenth of its light: the current follows, and 20 W stay the 1100 K that they were."""
    settled_k = {}
    for mode in ("current", "power"):
        world = make_world()
        async with heating(world) as heater:
            await (heater.set_current(1.2) if mode == "current" else heater.set_power(20.0))
            await heater.arm()
            world.set_diode_efficiency(0.9)
            await world.clock.sleep(100.0)
            settled_k[mode] = world.temperature_k
            status, readings = await heater.status(), await heater.read()
            assert status.current_a == pytest.approx(1.2 if mode == "current" else 0.2 + 1.0 / 0.9)
            assert readings["power_w"].value == pytest.approx(18.0 if mode == "current" else 20.0)
    assert settled_k["power"] == pytest.approx(1100, abs=1)
    assert settled_k["current"] == pytest.approx(1100 - 80.5, abs=1)


async def test_constant_power_never_asks_the_diode_for_more_than_its_limit() -> None:
    world = make_world()
    async with heating(world) as heater:
        with pytest.raises(LimitExceeded, match="power_w 27"):
            await heater.set_power(27.0)
        await heater.set_power(26.0)
        await heater.arm()
        world.set_diode_efficiency(0.5)
        assert (await heater.status()).current_a == 1.5


async def test_constant_power_ends_with_a_current_and_with_the_laser_off() -> None:
    world = make_world()
    async with heating(world) as heater:
        await heater.set_power(10.0)
        await heater.arm()
        await heater.set_current(0.6)
        status = await heater.status()
        assert status.emission_on and status.current_target_a == 0.6
        await heater.set_power(10.0)
        await heater.off()
        status = await heater.status()
        assert not status.emission_on and status.current_target_a == 0.0
        await heater.set_power(0.0)
        assert (await heater.status()).current_target_a == 0.0


async def test_a_chamber_empties_with_volume_over_pumping_speed() -> None:
    """30 L at 1.809 L/s: after 16.6 s of no flow a share of 1/e is left."""
    world = make_world()
    world.set_flow("oxygen", 1.487e-5)
    await world.clock.sleep(400.0)
    assert world.partial_pressures_pa["oxygen"] == pytest.approx(1.487e-5 * 8.314 * 295 / 1.809e-3, rel=1e-3)
    full_pa = world.partial_pressures_pa["oxygen"]
    world.set_flow("oxygen", 0.0)
    await world.clock.sleep(0.03 / 1.809e-3)
    assert world.partial_pressures_pa["oxygen"] == pytest.approx(full_pa / np.e, rel=1e-6)


async def test_a_fresh_surface_charges_over_its_first_frame_and_is_steady_then() -> None:
    first, second = await frames(make_world(dose=5000.0, effects=Effects(charging=-0.3)), 2)
    top, bottom = slice(0, 8), slice(-8, None)
    assert brightness(first, bottom) == pytest.approx(0.75 * brightness(first, top), rel=0.03)
    assert brightness(second, top) == pytest.approx(brightness(first, bottom), rel=0.05)
    assert brightness(second, bottom) == pytest.approx(brightness(second, top), rel=0.03)


@pytest.mark.parametrize(("pause_s", "move_m"), [(200.0, 0.0), (0.0, 1e-6)])
async def test_charge_leaks_away_and_is_none_at_a_fresh_place(pause_s: float, move_m: float) -> None:
    world = make_world(dose=5000.0, effects=Effects(charging=-0.3))
    (before,) = await frames(world)
    await world.clock.sleep(pause_s)
    world.stage = StagePosition(move_m, 0.0)
    (after,) = await frames(world)
    top = slice(0, 8)
    assert brightness(after, top) == pytest.approx(brightness(before, top), rel=0.03)


async def test_lines_jitter_sideways_each_by_itself_and_alike_in_all_segments() -> None:
    """On ridges that run down the image, a line that is shifted differs from the line above."""
    calm, jittery = [
        (await frames(make_world("grating", 2e4, Effects(line_jitter_px=jitter)), 1, 128))[0] for jitter in (0.0, 1.0)
    ]
    level = truth_of(calm).height_m
    rows = np.flatnonzero(np.ptp(level, axis=1) > 20e-9)  # between the ridges that run across
    rough = [np.abs(np.diff(shot.images[:, rows].astype(float), axis=1)).mean() for shot in (calm, jittery)]
    assert rough[1] > 1.5 * rough[0]


async def test_truth_of_a_frame_is_its_height_its_slopes_and_its_electrons() -> None:
    (exposure,) = await frames(make_world("cu2o-spiral"))
    truth = truth_of(exposure)
    assert exposure.truth_m is not None
    np.testing.assert_array_equal(truth.height_m, exposure.truth_m)
    q, p = np.gradient(truth.height_m, PIXEL_M)
    inside = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(truth.slopes[0][inside], p[inside], atol=1e-4)
    np.testing.assert_allclose(truth.slopes[1][inside], q[inside], atol=1e-4)
    counted = (exposure.images.astype(np.float64) - 200.0) / 8.0
    noise = (counted - truth.electrons) / np.sqrt(truth.electrons)
    assert noise.mean() == pytest.approx(0.0, abs=0.03) and noise.std() == pytest.approx(1.0, abs=0.03)


async def test_true_electrons_follow_the_charge_and_not_the_noise() -> None:
    """The second frame of a surface that has charged is darker by what it was charged, to the last digit."""
    charging = Effects(charging=-0.3)
    fresh, again = await frames(make_world(dose=5000.0, effects=charging), 2)
    plain = expected_electrons(truth_of(fresh).surface_m, four_quadrant(), 5000.0)[..., 16:-16, 16:-16]
    np.testing.assert_allclose(truth_of(fresh).electrons, plain, rtol=1e-6)
    np.testing.assert_allclose(truth_of(again).electrons, 0.7 * plain, rtol=1e-6)


async def test_finer_pixels_show_the_same_surface() -> None:
    """A region of a quarter of the field, at a quarter of the pixels' width: every fourth row and column is there."""
    world = make_world("grating")
    truths = []
    async with SimulatedDetector("detector", world, Limits(8, 8192, "detector.size_limit_px")) as detector:
        for size, pixel_m in ((65, 4 * PIXEL_M), (65, PIXEL_M)):
            instrument = await detector.configure(ScanRequest(size, size, pixel_m, 1e-9))
            await detector.arm()
            truths += [exposure.truth_m async for exposure in detector.exposures(1)]
            assert instrument.scan.pixel_size_m == pixel_m
    overview, region = truths
    assert overview is not None
    assert region is not None
    assert np.ptp(region[::4, ::4] - overview[24:41, 24:41]) < 2e-10  # each is levelled by itself
    assert np.ptp(region) > 10e-9
