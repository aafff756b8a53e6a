"""Contract of every pyrometer. A new driver joins by a row in `RIGS`; no claim here may be overridden."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

import claims
import emulated
from acquisition.devices import Limits, Pyrometer
from acquisition.errors import LimitExceeded
from emulated import EMISSIVITY
from hardware_drivers.emulators.upp import ZERO_CELSIUS_K, UppEmulator
from hardware_drivers.simulated import SimulatedPyrometer, World

COLDEST_K, HOTTEST_K = 523.15, 1673.15


@dataclass(frozen=True, slots=True)
class Rig:
    """`settle(current_a)` lets the specimen, of emissivity 0.7, come to rest at that laser current."""

    pyrometer: Pyrometer
    settle: Callable[[float], Awaitable[float]]


@asynccontextmanager
async def simulated(world: World) -> AsyncIterator[Rig]:
    range_k = Limits(COLDEST_K, HOTTEST_K, "pyrometer.range_k")
    yield rig_of(SimulatedPyrometer("pyrometer", world, EMISSIVITY, range_k), world)


@asynccontextmanager
async def upp(world: World) -> AsyncIterator[Rig]:
    range_c = (COLDEST_K - ZERO_CELSIUS_K, HOTTEST_K - ZERO_CELSIUS_K)
    async with emulated.upp(UppEmulator(world, range_c), world.clock) as (pyrometer, _):
        yield rig_of(pyrometer, world)


def rig_of(pyrometer: Pyrometer, world: World) -> Rig:
    async def settle(current_a: float) -> float:
        world.drive_laser(current_a, emitting=True)
        await world.clock.sleep(120.0)
        return world.temperature_k

    return Rig(pyrometer, settle)


RIGS: dict[str, Callable[[World], AbstractAsyncContextManager[Rig]]] = {"simulated": simulated, "upp": upp}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Rig]:
    async with RIGS[request.param](world) as rig:
        yield rig


async def test_hot_specimen_is_read_as_hot_as_it_is(rig: Rig) -> None:
    async with rig.pyrometer as pyrometer:
        truth_k = await rig.settle(1.0)
        await pyrometer.set_emissivity(0.7)
        await claims.gives_valid_readings(pyrometer, ("temperature_k", "emissivity"))
        readings = await pyrometer.read()
        assert readings["temperature_k"].value == pytest.approx(truth_k, abs=5.0)
        assert readings["emissivity"].value == pytest.approx(0.7, abs=1e-3)


async def test_a_cold_specimen_reads_the_low_end_of_the_range(rig: Rig) -> None:
    async with rig.pyrometer as pyrometer:
        reading = (await pyrometer.read())["temperature_k"]
        assert reading.valid and reading.value == pytest.approx(COLDEST_K, abs=0.05)


async def test_over_range_is_invalid_with_a_reason_and_no_temperature(rig: Rig) -> None:
    async with rig.pyrometer as pyrometer:
        await pyrometer.set_emissivity(0.02)
        await rig.settle(1.5)
        reading = (await pyrometer.read())["temperature_k"]
        assert not reading.valid and "range" in reading.reason
        assert math.isnan(reading.value)


@pytest.mark.parametrize("emissivity", [0.0, 1.2, -0.5, math.nan])
async def test_impossible_emissivity_is_refused_whole(rig: Rig, emissivity: float) -> None:
    async with rig.pyrometer as pyrometer:
        await pyrometer.set_emissivity(0.5)
        with pytest.raises(LimitExceeded, match="nothing was sent"):
            await pyrometer.set_emissivity(emissivity)
        assert (await pyrometer.read())["emissivity"].value == pytest.approx(0.5, abs=1e-3)


async def test_reading_outside_the_context_fails(rig: Rig) -> None:
    await claims.fails_outside_its_context(rig.pyrometer)
