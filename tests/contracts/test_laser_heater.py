"""Contract of every laser heater. A new driver joins by a row in `RIGS`; no claim here may be overridden."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

import claims
import emulated
from acquisition.devices import LaserHeater
from acquisition.errors import DeviceFailed, LimitExceeded, RequestRefused
from emulated import CURRENT, POWER
from hardware_drivers.emulators.ostech import OsTechEmulator
from hardware_drivers.simulated import SimulatedLaserHeater, World


@dataclass(frozen=True, slots=True)
class Rig:
    """`emits_a`: the current that really flows, seen behind the driver's back; `set_interlock(closed)`."""

    heater: LaserHeater
    limit_a: float
    emits_a: Callable[[], float]
    set_interlock: Callable[[bool], None]


@asynccontextmanager
async def simulated(world: World) -> AsyncIterator[Rig]:
    yield rig_of(SimulatedLaserHeater("heater", world, CURRENT, POWER), world)


@asynccontextmanager
async def ostech(world: World) -> AsyncIterator[Rig]:
    async with emulated.ostech(OsTechEmulator(world), world.clock) as (heater, _):
        yield rig_of(heater, world)


def rig_of(heater: LaserHeater, world: World) -> Rig:
    return Rig(
        heater,
        CURRENT.high,
        lambda: world.laser_target_a if world.laser_emitting else 0.0,
        world.set_interlock,
    )


RIGS: dict[str, Callable[[World], AbstractAsyncContextManager[Rig]]] = {"simulated": simulated, "ostech": ostech}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Rig]:
    async with RIGS[request.param](world) as rig:
        yield rig


async def test_laser_is_off_after_connecting(rig: Rig) -> None:
    async with rig.heater as heater:
        await heater.set_current(0.8)
        await heater.arm()
    async with rig.heater as heater:
        status = await heater.status()
        assert not status.emission_on
        assert status.current_target_a == status.current_a == rig.emits_a() == 0.0


async def test_armed_laser_emits_the_current_asked_for(rig: Rig) -> None:
    async with rig.heater as heater:
        await heater.arm()
        await heater.set_current(0.8)
        status = await heater.status()
        assert status.emission_on and status.interlock_closed
        assert status.current_target_a == pytest.approx(0.8, rel=1e-3)
        assert rig.emits_a() == pytest.approx(0.8, rel=1e-3)


async def test_current_without_arming_emits_nothing(rig: Rig) -> None:
    async with rig.heater as heater:
        await heater.set_current(0.8)
        assert (await heater.status()).current_target_a == pytest.approx(0.8, rel=1e-3)
        assert rig.emits_a() == 0.0


async def test_laser_is_off_after_leaving(rig: Rig) -> None:
    async with rig.heater as heater:
        await heater.arm()
        await heater.set_current(0.8)
    assert rig.emits_a() == 0.0


async def test_laser_is_off_after_an_error_inside(rig: Rig) -> None:
    with pytest.raises(ZeroDivisionError):
        async with rig.heater as heater:
            await heater.arm()
            await heater.set_current(0.8)
            raise ZeroDivisionError
    assert rig.emits_a() == 0.0


async def test_off_stops_and_forgets_the_target_however_often(rig: Rig) -> None:
    async with rig.heater as heater:
        await heater.arm()
        await heater.set_current(0.8)
        for _ in range(2):
            await heater.off()
            status = await heater.status()
            assert not status.emission_on and status.current_target_a == 0.0
            assert rig.emits_a() == 0.0


async def test_current_beyond_the_limit_is_refused_whole(rig: Rig) -> None:
    async with rig.heater as heater:
        await heater.arm()
        await heater.set_current(0.8)
        with pytest.raises(LimitExceeded, match="nothing was sent") as refusal:
            await heater.set_current(rig.limit_a + 0.3)
        assert (refusal.value.value, refusal.value.limit) == (rig.limit_a + 0.3, rig.limit_a)
        assert rig.emits_a() == pytest.approx(0.8, rel=1e-3)


@pytest.mark.parametrize("current_a", [math.nan, math.inf, -0.1])
async def test_current_that_is_no_current_is_refused(rig: Rig, current_a: float) -> None:
    async with rig.heater as heater:
        with pytest.raises(LimitExceeded):
            await heater.set_current(current_a)
        assert (await heater.status()).current_target_a == 0.0


async def test_open_interlock_stops_the_laser_and_closing_does_not_resume_it(rig: Rig) -> None:
    async with rig.heater as heater:
        await heater.arm()
        await heater.set_current(0.8)
        rig.set_interlock(False)
        status = await heater.status()
        assert not status.interlock_closed and not status.emission_on
        with pytest.raises(RequestRefused, match="interlock"):
            await heater.arm()
        rig.set_interlock(True)
        assert not (await heater.status()).emission_on
        assert rig.emits_a() == 0.0


async def test_readings_agree_with_the_status(rig: Rig) -> None:
    async with rig.heater as heater:
        await claims.gives_valid_readings(heater, ("current_a", "current_target_a", "emission", "interlock"))
        await heater.arm()
        await heater.set_current(0.5)
        readings = await heater.read()
        assert readings["emission"].value == readings["interlock"].value == 1
        assert readings["current_target_a"].value == pytest.approx(0.5, rel=1e-3)


async def test_commands_outside_the_context_fail(rig: Rig) -> None:
    await claims.fails_outside_its_context(rig.heater)
    with pytest.raises(DeviceFailed):
        await rig.heater.arm()
    with pytest.raises(DeviceFailed):
        await rig.heater.set_current(0.1)
