"""A setpoint beyond its limit is refused whole, whatever door it comes by: the instruments hear nothing of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import zmq

from acquisition.control import ControlClient
from acquisition.devices import ConstantPower, LaserHeater, MassFlowController, Pyrometer, Stage, StagePosition
from acquisition.errors import BadInput, LimitExceeded, RequestRefused
from emulated_lab import Site, matches, site
from programs import Laboratory, write_settings
from service import wiring

KEY = "the-key-of-this-test"
ORDERS = {
    "heater": rb"LCT\d|LR\r",
    "pyrometer": rb"em\d{4}",
    "hydrogen": rb":[0-9A-F]{4}01",
    "oxygen": rb":[0-9A-F]{4}01",
    "stage": rb"MOV|SVO ",
}
"""What an instrument is told when it is to do something, rather than asked."""


@dataclass(frozen=True, slots=True)
class Setpoint:
    device: str
    inside: dict[str, float]
    beyond: dict[str, float]


SETPOINTS = [
    Setpoint("heater", {"current_a": 0.3}, {"current_a": 1.501}),
    Setpoint("heater", {"current_a": 0.0}, {"current_a": -0.001}),
    Setpoint("pyrometer", {"emissivity": 0.5}, {"emissivity": 1.001}),
    Setpoint("pyrometer", {"emissivity": 0.5}, {"emissivity": 0.049}),
    Setpoint("hydrogen", {"flow_mol_per_s": 1e-5}, {"flow_mol_per_s": 1.2e-4}),
    Setpoint("oxygen", {"flow_mol_per_s": 0.0}, {"flow_mol_per_s": -1e-9}),
    Setpoint("stage", {"x_m": 1e-6, "y_m": 1e-6}, {"x_m": 1e-6, "y_m": 5.001e-3}),
    Setpoint("stage", {"z_m": 0.0}, {"z_m": -5.001e-3}),
]


@pytest.mark.parametrize("pi_stage", [True, False], ids=["PI stage", "microscope's stage"])
async def test_nothing_goes_over_the_wire_for_a_setpoint_beyond_its_limit(tmp_path: Path, pi_stage: bool) -> None:
    async with site(tmp_path, pi_stage=pi_stage) as here, doors(here.laboratory) as ways_in:
        before = orders(here)
        for setpoint in SETPOINTS:
            for ask in ways_in.values():
                with pytest.raises(LimitExceeded, match="nothing was sent") as refusal:
                    await ask(setpoint.device, setpoint.beyond)
                assert refusal.value.value in setpoint.beyond.values()
        await two_more_rounds(here)
        assert orders(here) == before
        for setpoint in SETPOINTS:
            before = orders(here)
            await ways_in["REST"](setpoint.device, setpoint.inside)
            assert {device for device, count in orders(here).items() if count > before[device]} >= {setpoint.device}


async def test_a_power_beyond_its_limit_is_refused_whole_whatever_door_it_comes_by(tmp_path: Path) -> None:
    async with Laboratory(write_settings(tmp_path)) as laboratory, doors(laboratory) as ways_in:
        heater = laboratory.program.node.lab.heater
        assert heater is not None
        for ask in ways_in.values():
            with pytest.raises(LimitExceeded, match=r"limits\.heater_power_w.*nothing was sent"):
                await ask("heater", {"power_w": 26.1})
            assert (await heater.status()).current_target_a == 0.0
            await ask("heater", {"power_w": 20.0})
            assert (await heater.status()).current_target_a == pytest.approx(1.2)
            await heater.off()


async def test_a_laser_that_holds_no_power_says_so_and_hears_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        before = orders(here)
        assert "power_w" not in here.laboratory.program.node.lab.limits["heater"]
        with pytest.raises(RequestRefused, match="heater holds no power, only a current: set current_a"):
            await here.laboratory.ask("set", device="heater", values={"power_w": 5.0})
        with pytest.raises(BadInput, match=r"heater has no setpoint power_w; it has current_a"):
            steps = [{"do": "set", "device": "heater", "power_w": 5.0}]
            await here.laboratory.ask("recipe_start", recipe={"name": "power", "steps": steps})
        await two_more_rounds(here)
        assert orders(here) == before


# The ways in


Ask = Callable[[str, dict[str, float]], Awaitable[None]]


@asynccontextmanager
async def doors(laboratory: Laboratory) -> AsyncIterator[dict[str, Ask]]:
    settings = laboratory.settings
    server = wiring.server(settings, KEY)
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    await laboratory.until(lambda: server.started)
    base, headers = f"http://127.0.0.1:{settings.serve.port}/api/v1", {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=20) as client:

        async def over_rest(device: str, values: dict[str, float]) -> None:
            answer = await client.post(f"/devices/{device}/setpoints", json=values)
            if answer.status_code == 422:
                problem = answer.json()
                raise LimitExceeded(
                    problem["detail"], value=problem["value"], limit=problem["limit"], setting=problem["setting"]
                )
            assert answer.status_code == 200, answer.text

        async def over_control(device: str, values: dict[str, float]) -> None:
            await asyncio.to_thread(_call, settings.stream.endpoints.control, {"device": device, "values": values})

        async def at_driver(device: str, values: dict[str, float]) -> None:
            await drive(laboratory.program.node.lab.devices[device], values)

        yield {"REST": over_rest, "control socket": over_control, "driver": at_driver}
    server.should_exit = True
    await asyncio.to_thread(serving.join, 30)


def _call(address: str, arguments: dict[str, Any]) -> None:
    with zmq.Context() as context:
        client = ControlClient(context, address)
        try:
            client.call("set", arguments)
        finally:
            client.close()


async def drive(device: Any, values: dict[str, float]) -> None:
    """Past all that the node checks."""
    match values:
        case {"current_a": current_a}:
            heater: LaserHeater = device
            await heater.set_current(current_a)
        case {"power_w": power_w}:
            holding: ConstantPower = device
            await holding.set_power(power_w)
        case {"emissivity": emissivity}:
            pyrometer: Pyrometer = device
            await pyrometer.set_emissivity(emissivity)
        case {"flow_mol_per_s": flow_mol_per_s}:
            gas: MassFlowController = device
            await gas.set_flow(flow_mol_per_s)
        case _:
            stage: Stage = device
            await stage.move(StagePosition(**{"x_m": 0.0, "y_m": 0.0, **values}))


# What the instruments heard


def orders(here: Site) -> dict[str, int]:
    """How many each device was given so far; gases share a bus."""
    found = {device: len(matches(ORDERS[device], [ear])) for device, ear in here.heard.items() if device in ORDERS}
    assert here.lab.microscope is not None
    return {"stage": here.lab.microscope.received.count("StgMoveTo"), **found}


async def two_more_rounds(here: Site) -> None:
    """Time enough for what was sent to be heard: every device was asked for its readings again."""
    node = here.laboratory.program.node
    before = {name: at.readings for name, at in node.state.connections.items()}
    each = {name: len(await device.read()) for name, device in node.lab.devices.items()}
    await here.laboratory.until(
        lambda: all(at.readings >= before[name] + 2 * each[name] for name, at in node.state.connections.items())
    )
