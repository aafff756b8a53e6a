"""Contract of every stage. A new driver joins by a row in `STAGES`; no claim here may be overridden."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import pytest

import claims
from acquisition.devices import Limits, Stage, StagePosition
from acquisition.errors import LimitExceeded
from hardware_drivers.emulators.gcs2 import EmulatedGcs2
from hardware_drivers.emulators.line import Line
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.gcs2 import Gcs2Stage, PiAxis
from hardware_drivers.sharksem import SharkSemSession, SharkSemStage
from hardware_drivers.simulated import SimulatedStage, World

BOX_M = 5e-3
TOLERANCE_M = 100e-9
BOX = [Limits(-BOX_M, BOX_M, f"stage.{axis}_limits_m") for axis in "xyz"]


def simulated(world: World) -> AbstractAsyncContextManager[Stage]:
    return nullcontext(SimulatedStage("stage", world, *BOX))


@asynccontextmanager
async def gcs2(world: World) -> AsyncIterator[Stage]:
    axes = {axis: PiAxis(name, box) for axis, name, box in zip("xyz", "123", BOX, strict=True)}
    async with Line(EmulatedGcs2(world), terminal=os.name == "posix") as line:
        yield Gcs2Stage("stage", line.address, world.clock, axes)


@asynccontextmanager
async def sharksem(world: World) -> AsyncIterator[Stage]:
    async with SharkSemEmulator(world) as emulator:
        yield SharkSemStage("stage", SharkSemSession(emulator.address), *BOX)


STAGES: dict[str, Callable[[World], AbstractAsyncContextManager[Stage]]] = {
    "simulated": simulated,
    "gcs2": gcs2,
    "sharksem": sharksem,
}


@pytest.fixture(params=STAGES)
async def stage(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Stage]:
    """Not yet entered, with what it needs to be."""
    async with STAGES[request.param](world) as stage:
        yield stage


async def position(stage: Stage) -> tuple[float, float, float]:
    readings = await stage.read()
    return readings["x_m"].value, readings["y_m"].value, readings["z_m"].value


async def test_move_ends_at_the_target_and_says_where(stage: Stage) -> None:
    async with stage:
        reached = await stage.move(StagePosition(20e-6, -30e-6, 5e-6))
        stands = await position(stage)
        assert stands == pytest.approx((20e-6, -30e-6, 5e-6), abs=TOLERANCE_M)
        assert (reached.x_m, reached.y_m, reached.z_m) == pytest.approx(stands, abs=TOLERANCE_M)
        assert (await stage.read())["moving"].value == 0


async def test_connecting_and_leaving_move_nothing(stage: Stage) -> None:
    async with stage:
        await stage.move(StagePosition(10e-6, 0.0))
    async with stage:
        assert (await position(stage))[0] == pytest.approx(10e-6, abs=TOLERANCE_M)


@pytest.mark.parametrize(
    "target",
    [
        StagePosition(BOX_M + 1e-3, 0.0),
        StagePosition(0.0, -BOX_M - 1e-3),
        StagePosition(0.0, 0.0, math.inf),
        StagePosition(math.nan, 0.0),
    ],
)
async def test_target_outside_the_box_moves_nothing(stage: Stage, target: StagePosition) -> None:
    async with stage:
        before = await position(stage)
        with pytest.raises(LimitExceeded, match="nothing was sent"):
            await stage.move(target)
        assert await position(stage) == before


async def test_refusal_carries_value_and_limit(stage: Stage) -> None:
    async with stage:
        with pytest.raises(LimitExceeded) as refusal:
            await stage.move(StagePosition(8e-3, 0.0))
        assert (refusal.value.value, refusal.value.limit) == (8e-3, BOX_M)


async def test_stop_ends_a_move_where_the_stage_stands(stage: Stage) -> None:
    async with stage:
        move = asyncio.create_task(stage.move(StagePosition(4e-3, 0.0)))
        await asyncio.sleep(0)
        assert (await stage.read())["moving"].value == 1
        await stage.stop()
        reached = await move
        assert reached.x_m < 4e-3 - TOLERANCE_M
        assert (await position(stage))[0] == pytest.approx(reached.x_m, abs=TOLERANCE_M)
        assert (await stage.read())["moving"].value == 0


async def test_stop_while_standing_is_harmless(stage: Stage) -> None:
    async with stage:
        await stage.stop()
        reached = await stage.move(StagePosition(1e-6, 0.0))
        assert reached.x_m == pytest.approx(1e-6, abs=TOLERANCE_M)


async def test_readings_are_valid(stage: Stage) -> None:
    async with stage:
        await claims.gives_valid_readings(stage, ("x_m", "y_m", "z_m", "moving"))


async def test_reading_outside_the_context_fails(stage: Stage) -> None:
    await claims.fails_outside_its_context(stage)
