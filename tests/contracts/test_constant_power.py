"""Contract of laser heaters that can hold a power. A new driver that can joins by a row in `RIGS`."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

import claims
from acquisition.devices import ConstantPower, LaserHeater
from acquisition.errors import DeviceFailed, LimitExceeded
from emulated import CURRENT, POWER
from hardware_drivers.simulated import SimulatedLaserHeater, World


class Laser(LaserHeater, ConstantPower, Protocol):
    """Both at once."""


@dataclass(frozen=True, slots=True)
class Rig:
    """`gives_w`: the light, and `draws_a`: the current, seen behind the driver's back; `weaken(share)` the diode."""

    laser: Laser
    gives_w: Callable[[], float]
    draws_a: Callable[[], float]
    weaken: Callable[[float], None]


def simulated(world: World) -> Rig:
    laser = SimulatedLaserHeater("heater", world, CURRENT, POWER)
    draws_a = lambda: world.laser_target_a if world.laser_emitting else 0.0  # noqa: E731
    return Rig(laser, lambda: world.laser_power_w, draws_a, world.set_diode_efficiency)


RIGS: dict[str, Callable[[World], Rig]] = {"simulated": simulated}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Rig]:
    yield RIGS[request.param](world)


async def test_a_heater_that_can_is_known_by_its_protocol(rig: Rig) -> None:
    assert isinstance(rig.laser, ConstantPower)


async def test_an_armed_laser_gives_the_power_asked_for_and_reads_it(rig: Rig) -> None:
    async with rig.laser as laser:
        await laser.set_power(10.0)
        assert rig.gives_w() == 0.0, "not armed yet"
        await laser.arm()
        assert rig.gives_w() == pytest.approx(10.0, rel=1e-3)
        await claims.gives_valid_readings(laser, ("power_w", "current_a", "emission"))
        assert (await laser.read())["power_w"].value == pytest.approx(10.0, rel=1e-2)


async def test_a_weaker_diode_draws_more_for_the_same_power_up_to_the_current_limit(rig: Rig) -> None:
    async with rig.laser as laser:
        await laser.arm()
        await laser.set_power(20.0)
        fresh_a = rig.draws_a()
        rig.weaken(0.9)
        assert rig.gives_w() == pytest.approx(20.0, rel=1e-3) and rig.draws_a() > fresh_a
        rig.weaken(0.5)
        assert rig.draws_a() == pytest.approx(CURRENT.high) and rig.gives_w() < 20.0


@pytest.mark.parametrize("power_w", [POWER.high + 0.1, -0.1, math.nan, math.inf])
async def test_a_power_beyond_the_limit_is_refused_whole(rig: Rig, power_w: float) -> None:
    async with rig.laser as laser:
        await laser.arm()
        await laser.set_power(5.0)
        with pytest.raises(LimitExceeded, match="nothing was sent"):
            await laser.set_power(power_w)
        assert rig.gives_w() == pytest.approx(5.0, rel=1e-3)


async def test_a_current_takes_over_from_a_power(rig: Rig) -> None:
    async with rig.laser as laser:
        await laser.arm()
        await laser.set_power(20.0)
        await laser.set_current(0.5)
        rig.weaken(0.9)
        assert rig.draws_a() == pytest.approx(0.5, rel=1e-3)


async def test_off_forgets_the_power_and_arming_again_gives_none(rig: Rig) -> None:
    async with rig.laser as laser:
        await laser.arm()
        await laser.set_power(20.0)
        await laser.off()
        assert rig.gives_w() == 0.0 and (await laser.status()).current_target_a == 0.0
        await laser.arm()
        assert rig.gives_w() == 0.0


async def test_leaving_ends_the_power_and_none_is_taken_outside(rig: Rig) -> None:
    async with rig.laser as laser:
        await laser.arm()
        await laser.set_power(20.0)
    assert rig.gives_w() == 0.0
    with pytest.raises(DeviceFailed):
        await rig.laser.set_power(1.0)
