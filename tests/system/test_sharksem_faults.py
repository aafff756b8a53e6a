"""A TESCAN microscope that misbehaves: each fault is told as such or counted, and what follows works again."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

import numpy as np
import pytest

import tescan
from acquisition.clock import SystemClock
from acquisition.devices import StagePosition
from acquisition.errors import DeviceFailed, RequestRefused
from acquisition.frames import Exposure
from acquisition.instrument import four_quadrant
from acquisition.state import StateKeeper
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.emulators.sharksem import SharkSemFault as Fault
from hardware_drivers.sharksem import SharkSemDetector, SharkSemSession, SharkSemStage
from hardware_drivers.sharksem import detector as detector_module
from hardware_drivers.sharksem import stage as stage_module
from hardware_drivers.sharksem.message import Body, encode_body, encode_message
from hardware_drivers.simulated import World

GENEROUS_S = 30.0
AWAY_M = StagePosition(300e-6, 0.0)


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


async def scanned(detector: SharkSemDetector, count: int = 1) -> list[Exposure]:
    await detector.configure(tescan.SCAN)
    await detector.arm()
    return [exposure async for exposure in detector.exposures(count)]


async def scanning_long(detector: SharkSemDetector, emulator: SharkSemEmulator) -> asyncio.Task[list[Exposure]]:
    """Somebody who waits for a frame that is under way."""
    await detector.configure(tescan.LONG_SCAN)
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


# What the connection does


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


# What the scan does


async def test_gap_makes_a_frame_lost_and_counted_and_the_next_is_given(
    emulator: SharkSemEmulator, detector: SharkSemDetector
) -> None:
    await detector.configure(tescan.SCAN)
    await detector.arm()
    emulator.fault = Fault.CHUNK_GAP
    waiting = asyncio.ensure_future(anext(detector.exposures(1)))
    await until(lambda: detector.frames_lost > 0)
    emulator.fault = Fault.NONE
    async with asyncio.timeout(GENEROUS_S):
        assert (await waiting).images.shape == (4, 24, 40)
    assert (await detector.read())["frames_lost"].value == detector.frames_lost


async def test_endless_gaps_end_the_scan(emulator: SharkSemEmulator, detector: SharkSemDetector) -> None:
    emulator.fault = Fault.CHUNK_GAP
    with pytest.raises(DeviceFailed, match="5 frames in a row were lost"):
        await scanned(detector)
    assert detector.frames_lost == 5
    assert not emulator.microscope.scanning


async def test_repeated_chunk_overwrites() -> None:
    images = []
    for fault in (Fault.NONE, Fault.REPEATED_CHUNK):
        async with SharkSemEmulator(tescan.small_world()) as emulator:
            emulator.fault = fault
            async with tescan.detector_on(SharkSemSession(emulator.address)) as detector:
                images.append((await scanned(detector))[0].images)
    assert images[0].any()
    np.testing.assert_array_equal(images[0], images[1])


async def test_segments_keep_their_order(emulator: SharkSemEmulator, detector: SharkSemDetector) -> None:
    """Each channel has the segment that the instrument file has in its place, whatever the microscope's numbers."""
    (plain,) = await scanned(detector)
    assert len({image.tobytes() for image in plain.images}) == 4
    async with SharkSemEmulator(tescan.small_world()) as other:
        instrument = tescan.named_quadrants()
        segments = instrument.detector.segments
        names = {"Q1": "BSE Q3", "Q2": "BSE Q4", "Q3": "BSE Q1", "Q4": "BSE Q2"}
        renamed = tuple(part.model_copy(update={"name": names[part.name]}) for part in segments)
        part = instrument.detector.model_copy(update={"segments": renamed})
        turned = instrument.model_copy(update={"detector": part})
        async with tescan.detector_on(SharkSemSession(other.address), turned) as detector:
            (exposure,) = await scanned(detector)
    np.testing.assert_array_equal(exposure.images, plain.images[[2, 3, 0, 1]])


async def test_silent_data_line_is_told_and_mended_by_entering_again(
    emulator: SharkSemEmulator, detector: SharkSemDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "SILENCE_S", 1.0)
    emulator.fault = Fault.NO_DATA
    with pytest.raises(DeviceFailed, match=r"no image data .*of frame 1, \[0, 0, 0, 0\] of 960 pixels"):
        await scanned(detector)
    with pytest.raises(DeviceFailed, match="no image data"):
        await detector.read()
    emulator.fault = Fault.NONE
    await detector.__aexit__(None, None, None)
    async with detector:
        assert len(await scanned(detector)) == 1


async def test_refused_scan_is_told_with_its_size(emulator: SharkSemEmulator, detector: SharkSemDetector) -> None:
    emulator.fault = Fault.SCAN_REFUSED
    with pytest.raises(DeviceFailed, match="refuses to scan 40 x 24 px at 2000 ns"):
        await scanned(detector)


async def test_infrared_protection_bars_arming_and_ends_a_scan(
    emulator: SharkSemEmulator, detector: SharkSemDetector
) -> None:
    waiting = await scanning_long(detector, emulator)
    emulator.fault = Fault.INFRARED_PROTECTION
    with pytest.raises(DeviceFailed, match="infrared protection is active"):
        await waiting
    assert (await detector.read())["infrared_protection"].value == 1
    with pytest.raises(DeviceFailed, match="lower the laser"):
        await detector.arm()


async def test_beam_in_transition_bars_arming_and_ends_a_scan(
    emulator: SharkSemEmulator, detector: SharkSemDetector
) -> None:
    waiting = await scanning_long(detector, emulator)
    emulator.fault = Fault.BEAM_IN_TRANSITION
    with pytest.raises(DeviceFailed, match="being switched"):
        await waiting
    beam = (await detector.read())["beam_on"]
    assert (beam.valid, beam.reason) == (False, "the beam is being switched; wait until it is on")
    for refused in (detector.arm(), detector.configure(tescan.SCAN)):
        with pytest.raises(RequestRefused, match="wait until it is on"):
            await refused


async def test_beam_that_is_off_is_a_valid_reading_and_bars_arming(
    emulator: SharkSemEmulator, detector: SharkSemDetector
) -> None:
    emulator.microscope.beam = 0
    beam = (await detector.read())["beam_on"]
    assert (beam.valid, beam.value) == (True, 0)
    with pytest.raises(RequestRefused, match="switch it on"):
        await detector.arm()


async def test_cancelling_a_frame_stops_the_scan(emulator: SharkSemEmulator, detector: SharkSemDetector) -> None:
    waiting = await scanning_long(detector, emulator)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not emulator.microscope.scanning
    assert len(await scanned(detector)) == 1


async def test_error_between_frames_leaves_no_scan(emulator: SharkSemEmulator, detector: SharkSemDetector) -> None:
    await detector.configure(tescan.SCAN)
    await detector.arm()
    with pytest.raises(ZeroDivisionError):
        async with aclosing(detector.exposures(None)) as exposures:  # type: ignore[type-var]
            async for _ in exposures:
                raise ZeroDivisionError
    assert not emulator.microscope.scanning
    assert len(await scanned(detector)) == 1


async def test_stop_ends_a_frame_under_way(emulator: SharkSemEmulator, detector: SharkSemDetector) -> None:
    waiting = await scanning_long(detector, emulator)
    await detector.stop()
    assert await waiting == []
    assert not emulator.microscope.scanning
    assert detector.frames_lost == 0


async def test_view_field_changed_at_the_microscope_is_kept(
    emulator: SharkSemEmulator, detector: SharkSemDetector
) -> None:
    await detector.configure(tescan.SCAN)
    assert emulator.microscope.view_field_m == pytest.approx(400e-9)
    emulator.microscope.view_field_m = 8e-6
    scan = tescan.ScanRequest(width_px=80, height_px=24)
    assert (await detector.configure(scan)).scan.pixel_size_m == pytest.approx(100e-9)
    assert emulator.microscope.view_field_m == 8e-6


async def test_segments_that_the_microscope_lacks_are_named(session: SharkSemSession) -> None:
    detector = tescan.detector_on(session, four_quadrant())
    with pytest.raises(DeviceFailed, match=r"\['A', 'B', 'C', 'D'\].*'SE', 'BSE Q1'.*'Q4'"):
        await detector.__aenter__()
    assert session.state == "away"


# What the stage does


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


# What the server does with others


async def test_unknown_and_malformed_messages_get_no_answer(emulator: SharkSemEmulator) -> None:
    host, port = emulator.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for command, body in (("Nonsense", b""), ("SetViewField", b"\xff"), ("StgMoveTo", encode_body(1.0))):
        writer.write(encode_message(command, body, 1, 1))
    writer.write(encode_message("HVGetBeam", b"", 2))
    async with asyncio.timeout(GENEROUS_S):
        answer = await reader.readexactly(36)
    assert answer == encode_message("HVGetBeam", struct.pack("<i", 1), 2)
    writer.close()


async def test_program_that_leaves_data_unread_is_dropped() -> None:
    async with SharkSemEmulator(tescan.small_world(), patience_s=0.3) as emulator:
        host, port = emulator.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with socket.socket() as data:
            data.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            data.bind((host, 0))
            messages = (
                ("TcpRegDataPort", (data.getsockname()[1],)),
                ("DtSelect", (0, 4)),
                ("DtEnable", (0, 1, 16)),
            )
            for command, arguments in messages:
                writer.write(encode_message(command, encode_body(*arguments), 1, 1))
            async with asyncio.timeout(GENEROUS_S):
                await until(lambda: "DtEnable" in emulator.received)
                data.setblocking(False)
                await asyncio.get_running_loop().sock_connect(data, (host, int(port) + 1))
                scan = (1, 256, 256, 0, 0, 255, 255, 0, 10)
                writer.write(encode_message("ScScanXY", encode_body(*scan), 1, 1))
                with suppress(ConnectionResetError):
                    await reader.read()
        writer.close()
    assert reader.at_eof() or reader.exception() is not None
