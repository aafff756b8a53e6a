"""Stand-ins for microscopes that we cannot drive: files as each maker writes them, and operators who set a microscope
as a run expects it and let it scan on."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from acquisition.devices import ScanRequest
from acquisition.instrument import Instrument
from hardware_drivers.passive_detector import PassiveDetector

Images = NDArray[np.uint16]
Save = Callable[[int, Images, Instrument], Awaitable[None]]
PAUSE_S = 0.02
GENEROUS_S = 30.0

FEI_TEXT = "\r\n".join(
    [
        "[User]\r\nDate=03/14/2019\r\nTime=02:15:26 PM",
        "[EBeam]\r\nHV={energy_ev}\r\nWD={working_distance_m}\r\nBeamCurrent={current_a}",
        "[EBeamDeceleration]\r\nModeOn=Off\r\nLandingEnergy=500",
        "[Scan]\r\nPixelWidth={pixel_size_m}\r\nDwelltime={dwell_time_s}",
        "[Detectors]\r\nNumber=1\r\nName=ABS\r\nMode={segment}",
        "[Image]\r\nResolutionX={width_px}\r\nResolutionY={height_px}\r\n[PrivateFei]\r\nDatabarHeight=0\r\n",
    ]
)
ZEISS_TEXT = "\r\n".join(
    [
        "0\r\n1024\r\n5e-09",
        "AP_ACTUALKV\r\nEHT = 7.00 kV",
        "AP_WD\r\nWD =  5.1 mm",
        "AP_IPROBE\r\nI Probe = 250.0 pA",
        "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 12.50 nm",
        "DP_DWELL_TIME\r\nDwell Time = 400 ns",
        "AP_DATE\r\nDate :25 Nov 2014",
        "AP_TIME\r\nTime :11:33:05",
        *(f"DP_4QBSD_Q{n}\r\n4QBSD Q{n} = {{q{n}}}" for n in range(1, 7)),
    ]
)
TESCAN_MAIN = "AccFrames=1\nDate=2014-08-18\nTime=10:20:30\nImageStripSize={strip}\nPixelSizeX=2.5e-08\nDevice=MIRA3\n"
TESCAN_SEM = "HV=15000.0\nWD=0.0095\nPredictedBeamCurrent=3.2e-10\nDwellTime=3.2e-06\n"
HITACHI_TEXT = (
    "[SemImageFile]\r\nInstructName=SU8230\r\nDate=10/22/2014\r\nTime=14:07:56\r\nDataSize=48x32\r\n"
    "PixelSize=9.921875\r\nAcceleratingVoltage=15000 Volt\r\nWorkingDistance=8100 um\r\nEmissionCurrent=10000 nA\r\n"
)
JEOL_TEXT = (
    "$CM_FORMAT JEOL-SEM\r\n$CM_DATE 2014/06/10\r\n$CM_TIME 12:07:56\r\n$CM_ACCEL_VOLT 15.00\r\n$CM_FULL_SIZE 48 32\r\n"
    "$$SM_WD 8.0\r\n$$SM_MICRON_BAR 200\r\n$$SM_MICRON_MARKER 1um\r\n"
)


def fei_tags(segment: str = "A", **values: float | str) -> list[Any]:
    usual = {
        "energy_ev": 7000.0,
        "working_distance_m": 0.00501,
        "current_a": 5.25e-10,
        "pixel_size_m": 6.5104e-08,
        "dwell_time_s": 2e-05,
        "width_px": 48,
        "height_px": 32,
    }
    return [(34682, "s", 0, FEI_TEXT.format(segment=segment, **{**usual, **values}), True)]


def zeiss_tags(quadrant: int = 0, text: str = ZEISS_TEXT) -> list[Any]:
    """`quadrant` is the only one that is on; 0 for all."""
    states = {f"q{n}": "On" if quadrant in (0, n) else "Off" for n in range(1, 7)}
    return [(34118, "s", 0, text.format(**states), True)]


def tescan_bytes(strip: int = 8, main: str = TESCAN_MAIN, sem: str = TESCAN_SEM) -> bytes:
    """A thumbnail and two chunks of text, as the microscope chains them."""
    chunks = ((0x8001, bytes(range(40))), (2, main.format(strip=strip).encode()), (3, sem.encode()))
    return b"".join(struct.pack("<IH", len(data) + 2, kind) + data for kind, data in chunks)


def tescan_tags(content: bytes) -> list[Any]:
    return [(50431, 7, len(content), content, True)]


def write_set(
    folder: Path, stem: str, images: Images, instrument: Instrument, segments: str = "ABCD", bar: int = 7
) -> list[Path]:
    """One file per segment as FEI writes them, `bar` rows of data bar below the image."""
    paths = [folder / f"{stem}_{segment}.tif" for segment in segments]
    _, height, width = images.shape
    for path, segment, image in zip(paths, segments, images, strict=False):
        tags = fei_tags(
            segment,
            energy_ev=instrument.beam.energy_ev,
            working_distance_m=instrument.detector.working_distance_m,
            current_a=instrument.beam.current_a,
            pixel_size_m=instrument.scan.pixel_size_m,
            dwell_time_s=instrument.beam.dwell_time_s,
            width_px=width,
            height_px=height,
        )
        tifffile.imwrite(path, np.pad(image, ((0, bar), (0, 0))), extratags=tags, metadata=None)
    return paths


def scan_of(number: int, height: int, width: int) -> Images:
    """Four images that tell which scan and segment they are of."""
    images = np.full((4, height, width), 100 * number, np.uint16)
    return images + np.arange(4, dtype=np.uint16)[:, None, None]


@asynccontextmanager
async def operated(detector: PassiveDetector, save: Save) -> AsyncIterator[None]:
    """An operator sets the microscope as each run expects it; it scans on from then, whether anybody takes it or not,
    and saves each scan no sooner than its pixels take."""
    task: asyncio.Task[None] | None = None
    configure = detector.configure
    number = 0

    async def scan_on(scan: ScanRequest, instrument: Instrument) -> None:
        nonlocal number
        while True:
            await asyncio.sleep(PAUSE_S + scan.width_px * scan.height_px * instrument.beam.dwell_time_s)
            number += 1
            await save(number, scan_of(number, scan.height_px, scan.width_px), instrument)

    async def turn_off() -> None:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def set_up(scan: ScanRequest) -> Instrument:
        nonlocal task
        instrument = await configure(scan)
        await turn_off()
        task = asyncio.create_task(scan_on(scan, instrument))
        return instrument

    detector.configure = set_up  # type: ignore[method-assign]
    try:
        yield
    finally:
        await turn_off()


def write_scans(folder: Path) -> Save:
    async def save(number: int, images: Images, instrument: Instrument) -> None:
        write_set(folder, f"scan{number}", images, instrument)

    return save


def post_scans(url: str, key: str) -> Save:
    """What is refused is gone, as with a microscope whose program does not wait."""

    async def save(number: int, images: Images, instrument: Instrument) -> None:
        header = {
            **push_header(number, images),
            "pixel_size_m": instrument.scan.pixel_size_m,
            "dwell_time_s": instrument.beam.dwell_time_s,
        }
        await post(url, key, json.dumps(header).encode() + b"\n" + images.astype("<u2").tobytes())

    return save


def push_header(number: int, images: Images) -> dict[str, Any]:
    _, height, width = images.shape
    return {
        "segments": ["A", "B", "C", "D"],
        "width_px": width,
        "height_px": height,
        "dtype": "uint16",
        "number": number,
        "time_ns": 1_000_000 * number,
    }


async def post(url: str, key: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer to one frame."""
    head = f"POST /frames HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return await converse(url, head.encode() + body)


async def converse(url: str, request: bytes, ended: bool = False) -> tuple[int, dict[str, Any]]:
    """Status and answer to anything at all, after which nothing follows if it is `ended`; 0 where there was none."""
    host, port = url.removeprefix("http://").partition("/")[0].rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        if ended:
            writer.write_eof()
        async with asyncio.timeout(GENEROUS_S):
            answer = await reader.read()
    except ConnectionError:
        return 0, {}
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split(b" ")[1]), json.loads(body)) if head else (0, {})


async def until(true: Callable[[], bool]) -> None:
    """What is waited for lies in another thread, another program or the file system: there is no event to await."""
    async with asyncio.timeout(GENEROUS_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
