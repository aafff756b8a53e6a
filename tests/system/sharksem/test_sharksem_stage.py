"""What a stage that does not do as told comes to: each move is verified, and none goes on without its program."""

from __future__ import annotations

import asyncio

import pytest

import tescan
from acquisition.devices import StagePosition
from acquisition.errors import DeviceFailed, RequestRefused
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.emulators.sharksem import SharkSemFault as Fault
from hardware_drivers.sharksem import SharkSemSession, SharkSemStage
from hardware_drivers.sharksem import stage as stage_module
from hardware_drivers.simulated import World
from tescan import AWAY_M, until


@pytest.mark.parametrize(
    ("fault", "told"), [(Fault.IGNORED_MOVE, "did not move"), (Fault.CLAMPED_MOVE, "ended elsewhere")]
)
async def test_move_that_is_not_made_is_told(
    emulator: SharkSemEmulator, stage: SharkSemStage, fault: Fault, told: str
) -> None:
    emulator.fault = fault
    with pytest.raises(DeviceFailed, match=told):
        await stage.move(AWAY_M)
    emulator.fault = Fault.NONE
    assert (await stage.move(AWAY_M)).x_m == pytest.approx(300e-6, abs=1e-9)


@pytest.mark.parametrize(("version", "told"), [("2.0.22", "ended elsewhere"), ("3.2.20", "did not move")])
async def test_move_out_of_the_microscopes_range_is_told(version: str, told: str) -> None:
    world = tescan.small_world()
    world.stage = StagePosition(0.0, 0.0, 9.9e-3)
    async with (
        SharkSemEmulator(world, version=version) as emulator,
        tescan.stage_on(SharkSemSession(emulator.address), reach_m=0.1) as stage,
    ):
        with pytest.raises(DeviceFailed, match=told):
            await stage.move(StagePosition(0.0, 0.0, 10.5e-3))


async def test_stage_that_moves_or_is_not_calibrated_refuses(
    emulator: SharkSemEmulator, session: SharkSemSession, stage: SharkSemStage
) -> None:
    await session.order("StgMoveTo", 4.0, 0.0, 0.0)
    with pytest.raises(RequestRefused, match="being moved at the microscope"):
        await stage.move(AWAY_M)
    await stage.stop()
    await until(lambda: not emulator.microscope.moving)
    emulator.microscope.calibrated = False
    with pytest.raises(RequestRefused, match="not calibrated"):
        await stage.move(AWAY_M)


async def test_second_move_is_refused_and_the_first_goes_on(stage: SharkSemStage) -> None:
    first = asyncio.create_task(stage.move(AWAY_M))
    await asyncio.sleep(0)
    with pytest.raises(RequestRefused, match="is moving"):
        await stage.move(StagePosition(0.0, 0.0))
    assert (await first).x_m == pytest.approx(300e-6, abs=1e-9)


async def test_cancelled_move_stops_the_stage(emulator: SharkSemEmulator, stage: SharkSemStage) -> None:
    move = asyncio.create_task(stage.move(StagePosition(4.5e-3, 0.0)))
    await until(lambda: emulator.microscope.moving)
    move.cancel()
    with pytest.raises(asyncio.CancelledError):
        await move
    assert not emulator.microscope.moving


async def test_watchdog_stops_a_stage_whose_program_is_gone(
    world: World, emulator: SharkSemEmulator, stage: SharkSemStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "WATCHDOG_S", 1)
    move = asyncio.create_task(stage.move(StagePosition(4.5e-3, 0.0)))
    await until(lambda: emulator.microscope.moving)
    emulator.fault = Fault.UNPLUGGED
    with pytest.raises(DeviceFailed):
        await move
    await until(lambda: not emulator.microscope.moving)
    assert world.stage.x_m < 4.4e-3
