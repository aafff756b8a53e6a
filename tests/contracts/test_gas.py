"""Contract of every mass flow controller. A new driver joins by a row in `RIGS`; no claim may be overridden."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

import claims
from acquisition.devices import Limits, MassFlowController
from acquisition.errors import LimitExceeded
from hardware_drivers.bronkhorst import BronkhorstBus, BronkhorstFlowController
from hardware_drivers.emulators.bronkhorst import EmulatedBronkhorstBus, EmulatedFlowController
from hardware_drivers.emulators.line import Line
from hardware_drivers.simulated import SimulatedMassFlowController, World

FLOW = 1.5e-5
LIMIT = 7.4e-5


@dataclass(frozen=True, slots=True)
class Rig:
    """`flows`: what really flows, in mol/s, seen behind the driver's back."""

    controller: MassFlowController
    flows: Callable[[], float]


LIMITS = Limits(0.0, LIMIT, "oxygen.flow_limit_mol_per_s")


@asynccontextmanager
async def simulated(world: World) -> AsyncIterator[Rig]:
    controller = SimulatedMassFlowController("oxygen_flow", world, "oxygen", LIMITS)
    yield Rig(controller, lambda: world.flow_mol_per_s("oxygen"))


@asynccontextmanager
async def bronkhorst(world: World) -> AsyncIterator[Rig]:
    nodes = {
        3: EmulatedFlowController("oxygen", "O2", 200.0),
        4: EmulatedFlowController("hydrogen", "H2", 0.5, "ln/min"),
    }
    async with Line(EmulatedBronkhorstBus(world, nodes), terminal=os.name == "posix") as line:
        bus = BronkhorstBus(line.address)
        controller = BronkhorstFlowController("oxygen_flow", bus, world.clock, "oxygen", LIMITS, node=3)
        yield Rig(controller, lambda: world.flow_mol_per_s("oxygen"))


RIGS: dict[str, Callable[[World], AbstractAsyncContextManager[Rig]]] = {
    "simulated": simulated,
    "bronkhorst": bronkhorst,
}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Rig]:
    async with RIGS[request.param](world) as rig:
        yield rig


async def test_flow_follows_its_setpoint(rig: Rig) -> None:
    async with rig.controller as controller:
        await controller.set_flow(FLOW)
        assert rig.flows() == pytest.approx(FLOW, rel=0.01)
        readings = await controller.read()
        assert readings["flow_mol_per_s"].value == pytest.approx(FLOW, rel=0.02)
        assert readings["flow_setpoint_mol_per_s"].value == pytest.approx(FLOW, rel=1e-3)


async def test_gas_is_off_after_connecting_and_after_leaving(rig: Rig) -> None:
    async with rig.controller as controller:
        await controller.set_flow(FLOW)
    assert rig.flows() == 0.0
    async with rig.controller as controller:
        assert (await controller.read())["flow_setpoint_mol_per_s"].value == 0.0


async def test_gas_is_off_after_an_error_inside(rig: Rig) -> None:
    with pytest.raises(ZeroDivisionError):
        async with rig.controller as controller:
            await controller.set_flow(FLOW)
            raise ZeroDivisionError
    assert rig.flows() == 0.0


@pytest.mark.parametrize("flow", [2 * LIMIT, -FLOW, math.nan])
async def test_flow_beyond_its_limits_is_refused_whole(rig: Rig, flow: float) -> None:
    async with rig.controller as controller:
        await controller.set_flow(FLOW)
        with pytest.raises(LimitExceeded, match="nothing was sent") as refusal:
            await controller.set_flow(flow)
        assert refusal.value.limit in (0.0, LIMIT)
        assert rig.flows() == pytest.approx(FLOW, rel=0.01)


async def test_controller_names_its_gas_and_gives_valid_readings(rig: Rig) -> None:
    assert rig.controller.gas == "oxygen"
    async with rig.controller as controller:
        await claims.gives_valid_readings(controller, ("flow_mol_per_s", "flow_setpoint_mol_per_s"))


async def test_reading_outside_the_context_fails(rig: Rig) -> None:
    await claims.fails_outside_its_context(rig.controller)
