"""What a scan that goes wrong comes to: a gap is counted and scanned again, all else is told and leaves no scan."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import numpy as np
import pytest

import tescan
from acquisition.errors import DeviceFailed, RequestRefused
from acquisition.instrument import four_quadrant
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.emulators.sharksem import SharkSemFault as Fault
from hardware_drivers.sharksem import SharkSemDetector, SharkSemSession
from hardware_drivers.sharksem import detector as detector_module
from hardware_drivers.sharksem.message import ByteOrder
from tescan import GENEROUS_S, scanned, scanning_long, until


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


@pytest.mark.parametrize("order", ["little", "big"])
async def test_pixels_are_read_in_the_order_that_is_set_and_the_start_tells_which(order: ByteOrder) -> None:
    told = {"little": "low byte first", "big": "high byte first"}
    images = {}
    for sent in ("little", "big"):
        async with SharkSemEmulator(tescan.small_world()) as emulator:
            emulator.byte_order = sent
            async with tescan.detector_on(SharkSemSession(emulator.address), byte_order=order) as detector:
                (said,) = detector.told()
                assert told[order] in said and "byte_order =" in said
                assert detector.told() == [], "once"
                images[sent] = (await scanned(detector))[0].images
    other = "big" if order == "little" else "little"
    np.testing.assert_array_equal(images[order], images[other].byteswap())
    assert images[order].max() < 8192, "of some 152 electrons a pixel"


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
