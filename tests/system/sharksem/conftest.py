"""A TESCAN microscope, emulated, with its drivers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import tescan
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.sharksem import SharkSemDetector, SharkSemSession, SharkSemStage
from hardware_drivers.simulated import World


@pytest.fixture
def world() -> World:
    return tescan.small_world()


@pytest.fixture
async def emulator(world: World) -> AsyncIterator[SharkSemEmulator]:
    async with SharkSemEmulator(world) as emulator:
        yield emulator


@pytest.fixture
def session(emulator: SharkSemEmulator) -> SharkSemSession:
    return SharkSemSession(emulator.address)


@pytest.fixture
async def detector(session: SharkSemSession) -> AsyncIterator[SharkSemDetector]:
    async with tescan.detector_on(session) as detector:
        yield detector


@pytest.fixture
async def stage(session: SharkSemSession) -> AsyncIterator[SharkSemStage]:
    async with tescan.stage_on(session) as stage:
        yield stage
