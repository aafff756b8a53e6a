"""Gas into vacuum with the laser on: refused with the way out, nothing sent, as it would only take the permit."""

from __future__ import annotations

import asyncio

import pytest

from acquisition.device_commands import DeviceCommands
from acquisition.errors import RequestRefused
from acquisition.interlocks import InterlockLimits
from acquisition.recipes.steps import MOL_PER_S_PER_SCCM
from acquisition.rehearsal import Rehearsal, rehearse
from rehearsed import LIMITS, lab, performed, recipe

FLOW = {"flow_mol_per_s": 50 * MOL_PER_S_PER_SCCM}
HEAT = ({"do": "arm"}, {"do": "set", "device": "heater", "current_a": 0.5}, {"do": "wait", "seconds": 1.0})
LET_IN = {"do": "set", "device": "hydrogen", "flow_sccm": 50.0}


async def heat(host: Rehearsal) -> DeviceCommands:
    devices = DeviceCommands(host)
    assert host.lab.heater is not None
    await devices.apply("heater", {"current_a": 0.5})
    await host.lab.heater.arm()
    await asyncio.sleep(1.0)
    return devices


def latest(host: Rehearsal, channel: str) -> float:
    return host.state.latest()[channel].value


def test_gas_into_vacuum_with_the_laser_on_is_refused_with_the_way_out_and_the_laser_stays_on() -> None:
    async def work(host: Rehearsal) -> None:
        devices = await heat(host)
        with pytest.raises(RequestRefused, match="hydrogen stays shut: the laser is on in vacuum") as told:
            await devices.apply("hydrogen", FLOW)
        assert "1 Pa (interlocks.pressure_min_pa)" in str(told.value) and "switch it off" in str(told.value)
        await asyncio.sleep(2.0)
        assert latest(host, "hydrogen.flow_setpoint_mol_per_s") == 0
        assert latest(host, "heater.emission") == 1

    performed(work)


def test_the_way_out_works_and_more_gas_may_follow_with_the_laser_on() -> None:
    async def work(host: Rehearsal) -> None:
        devices = await heat(host)
        assert host.lab.heater is not None
        await host.lab.heater.off()
        await asyncio.sleep(1.0)
        await devices.apply("hydrogen", FLOW)
        await asyncio.sleep(5.0)
        assert latest(host, "gauge.pressure_pa") > LIMITS.pressure_min_pa
        await heat(host)
        await devices.apply("oxygen", {"flow_mol_per_s": 5 * MOL_PER_S_PER_SCCM})
        await asyncio.sleep(2.0)
        assert latest(host, "heater.emission") == 1
        await devices.apply("hydrogen", {"flow_mol_per_s": 0.0})
        assert host.guard.alarms.tree() == []

    performed(work)


def test_a_lower_limit_that_vacuum_meets_lets_gas_in_with_the_laser_on() -> None:
    async def work(host: Rehearsal) -> None:
        devices = await heat(host)
        await devices.apply("hydrogen", FLOW)
        await asyncio.sleep(2.0)
        assert latest(host, "heater.emission") == 1

    performed(work, InterlockLimits(pressure_min_pa=1e-5))


def test_a_dry_run_tells_of_a_recipe_that_opens_gas_after_the_laser() -> None:
    timeline = rehearse(recipe(*HEAT, LET_IN), lab, LIMITS)
    assert (timeline.state, timeline.step) == ("failed", 4)
    assert "hydrogen stays shut" in timeline.reason and "switch it off, open the gas" in timeline.reason
