"""What an exposure gets when it becomes part of a run: a name, a sequence number, times, state and a checksum."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from time import gmtime, strftime

from acquisition.clock import Instant
from acquisition.frames import Exposure, Frame, FrameHeader, JoinedValue, Optics, RunStarted, checksum
from acquisition.instrument import Instrument

REPLAY_CHANGES = frozenset({"run_id", "source", "sequence", "flags"})
"""All that a replay changes of a frame's header: the run is a new one, its frames are counted from 0, and `flags` says
`replayed`. Times, state, optics and checksum stay what they were when the frame was taken."""


def start_run(
    start: Instant,
    name: str,
    source: str,
    instrument: Instrument,
    size_px: tuple[int, int],
    expected_frames: int | None,
    notes: str,
    fuse_frames: int = 0,
) -> RunStarted:
    """`size_px` is (height, width)."""
    return RunStarted(
        run_id=run_id(start, name),
        source=source,
        sequence=0,
        monotonic_ns=start.monotonic_ns,
        utc_ns=start.utc_ns,
        shape=(len(instrument.detector.segments), *size_px),
        dtype="uint16",
        optics=optics_of(instrument),
        instrument=instrument.model_dump(mode="json"),
        expected_frames=expected_frames,
        notes=notes,
        fuse_frames=fuse_frames,
    )


def stamp(run: RunStarted, sequence: int, exposure: Exposure, state: Mapping[str, JoinedValue]) -> Frame:
    """The frame that `exposure` becomes. A replayed one keeps all that it was recorded with but `REPLAY_CHANGES`."""
    if exposure.recorded is not None:
        header = replace(
            exposure.recorded,
            run_id=run.run_id,
            source=run.source,
            sequence=sequence,
            flags=exposure.recorded.flags | {"replayed"},
        )
        return Frame(header, exposure.images)
    segments, height, width = exposure.images.shape
    header = FrameHeader(
        run_id=run.run_id,
        source=run.source,
        sequence=sequence,
        monotonic_ns=exposure.end.monotonic_ns,
        utc_ns=exposure.end.utc_ns,
        exposure_start_ns=exposure.start.monotonic_ns,
        exposure_end_ns=exposure.end.monotonic_ns,
        hardware_time_ns=exposure.hardware_time_ns,
        shape=(segments, height, width),
        dtype=str(exposure.images.dtype),
        xxh3=checksum(exposure.images),
        optics=exposure.optics,
        state=state,
        flags=exposure.flags,
    )
    return Frame(header, exposure.images)


def optics_of(instrument: Instrument) -> Optics:
    """The numbers of an instrument that ride with every frame."""
    return Optics(
        pixel_size_m=instrument.scan.pixel_size_m,
        working_distance_m=instrument.detector.working_distance_m,
        landing_energy_ev=instrument.beam.energy_ev,
        dwell_time_s=instrument.beam.dwell_time_s,
        scan_rotation_deg=instrument.scan.scan_rotation_deg,
        calibration_hash=instrument.calibration_hash,
    )


def run_id(start: Instant, name: str) -> str:
    """A run's name and folder: UTC time to the millisecond, then a plain form of `name`."""
    seconds, rest_ns = divmod(start.utc_ns, 1_000_000_000)
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
    return f"{strftime('%Y-%m-%dT%H-%M-%S', gmtime(seconds))}-{rest_ns // 1_000_000:03d}_{plain}"
