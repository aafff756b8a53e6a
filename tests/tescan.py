"""A TESCAN microscope for tests: emulated, on a small world, with drivers for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from acquisition.clock import Instant, VirtualClock
from acquisition.devices import Limits, ScanRequest, StagePosition
from acquisition.frames import Exposure
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.sharksem import SharkSemDetector, SharkSemSession, SharkSemStage
from hardware_drivers.sharksem.message import ByteOrder
from hardware_drivers.simulated import World

SCAN = ScanRequest(width_px=40, height_px=24, pixel_size_m=10e-9, dwell_time_s=2e-6)
LONG_SCAN = ScanRequest(width_px=40, height_px=24, pixel_size_m=10e-9, dwell_time_s=300e-6)
"""Takes 0.3 s and some six chunks a channel."""
GENEROUS_S = 30.0
AWAY_M = StagePosition(300e-6, 0.0)


def named_quadrants() -> Instrument:
    """The default detector with its segments called as the microscope calls them."""
    tree = four_quadrant().model_dump()
    for number, segment in enumerate(tree["detector"]["segments"], start=1):
        segment["name"] = f"Q{number}"
    return parse_instrument(tree, "the default")


def small_world() -> World:
    return World("cu2o-spiral", four_quadrant(), VirtualClock(Instant(1_000_000_000, 1_700_000_000_000_000_000)))


def detector_on(
    session: SharkSemSession, instrument: Instrument | None = None, byte_order: ByteOrder = "little"
) -> SharkSemDetector:
    size_limits = Limits(8, 8192, "detector.size_limit_px")
    return SharkSemDetector("detector", session, instrument or named_quadrants(), size_limits, byte_order=byte_order)


def stage_on(session: SharkSemSession, reach_m: float = 5e-3) -> SharkSemStage:
    return SharkSemStage("stage", session, *(Limits(-reach_m, reach_m, f"stage.{axis}_limits_m") for axis in "xyz"))


async def scanned(detector: SharkSemDetector, count: int = 1) -> list[Exposure]:
    await detector.configure(SCAN)
    await detector.arm()
    return [exposure async for exposure in detector.exposures(count)]


async def scanning_long(detector: SharkSemDetector, emulator: SharkSemEmulator) -> asyncio.Task[list[Exposure]]:
    """Somebody who waits for a frame that is under way."""
    await detector.configure(LONG_SCAN)
    await detector.arm()

    async def frames() -> list[Exposure]:
        return [exposure async for exposure in detector.exposures(1)]

    waiting = asyncio.create_task(frames())
    await until(lambda: emulator.microscope.scanning)
    return waiting


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(int(GENEROUS_S / 0.01)):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {GENEROUS_S:g} s")
