"""Contract of every pressure gauge. A new driver joins by a row in `RIGS`; no claim here may be overridden."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

import claims
from acquisition.devices import PressureGauge
from hardware_drivers.emulators.line import Line
from hardware_drivers.emulators.mnemonic_gauge import EmulatedMnemonicGauge
from hardware_drivers.mnemonic_gauge import MnemonicGauge
from hardware_drivers.simulated import SimulatedPressureGauge, World


@dataclass(frozen=True, slots=True)
class Rig:
    """`fill(flow)` lets oxygen flow in, in mol/s, until the pressure is steady, and tells it."""

    gauge: PressureGauge
    fill: Callable[[float], Awaitable[float]]


def filling(world: World) -> Callable[[float], Awaitable[float]]:
    async def fill(flow_mol_per_s: float) -> float:
        world.set_flow("oxygen", flow_mol_per_s)
        await world.clock.sleep(300.0)
        return world.pressure_pa

    return fill


@asynccontextmanager
async def simulated(world: World) -> AsyncIterator[Rig]:
    yield Rig(SimulatedPressureGauge("gauge", world, "capacitance", full_scale_pa=1333.0), filling(world))


@asynccontextmanager
async def mnemonics(world: World) -> AsyncIterator[Rig]:
    async with Line(EmulatedMnemonicGauge(world, full_scale_pa=1333.0), terminal=os.name == "posix") as line:
        yield Rig(MnemonicGauge("gauge", line.address, world.clock, "capacitance"), filling(world))


RIGS: dict[str, Callable[[World], AbstractAsyncContextManager[Rig]]] = {"simulated": simulated, "mnemonics": mnemonics}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Rig]:
    async with RIGS[request.param](world) as rig:
        yield rig


async def test_pressure_is_read_as_it_is(rig: Rig) -> None:
    async with rig.gauge as gauge:
        truth_pa = await rig.fill(5e-5)
        await claims.gives_valid_readings(gauge, ("pressure_pa",))
        assert (await gauge.read())["pressure_pa"].value == pytest.approx(truth_pa, rel=0.02)


async def test_pressure_above_full_scale_is_invalid_with_a_reason(rig: Rig) -> None:
    async with rig.gauge as gauge:
        assert await rig.fill(2e-3) > 1333.0
        reading = (await gauge.read())["pressure_pa"]
        assert not reading.valid and reading.reason


async def test_gauge_says_how_it_measures(rig: Rig) -> None:
    assert rig.gauge.technology in ("capacitance", "pirani")


async def test_reading_outside_the_context_fails(rig: Rig) -> None:
    await claims.fails_outside_its_context(rig.gauge)
