"""What a bad connection to a TESCAN microscope comes to: it is told with its address, and mended by entering again."""

from __future__ import annotations

import asyncio

import pytest

import tescan
from acquisition.clock import SystemClock
from acquisition.devices import StagePosition
from acquisition.errors import DeviceFailed
from acquisition.state import StateKeeper
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.emulators.sharksem import SharkSemFault as Fault
from hardware_drivers.sharksem import SharkSemDetector, SharkSemSession, SharkSemStage
from hardware_drivers.sharksem.message import Body
from tescan import GENEROUS_S, scanned, scanning_long, until


@pytest.mark.parametrize("fault", [Fault.SILENCE, Fault.GARBAGE, Fault.HALF, Fault.SLOW, Fault.UNPLUGGED])
async def test_bad_connection_is_told_with_its_address_and_mended_by_entering_again(
    emulator: SharkSemEmulator, session: SharkSemSession, detector: SharkSemDetector, fault: Fault
) -> None:
    emulator.fault = fault
    async with asyncio.timeout(GENEROUS_S):
        with pytest.raises(DeviceFailed, match=session.address):
            await detector.read()
        assert session.state == "lost"
        with pytest.raises(DeviceFailed, match=session.address):
            await detector.configure(tescan.SCAN)
        await detector.__aexit__(None, None, None)
        emulator.fault = Fault.NONE
        async with detector:
            assert len(await scanned(detector)) == 1


@pytest.mark.parametrize(("fault", "told"), [(Fault.SILENCE, "did not answer TcpGetVersion"), (Fault.UNPLUGGED, "")])
async def test_microscope_that_is_not_there_cannot_be_entered(
    emulator: SharkSemEmulator, session: SharkSemSession, fault: Fault, told: str
) -> None:
    emulator.fault = fault
    for device in (tescan.detector_on(session), tescan.stage_on(session)):
        with pytest.raises(DeviceFailed, match=f"{session.address}.*{told}"):
            await device.__aenter__()
        assert session.state == "away"


async def test_frames_come_again_after_unplugging_as_the_state_keeper_reconnects(
    emulator: SharkSemEmulator, session: SharkSemSession
) -> None:
    detector, stage = tescan.detector_on(session), tescan.stage_on(session)
    keeper = StateKeeper({"detector": detector, "stage": stage}, SystemClock(), lambda channel, reading: None)
    await keeper.start()
    try:
        assert len(await scanned(detector)) == 1
        emulator.fault = Fault.UNPLUGGED
        connections = keeper.connections.values()
        await until(lambda: not any(connection.connected for connection in connections))
        assert not keeper.latest()["stage.x_m"].valid
        emulator.fault = Fault.NONE
        await until(lambda: all(connection.connected for connection in connections))
        assert len(await scanned(detector)) == 1
        assert (await stage.move(StagePosition(1e-6, 0.0))).x_m == pytest.approx(1e-6, abs=1e-9)
    finally:
        await keeper.stop()
    assert session.state == "away"


async def test_frame_under_way_fails_when_the_connection_goes(
    emulator: SharkSemEmulator, detector: SharkSemDetector
) -> None:
    waiting = await scanning_long(detector, emulator)
    emulator.fault = Fault.UNPLUGGED
    with pytest.raises(DeviceFailed, match="closed the connection"):
        await waiting


async def test_late_answer_to_a_cancelled_call_is_not_taken_for_the_next(session: SharkSemSession) -> None:
    async with SharkSemEmulator(tescan.small_world(), slow_s=0.3) as emulator:
        session = SharkSemSession(emulator.address)
        async with session:
            emulator.fault = Fault.SLOW
            cancelled = asyncio.create_task(session.ask("HVGetVoltage", answer=Body.number))
            await until(lambda: "HVGetVoltage" in emulator.received)
            cancelled.cancel()
            assert await session.ask("HVGetBeam", answer=Body.integer) == 1
            assert session.state == "connected"


async def test_devices_leave_and_enter_the_shared_session_alone(
    session: SharkSemSession, detector: SharkSemDetector
) -> None:
    async with tescan.stage_on(session) as stage:
        await detector.__aexit__(None, None, None)
        assert (await stage.read())["x_m"].valid
        async with detector:
            await detector.read()
        assert session.state == "connected"
    assert session.state == "away"


async def test_session_rebuilt_by_another_device_is_to_be_entered_again(
    emulator: SharkSemEmulator, session: SharkSemSession, detector: SharkSemDetector, stage: SharkSemStage
) -> None:
    emulator.fault = Fault.UNPLUGGED
    with pytest.raises(DeviceFailed):
        await stage.read()
    emulator.fault = Fault.NONE
    await stage.__aexit__(None, None, None)
    async with stage:
        for told in (detector.read(), detector.arm()):
            with pytest.raises(DeviceFailed, match="built anew; enter it again"):
                await told
        await detector.__aexit__(None, None, None)
        async with detector:
            assert len(await scanned(detector)) == 1


@pytest.mark.parametrize(("version", "rounded"), [("2.0.22", False), ("3.2.20", True), ("4.1", True)])
async def test_protocol_versions_and_both_ways_of_counting_serve(version: str, rounded: bool) -> None:
    async with SharkSemEmulator(tescan.small_world(), version=version, rounded_counts=rounded) as emulator:
        async with tescan.detector_on(SharkSemSession(emulator.address)) as detector:
            assert len(await scanned(detector)) == 1
            assert (await detector.read())["infrared_protection"].value == 0
        assert ("DtStateGet" in emulator.received) == (version != "2.0.22")


async def test_leaving_amid_a_frame_fails_it_and_stops_the_scan(
    emulator: SharkSemEmulator, detector: SharkSemDetector, stage: SharkSemStage
) -> None:
    waiting = await scanning_long(detector, emulator)
    await detector.__aexit__(None, None, None)
    with pytest.raises(DeviceFailed, match="disconnected amid its scan"):
        await waiting
    assert not emulator.microscope.scanning
    assert (await stage.read())["x_m"].valid, "the session is still the stage's"
