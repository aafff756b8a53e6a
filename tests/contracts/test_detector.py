"""Contract of every segmented detector. A new driver joins by a row in `DETECTORS`; no claim may be overridden."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import claims
import tescan
from acquisition.devices import Limits, ScanRequest, SegmentedDetector
from acquisition.errors import DeviceFailed, RequestRefused
from acquisition.frames import FLAGS, Exposure
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.push import push_detector
from hardware_drivers.sharksem import SharkSemSession
from hardware_drivers.simulated import SimulatedDetector, World
from hardware_drivers.tiff.folder import folder_detector
from microscopes import operated, post_scans, write_scans

SIZES = Limits(8, 8192, "detector.size_limit_px")
SCAN = ScanRequest(width_px=40, height_px=24, pixel_size_m=10e-9, dwell_time_s=2e-6)


def simulated(world: World) -> SegmentedDetector:
    return SimulatedDetector("detector", world, SIZES)


@asynccontextmanager
async def sharksem(world: World) -> AsyncIterator[SegmentedDetector]:
    async with (
        SharkSemEmulator(world) as emulator,
        tescan.detector_on(SharkSemSession(emulator.address)) as detector,
    ):
        yield detector


@asynccontextmanager
async def tiff_folder(world: World) -> AsyncIterator[SegmentedDetector]:
    with TemporaryDirectory() as folder:
        detector = folder_detector(Path(folder), world.instrument, size_limits=SIZES, settle_s=0.0, poll_s=0.01)
        async with detector, operated(detector, write_scans(Path(folder))):
            yield detector


@asynccontextmanager
async def push(world: World) -> AsyncIterator[SegmentedDetector]:
    key = "key-of-the-contract"
    detector = push_detector(world.instrument, key, port=0, size_limits=SIZES)
    async with detector, operated(detector, post_scans(detector.address, key)):
        yield detector


DETECTORS: dict[str, Callable[[World], AbstractAsyncContextManager[SegmentedDetector]]] = {
    "simulated": simulated,
    "sharksem": sharksem,
    "tiff_folder": tiff_folder,
    "push": push,
}


@pytest.fixture(params=DETECTORS)
async def detector(request: pytest.FixtureRequest, world: World) -> AsyncIterator[SegmentedDetector]:
    async with DETECTORS[request.param](world) as detector:
        yield detector


async def scanned(detector: SegmentedDetector, count: int) -> list[Exposure]:
    await detector.arm()
    return [exposure async for exposure in detector.exposures(count)]


async def test_exposures_have_the_configured_shape_and_optics(detector: SegmentedDetector) -> None:
    instrument = await detector.configure(SCAN)
    assert instrument.scan.pixel_size_m == SCAN.pixel_size_m
    assert instrument.beam.dwell_time_s == SCAN.dwell_time_s
    for exposure in await scanned(detector, 2):
        assert exposure.images.shape == (len(instrument.detector.segments), SCAN.height_px, SCAN.width_px)
        assert exposure.images.dtype == np.uint16
        assert exposure.images.flags.c_contiguous
        assert exposure.optics.pixel_size_m == SCAN.pixel_size_m
        assert exposure.optics.dwell_time_s == SCAN.dwell_time_s
        assert exposure.optics.working_distance_m == instrument.detector.working_distance_m
        assert exposure.optics.calibration_hash == instrument.calibration_hash
        assert exposure.flags <= FLAGS


async def test_exposures_come_in_order_and_last_at_least_the_dwell_time(detector: SegmentedDetector) -> None:
    await detector.configure(SCAN)
    exposures = await scanned(detector, 3)
    assert len(exposures) == 3
    for exposure in exposures:
        assert exposure.end.seconds_since(exposure.start) >= SCAN.width_px * SCAN.height_px * 2e-6 * (1 - 1e-6)
    for earlier, later in pairwise(exposures):
        assert later.start.monotonic_ns >= earlier.end.monotonic_ns


async def test_what_the_request_leaves_open_stays_as_it_was(detector: SegmentedDetector) -> None:
    before = await detector.configure(SCAN)
    after = await detector.configure(ScanRequest(width_px=16, height_px=16))
    assert after == before


async def test_truth_rides_with_simulated_exposures_alone(detector: SegmentedDetector) -> None:
    await detector.configure(SCAN)
    (exposure,) = await scanned(detector, 1)
    assert (exposure.truth_m is not None) == ("simulated" in exposure.flags)
    if exposure.truth_m is not None:
        assert exposure.truth_m.shape == exposure.images.shape[1:]
        assert exposure.truth_m.dtype == np.float32


async def test_stop_ends_the_iteration(detector: SegmentedDetector) -> None:
    await detector.configure(SCAN)
    await detector.arm()
    seen = 0
    async for _ in detector.exposures(None):
        seen += 1
        await detector.stop()
    assert seen == 1
    await detector.stop()


async def test_closing_the_iterator_stops_the_scan(detector: SegmentedDetector) -> None:
    await detector.configure(SCAN)
    await detector.arm()
    async with aclosing(detector.exposures(None)) as exposures:  # type: ignore[type-var]
        await anext(exposures)
    assert (await detector.configure(SCAN)).scan.pixel_size_m == SCAN.pixel_size_m
    assert len(await scanned(detector, 1)) == 1


async def test_scanning_needs_arming_each_time(detector: SegmentedDetector) -> None:
    await detector.configure(SCAN)
    with pytest.raises(RequestRefused, match="armed"):
        await anext(detector.exposures(1))
    await scanned(detector, 1)
    with pytest.raises(RequestRefused, match="armed"):
        await anext(detector.exposures(1))


async def test_configuring_while_scanning_is_refused(detector: SegmentedDetector) -> None:
    await detector.configure(SCAN)
    await detector.arm()
    async with aclosing(detector.exposures(None)) as exposures:  # type: ignore[type-var]
        await anext(exposures)
        with pytest.raises(RequestRefused, match="scanning"):
            await detector.configure(SCAN)
        assert (await anext(exposures)).images.shape[1:] == (24, 40)


@pytest.mark.parametrize(
    "scan",
    [
        ScanRequest(width_px=0, height_px=24),
        ScanRequest(width_px=40, height_px=-24),
        ScanRequest(width_px=1_000_000, height_px=24),
        ScanRequest(width_px=40, height_px=24, pixel_size_m=math.nan),
        ScanRequest(width_px=40, height_px=24, pixel_size_m=1e-12),
        ScanRequest(width_px=40, height_px=24, pixel_size_m=1e-3),
        ScanRequest(width_px=40, height_px=24, dwell_time_s=-1e-6),
    ],
)
async def test_impossible_scan_is_refused_and_changes_nothing(detector: SegmentedDetector, scan: ScanRequest) -> None:
    before = await detector.configure(SCAN)
    with pytest.raises(RequestRefused):
        await detector.configure(scan)
    (exposure,) = await scanned(detector, 1)
    assert exposure.images.shape[1:] == (SCAN.height_px, SCAN.width_px)
    assert exposure.optics.calibration_hash == before.calibration_hash


async def test_readings_are_valid(detector: SegmentedDetector) -> None:
    readings = await detector.read()
    await claims.gives_valid_readings(detector, tuple(readings))


async def test_device_outside_its_context_fails(detector: SegmentedDetector) -> None:
    await detector.__aexit__(None, None, None)
    await claims.fails_outside_its_context(detector)
    with pytest.raises(DeviceFailed):
        await detector.configure(SCAN)
