"""Laser and pyrometer on bad lines: failures are told in time, and the laser is off as soon as it can be reached."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import pytest

import emulated
from acquisition.clock import SystemClock
from acquisition.devices import Limits, Reading
from acquisition.errors import DeviceFailed
from acquisition.guard import Guard
from acquisition.instrument import four_quadrant
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.state import READ_TIMEOUT_S, StateKeeper
from emulated import CURRENT
from hardware_drivers.emulators.line import Fault, Line
from hardware_drivers.emulators.ostech import OsTechEmulator
from hardware_drivers.emulators.upp import UppEmulator
from hardware_drivers.ostech import OsTechLaserHeater
from hardware_drivers.simulated import SimulatedDetector, SimulatedPressureGauge, World
from hardware_drivers.upp import UppPyrometer

DUMB = [Fault.SILENCE, Fault.GARBAGE, Fault.HALF, Fault.SLOW]
LIMITS = InterlockLimits(stale_after_s=1.0)


class StubbornLimit(OsTechEmulator):
    """Keeps its own current limit."""

    def _value(self, name: str, parameter: str) -> float | int | bool:
        return 4000.0 if name == "LCL" else super()._value(name, parameter)


def new_world() -> World:
    return World("flat", four_quadrant(), SystemClock())


@pytest.fixture
def world() -> World:
    return new_world()


async def side_by_side(put_to_the_test: Callable[[World, Fault], Awaitable[None]], faults: Iterable[Fault]) -> None:
    """Each fault on a world of its own, as most of the time is spent waiting for answers that do not come."""
    async with asyncio.TaskGroup() as together:
        for fault in faults:
            together.create_task(put_to_the_test(new_world(), fault), name=fault)


@asynccontextmanager
async def heating(world: World, terminal: bool = emulated.TERMINALS) -> AsyncIterator[tuple[OsTechLaserHeater, Line]]:
    async with emulated.ostech(OsTechEmulator(world), world.clock, terminal) as (heater, line):
        await heater.__aenter__()
        await switch_on(heater)
        assert is_on(world)
        yield heater, line
        await heater.__aexit__(None, None, None)
        assert not is_on(world)


async def switch_on(heater: OsTechLaserHeater) -> None:
    await heater.set_current(1.0)
    await heater.arm()


def is_on(world: World) -> bool:
    return world.laser_emitting or world.laser_target_a > 0


# The laser


async def test_a_laser_that_answers_badly_is_told_in_time_and_stopped_all_the_same() -> None:
    await side_by_side(is_told_and_stopped, DUMB)


async def is_told_and_stopped(world: World, fault: Fault) -> None:
    async with heating(world) as (heater, line):
        line.fault = fault
        async with asyncio.timeout(READ_TIMEOUT_S):
            with pytest.raises(DeviceFailed, match="heater|" + line.address):
                await heater.read()
        with pytest.raises(DeviceFailed):
            await heater.off()
        assert not is_on(world)
        line.fault = Fault.NONE
        async with heater:
            assert not (await heater.status()).emission_on
            await switch_on(heater)


@pytest.mark.parametrize("terminal", [False] + [True] * emulated.TERMINALS)
async def test_an_unplugged_laser_stays_on_and_is_off_once_it_is_entered_again(world: World, terminal: bool) -> None:
    async with heating(world, terminal) as (heater, line):
        line.fault = Fault.UNPLUGGED
        for attempt in (heater.read, heater.off, heater.__aenter__):
            with pytest.raises(DeviceFailed):
                await attempt()
        assert is_on(world), "no watchdog: only a relay in the interlock loop takes it off here"
        line.fault = Fault.NONE
        await heater.__aenter__()
        assert not is_on(world)


async def test_off_on_a_line_that_broke_unnoticed_works_on_a_fresh_port(world: World) -> None:
    async with heating(world) as (heater, line):
        line.fault = Fault.UNPLUGGED
        line.fault = Fault.NONE
        await heater.off()
        assert not is_on(world)
        assert not (await heater.status()).emission_on


async def test_off_outside_the_context_works_and_can_be_verified(world: World) -> None:
    async with emulated.ostech(OsTechEmulator(world), world.clock) as (heater, _):
        world.drive_laser(1.0, emitting=True)
        await heater.off()
        assert not is_on(world)
        assert (await heater.status()).current_target_a == 0
        await heater.__aexit__(None, None, None)


async def test_a_laser_found_on_is_off_even_if_the_set_up_after_it_fails(world: World) -> None:
    world.drive_laser(1.0, emitting=True)
    async with emulated.ostech(StubbornLimit(world), world.clock) as (heater, _):
        with pytest.raises(DeviceFailed, match=r"4000 mA instead of 1500 mA.*heater\.current_limit_a"):
            await heater.__aenter__()
        assert not is_on(world)


async def test_the_limit_is_set_in_the_device_too(world: World) -> None:
    instrument = OsTechEmulator(world)
    async with emulated.ostech(instrument, world.clock) as (heater, _), heater:
        assert instrument.limit_ma == 1000 * CURRENT.high


async def test_a_current_that_cannot_be_fails(world: World) -> None:
    async with heating(world) as (heater, line):
        line.fault = Fault.OVER_RANGE
        with pytest.raises(DeviceFailed, match=r"99\.9999 A, above its limit of 1\.5 A"):
            await heater.read()


async def test_off_follows_a_cancelled_read_at_once(world: World) -> None:
    async with heating(world) as (heater, line):
        line.fault, line.slow_s = Fault.SLOW, 0.1
        reading = asyncio.create_task(heater.read())
        await asyncio.sleep(0.05)
        reading.cancel()
        line.fault = Fault.NONE
        await heater.off()
        assert not is_on(world)
        assert not (await heater.status()).emission_on


async def test_no_start_follows_a_stop_that_was_asked_for_later(world: World) -> None:
    async with heating(world) as (heater, _):
        for _ in range(5):
            await heater.set_current(1.0)
            arming = asyncio.create_task(heater.arm())
            await asyncio.sleep(0)
            await asyncio.gather(heater.off(), heater.read())
            await arming
            assert not is_on(world)
        arming = asyncio.create_task(heater.arm())
        await asyncio.sleep(0)
        arming.cancel()
        await heater.off()
        assert not is_on(world)


# The pyrometer


async def test_a_pyrometer_that_answers_badly_fails_in_time_and_reads_again_when_it_is_back() -> None:
    await side_by_side(fails_and_reads_again, [*DUMB, Fault.UNPLUGGED])


async def fails_and_reads_again(world: World, fault: Fault) -> None:
    async with emulated.upp(UppEmulator(world), world.clock) as (pyrometer, line):
        async with pyrometer:
            line.fault = fault
            async with asyncio.timeout(READ_TIMEOUT_S):
                with pytest.raises(DeviceFailed, match="pyrometer|" + line.address):
                    await pyrometer.read()
        line.fault = Fault.NONE
        async with pyrometer:
            assert (await pyrometer.read())["temperature_k"].valid


async def test_over_range_and_not_ready_are_invalid_and_nothing_else(world: World) -> None:
    async with emulated.upp(UppEmulator(world), world.clock) as (pyrometer, line), pyrometer:
        for fault, reason in ((Fault.OVER_RANGE, "range"), (Fault.NOT_READY, "not ready"), (Fault.SENSOR, "too hot")):
            line.fault = fault
            readings = await pyrometer.read()
            assert not readings["temperature_k"].valid and math.isnan(readings["temperature_k"].value)
            assert reason in readings["temperature_k"].reason
            assert readings["emissivity"].valid


# Both, watched over


class Watched:
    """A lab with both on emulated lines, sampled and guarded, its laser on."""

    def __init__(self, world: World, heater: OsTechLaserHeater, pyrometer: UppPyrometer) -> None:
        lab = Lab(
            SimulatedDetector("detector", world, Limits(16, 8192, "detector"), 64, 64),
            heater=heater,
            pyrometer=pyrometer,
            gauge=SimulatedPressureGauge("gauge", world),
        )
        self.told: list[str] = []
        self.state = StateKeeper(lab.devices, world.clock, lambda *_: None)
        self.guard = Guard(lab, self.state, LIMITS, world.clock, self._tell)

    def _tell(self, name: str, text: str, severity: str = "info", **details: object) -> None:
        self.told.append(f"{name}: {text}")

    def latest(self) -> Mapping[str, Reading]:
        return self.state.latest()


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[tuple[Watched, Line, Line]]:
    async with (
        emulated.ostech(OsTechEmulator(world), world.clock) as (heater, heater_line),
        emulated.upp(UppEmulator(world), world.clock) as (pyrometer, pyrometer_line),
    ):
        lab = Watched(world, heater, pyrometer)
        await lab.state.start()
        watching = asyncio.create_task(lab.guard.watch())
        lab.guard.require_permit()
        await switch_on(heater)
        await until(lambda: lab.latest()["heater.emission"].value == 1)
        yield lab, heater_line, pyrometer_line
        watching.cancel()
        async with asyncio.timeout(20):
            await lab.state.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_pyrometer_that_is_gone_takes_the_laser_off() -> None:
    await side_by_side(takes_the_laser_off, [Fault.SILENCE, Fault.UNPLUGGED, Fault.NOT_READY])


async def takes_the_laser_off(world: World, fault: Fault) -> None:
    async with watched(world) as (lab, _, line):
        line.fault = fault
        await until(lambda: not is_on(world))
        await until(lambda: any(text.startswith("safe_state") for text in lab.told))
        assert any("permit lost" in text and "; verified" in text for text in lab.told), lab.told


async def test_a_laser_that_is_gone_is_off_as_soon_as_it_is_back(world: World) -> None:
    async with watched(world) as (lab, line, _):
        line.fault = Fault.UNPLUGGED
        await until(lambda: any("cut the laser's power" in alarm["way_out"] for alarm in lab.guard.alarms.tree()))
        assert is_on(world)
        line.fault = Fault.NONE
        await until(lambda: not is_on(world))


async def test_sampling_stops_though_the_laser_is_gone(world: World) -> None:
    async with watched(world) as (lab, line, _):
        line.fault = Fault.UNPLUGGED
        await lab.state.stop()
