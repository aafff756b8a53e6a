"""Gauge, stage and gas that misbehave end in a failure told or an invalid reading, never in a wrong value."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from acquisition.clock import SystemClock, VirtualClock
from acquisition.devices import Device, Limits, Reading, StagePosition
from acquisition.errors import DeviceFailed
from acquisition.instrument import four_quadrant
from acquisition.state import StateKeeper
from hardware_drivers.bronkhorst import BronkhorstBus, BronkhorstFlowController
from hardware_drivers.emulators.bronkhorst import EmulatedBronkhorstBus, EmulatedFlowController
from hardware_drivers.emulators.gcs2 import EmulatedGcs2
from hardware_drivers.emulators.line import Fault, Line
from hardware_drivers.emulators.mnemonic_gauge import EmulatedMnemonicGauge
from hardware_drivers.gcs2 import Gcs2Stage, PiAxis
from hardware_drivers.mnemonic_gauge import MnemonicGauge
from hardware_drivers.simulated import World

# A socket takes 0.3 s to close, a pseudo-terminal none; Windows has only the former.
TERMINALS = os.name == "posix"
TIMEOUT_S = 0.2
PATIENCE_S = 20.0
BOX = Limits(-5e-3, 5e-3, "stage.x_limits_m")
FLOW = Limits(0.0, 1e-4, "oxygen.flow_limit_mol_per_s")


@dataclass(frozen=True, slots=True)
class Rig:
    """A device and the emulator behind it. `quantity` is what it measures, `truth` what that must be when valid."""

    device: Device
    line: Line
    quantity: str
    truth: Callable[[], float]


@pytest.fixture
def world() -> World:
    return World("flat", four_quadrant(), VirtualClock())


@asynccontextmanager
async def gauge(world: World, terminal: bool = TERMINALS) -> AsyncIterator[Rig]:
    world.set_flow("oxygen", 5e-5)
    await world.clock.sleep(300.0)
    async with Line(EmulatedMnemonicGauge(world), terminal=terminal) as line:
        device = MnemonicGauge("gauge", line.address, SystemClock(), "capacitance", timeout_s=TIMEOUT_S)
        yield Rig(device, line, "pressure_pa", lambda: world.pressure_pa)


@asynccontextmanager
async def stage(world: World, terminal: bool = TERMINALS) -> AsyncIterator[Rig]:
    world.stage = StagePosition(1e-3, 0.0)
    async with Line(EmulatedGcs2(world), terminal=terminal) as line:
        axes = {axis: PiAxis(name, BOX) for axis, name in zip("xyz", "123", strict=True)}
        device = Gcs2Stage("stage", line.address, world.clock, axes, timeout_s=TIMEOUT_S)
        yield Rig(device, line, "x_m", lambda: world.stage.x_m)


@asynccontextmanager
async def controller(world: World, terminal: bool = TERMINALS) -> AsyncIterator[Rig]:
    nodes = {3: EmulatedFlowController("oxygen", "O2", 100.0)}
    async with Line(EmulatedBronkhorstBus(world, nodes), terminal=terminal) as line:
        bus = BronkhorstBus(line.address, timeout_s=TIMEOUT_S)
        device = BronkhorstFlowController("oxygen", bus, SystemClock(), "oxygen", FLOW, node=3)
        yield Rig(device, line, "flow_mol_per_s", lambda: world.flow_mol_per_s("oxygen"))


@pytest.fixture
async def rigs(world: World) -> AsyncIterator[list[Rig]]:
    async with (
        gauge(world, terminal=False) as of_gauge,
        stage(world, terminal=False) as of_stage,
        controller(world, terminal=False) as of_controller,
    ):
        yield [of_gauge, of_stage, of_controller]


async def reading(rig: Rig) -> Reading:
    return (await rig.device.read())[rig.quantity]


async def leave(rig: Rig, fault: BaseException) -> None:
    """As the state keeper does with a device that failed."""
    await rig.device.__aexit__(type(fault), fault, None)


async def is_read_as_it_is(rig: Rig) -> None:
    measured = await reading(rig)
    assert measured.valid and measured.value == pytest.approx(rig.truth(), rel=1e-3, abs=1e-12)


async def fails_and_recovers(rig: Rig, fault: Fault) -> None:
    await rig.device.__aenter__()
    await is_read_as_it_is(rig)
    rig.line.slow_s = 1.5 * TIMEOUT_S
    rig.line.fault = fault
    with pytest.raises(DeviceFailed, match=rig.line.address) as failure:
        await reading(rig)
    await leave(rig, failure.value)
    with pytest.raises(DeviceFailed):
        await rig.device.__aenter__()
    rig.line.fault = Fault.NONE
    async with rig.device:
        await is_read_as_it_is(rig)


@pytest.mark.parametrize("fault", [Fault.SILENCE, Fault.HALF, Fault.GARBAGE, Fault.SLOW, Fault.UNPLUGGED])
async def test_misbehaving_device_fails_with_its_address_and_recovers(rigs: list[Rig], fault: Fault) -> None:
    async with asyncio.TaskGroup() as together:
        for rig in rigs:
            together.create_task(fails_and_recovers(rig, fault))


async def test_unplugged_devices_come_back_by_themselves_once_plugged_in(rigs: list[Rig]) -> None:
    latest: dict[str, Reading] = {}
    sampled = asyncio.Event()

    def take(channel: str, sample: Reading) -> None:
        latest[channel] = sample
        sampled.set()

    async def all_are(valid: bool) -> list[Reading]:
        while True:
            readings = [latest.get(f"{rig.device.name}.{rig.quantity}") for rig in rigs]
            if all(reading is not None and reading.valid is valid for reading in readings):
                return [reading for reading in readings if reading is not None]
            sampled.clear()
            await sampled.wait()

    keeper = StateKeeper({rig.device.name: rig.device for rig in rigs}, SystemClock(), take)
    await keeper.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await all_are(valid=True)
            for rig in rigs:
                rig.line.fault = Fault.UNPLUGGED
            assert all(reading.reason for reading in await all_are(valid=False))
            for rig in rigs:
                rig.line.fault = Fault.NONE
            truths = [rig.truth() for rig in rigs]
            assert [reading.value for reading in await all_are(valid=True)] == pytest.approx(truths, rel=1e-3)
    finally:
        await keeper.stop()


# Pressure


async def test_gauge_that_measures_nothing_is_invalid_with_its_reason(world: World) -> None:
    reasons = {
        Fault.UNDER_RANGE: "below the gauge's range",
        Fault.OVER_RANGE: "above the gauge's full scale",
        Fault.SENSOR: "sensor error",
        Fault.NOT_READY: "switched off",
    }
    async with gauge(world) as rig, rig.device:
        for rig.line.fault, reason in reasons.items():
            measured = await reading(rig)
            assert not measured.valid and reason in measured.reason


async def test_gauge_that_refuses_to_answer_fails(world: World) -> None:
    async with gauge(world) as rig, rig.device:
        rig.line.fault = Fault.REFUSING
        with pytest.raises(DeviceFailed, match="refused PR1: a syntax error"):
            await reading(rig)


async def test_stream_of_a_gauge_just_switched_on_is_no_answer(world: World) -> None:
    async with gauge(world) as rig:
        instrument = rig.line.instrument
        assert isinstance(instrument, EmulatedMnemonicGauge)

        async def stream() -> None:
            while True:
                rig.line.send(instrument.unasked())
                await asyncio.sleep(0.01)

        streaming = asyncio.create_task(stream())
        try:
            async with rig.device:
                assert instrument.unasked() == b""
                await is_read_as_it_is(rig)
        finally:
            streaming.cancel()


async def test_pirani_in_hydrogen_is_never_read_as_capacitance(world: World) -> None:
    async with Line(EmulatedMnemonicGauge(world, gauges=("PSG",))) as line:
        device = MnemonicGauge("gauge", line.address, SystemClock(), "capacitance", timeout_s=TIMEOUT_S)
        with pytest.raises(DeviceFailed, match="PSG"):
            await device.__aenter__()


# Stage


async def has_left(world: World, x_m: float) -> None:
    while world.stage.x_m == x_m:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_ignored_move_fails_and_tells_where_the_stage_stands(world: World) -> None:
    async with stage(world) as rig:
        instrument = rig.line.instrument
        assert isinstance(instrument, EmulatedGcs2) and isinstance(rig.device, Gcs2Stage)
        async with rig.device:
            instrument.ignores_moves = True
            with pytest.raises(DeviceFailed, match=r"stands at \(0\.001, 0, 0\) m.*does not move"):
                await rig.device.move(StagePosition(2e-3, 0.0))


async def test_move_that_stalls_half_way_fails_and_tells_where_the_stage_stands(world: World) -> None:
    async with stage(world) as rig:
        instrument = rig.line.instrument
        assert isinstance(instrument, EmulatedGcs2) and isinstance(rig.device, Gcs2Stage)
        async with rig.device:
            instrument.stalls = True
            with pytest.raises(DeviceFailed, match=r"stands at \(0\.00105, 0, 0\) m"):
                await rig.device.move(StagePosition(1.1e-3, 0.0))


async def test_positions_that_cannot_be_or_are_not_known_are_invalid(world: World) -> None:
    async with stage(world) as rig, rig.device:
        for rig.line.fault, reason in ((Fault.OVER_RANGE, "no position"), (Fault.NOT_READY, "not referenced")):
            measured = await reading(rig)
            assert not measured.valid and reason in measured.reason


async def test_refused_move_fails_and_moves_nothing(world: World) -> None:
    async with stage(world) as rig:
        assert isinstance(rig.device, Gcs2Stage)
        async with rig.device:
            rig.line.fault = Fault.REFUSING
            with pytest.raises(DeviceFailed, match="error 83, joystick is active"):
                await rig.device.move(StagePosition(2e-3, 0.0))
            assert world.stage.x_m == 1e-3


async def test_cancelled_move_stops_the_stage(world: World) -> None:
    async with stage(world) as rig:
        assert isinstance(rig.device, Gcs2Stage)
        async with rig.device:
            move = asyncio.create_task(rig.device.move(StagePosition(4e-3, 0.0)))
            async with asyncio.timeout(PATIENCE_S):
                await has_left(world, 1e-3)
            move.cancel()
            await asyncio.wait({move})
            assert move.cancelled() and world.stage.x_m < 4e-3
            assert (await rig.device.read())["moving"].value == 0


async def test_unplugged_stage_is_stopped_as_soon_as_it_is_back(world: World) -> None:
    async with stage(world) as rig:
        assert isinstance(rig.device, Gcs2Stage)
        await rig.device.__aenter__()
        move = asyncio.create_task(rig.device.move(StagePosition(4e-3, 0.0)))
        async with asyncio.timeout(PATIENCE_S):
            await has_left(world, 1e-3)
        rig.line.fault = Fault.UNPLUGGED
        with pytest.raises(DeviceFailed, match=rig.line.address) as failure:
            await move
        await leave(rig, failure.value)
        rig.line.fault = Fault.NONE
        async with rig.device:
            assert (await rig.device.read())["moving"].value == 0
            assert world.stage.x_m < 4e-3


# Gas


async def flowing(rig: Rig) -> tuple[BronkhorstFlowController, EmulatedFlowController]:
    assert isinstance(rig.device, BronkhorstFlowController)
    assert isinstance(rig.line.instrument, EmulatedBronkhorstBus)
    await rig.device.__aenter__()
    await rig.device.set_flow(2e-5)
    return rig.device, rig.line.instrument.nodes[3]


async def test_controller_that_ignores_its_setpoint_fails(world: World) -> None:
    async with controller(world) as rig:
        device, node = await flowing(rig)
        node.obeys = False
        with pytest.raises(DeviceFailed, match="ignores its bus setpoint"):
            await device.set_flow(1e-5)
        with pytest.raises(DeviceFailed, match="oxygen may still flow"):
            await device.__aexit__(None, None, None)


async def test_refused_setpoint_is_told_with_what_the_controller_says(world: World) -> None:
    async with controller(world) as rig:
        device, _ = await flowing(rig)
        rig.line.fault = Fault.REFUSING
        with pytest.raises(DeviceFailed, match=r"node 3 .* failed in writing setpoint: wrong parameter value"):
            await device.set_flow(1e-5)
        rig.line.fault = Fault.NONE
        await device.__aexit__(None, None, None)
        assert world.flow_mol_per_s("oxygen") == 0


async def test_gas_is_shut_on_a_fresh_port_when_the_old_one_broke(world: World) -> None:
    async with controller(world) as rig:
        device, _ = await flowing(rig)
        rig.line.fault = Fault.UNPLUGGED
        with pytest.raises(DeviceFailed) as failure:
            await device.read()
        assert world.flow_mol_per_s("oxygen") > 0
        rig.line.fault = Fault.NONE
        await leave(rig, failure.value)
        assert world.flow_mol_per_s("oxygen") == 0


async def test_shutting_the_gas_while_it_is_being_set_leaves_it_shut(world: World) -> None:
    async with controller(world) as rig:
        device, _ = await flowing(rig)
        await asyncio.gather(device.set_flow(3e-5), device.set_flow(0.0))
        assert world.flow_mol_per_s("oxygen") == 0
        await asyncio.gather(device.set_flow(3e-5), device.__aexit__(None, None, None))
        assert world.flow_mol_per_s("oxygen") == 0


@pytest.mark.parametrize(
    ("misbehave", "quantity", "reason"),
    [
        (lambda node: setattr(node, "alarm", 0x80), "flow_mol_per_s", "hardware error"),
        (lambda node: setattr(node, "alarm", 0x01), "flow_mol_per_s", "reports an error"),
        (lambda node: setattr(node, "flow_shown", 140.0), "flow_mol_per_s", "outside what a controller"),
        (lambda node: setattr(node, "flow_shown", float("nan")), "flow_mol_per_s", "outside what a controller"),
        (lambda node: setattr(node, "control_mode", 8), "flow_setpoint_mol_per_s", "control mode 8"),
    ],
)
async def test_flow_that_cannot_be_is_invalid(
    world: World, misbehave: Callable[[EmulatedFlowController], None], quantity: str, reason: str
) -> None:
    async with controller(world) as rig:
        device, node = await flowing(rig)
        misbehave(node)
        measured = (await device.read())[quantity]
        assert not measured.valid and reason in measured.reason
        await device.__aexit__(None, None, None)


async def test_silent_node_fails_and_the_others_of_its_bus_go_on(world: World) -> None:
    nodes = {
        3: EmulatedFlowController("oxygen", "O2", 100.0),
        4: EmulatedFlowController("hydrogen", "H2", 0.5, "ln/min"),
    }
    async with Line(EmulatedBronkhorstBus(world, nodes)) as line:
        bus = BronkhorstBus(line.address, timeout_s=TIMEOUT_S)
        oxygen = BronkhorstFlowController("oxygen", bus, SystemClock(), "oxygen", FLOW, node=3)
        hydrogen = BronkhorstFlowController("hydrogen", bus, SystemClock(), "hydrogen", FLOW, node=4)
        async with oxygen:
            await oxygen.set_flow(2e-5)
            await hydrogen.__aenter__()
            nodes[4].silent = True
            outcomes: list[Awaitable[object]] = [hydrogen.read(), oxygen.read()]
            failed, readings = await asyncio.gather(*outcomes, return_exceptions=True)
            assert isinstance(failed, DeviceFailed)
            assert isinstance(readings, dict) and readings["flow_mol_per_s"].value == pytest.approx(2e-5, rel=1e-3)
            await hydrogen.__aexit__(DeviceFailed, failed, None)
            assert (await oxygen.read())["flow_setpoint_mol_per_s"].value == pytest.approx(2e-5, rel=1e-3)
        assert world.flow_mol_per_s("oxygen") == 0


async def test_controllers_swapped_on_the_bus_are_refused(world: World) -> None:
    nodes = {3: EmulatedFlowController("hydrogen", "H2", 100.0)}
    async with Line(EmulatedBronkhorstBus(world, nodes)) as line:
        bus = BronkhorstBus(line.address, timeout_s=TIMEOUT_S)
        with pytest.raises(DeviceFailed, match=r"set up for oxygen, but it is a controller M6212345A for 100 .* of H2"):
            await BronkhorstFlowController("oxygen", bus, SystemClock(), "oxygen", FLOW, node=3).__aenter__()
