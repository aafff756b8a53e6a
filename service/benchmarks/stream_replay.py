"""How well a replay at speed 1 keeps the times of its recording."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import NANOSECONDS_PER_SECOND, SystemClock
from acquisition.errors import RequestRefused
from acquisition.frames import Frame, RunFinished
from acquisition.recording.disk import check_disk_space
from acquisition.replay import ReplaySource
from service.benchmarks.measured import Measured, NotMeasured
from service.benchmarks.recorder_peers import new_recorder, stamped

RATE_HZ = 10.0


def pacing_error(shape: tuple[int, int, int], frames: int) -> Measured | NotMeasured:
    """How far from its recorded time each of `frames` (at least 2, the first is time 0) leaves its replay."""
    with tempfile.TemporaryDirectory(prefix="eclips-bench-") as folder:
        try:
            check_disk_space(Path(folder), shape, frames)
        except RequestRefused as error:
            return NotMeasured(str(error))
        run = Path(folder) / "run"
        _record(run, shape, frames)
        errors_ms = 1e3 * np.abs(asyncio.run(_late_s(run)))
    return Measured(
        float(np.percentile(errors_ms, 99)),
        f"{frames} frames of {shape[0]} x {shape[1]} x {shape[2]} uint16 recorded at {RATE_HZ:g} frames/s, from the "
        "recorded time to the moment when the replay hands the frame on, early or late: p50 "
        f"{np.percentile(errors_ms, 50):.2f} ms, worst {errors_ms.max():.2f} ms; a machine that is busy shows more",
    )


def _record(run: Path, shape: tuple[int, int, int], frames: int) -> None:
    made = stamped(shape, frames)
    recorder = new_recorder(run, made[0], lambda _: None)
    for number, frame in enumerate(made):
        end_ns = round(number / RATE_HZ * NANOSECONDS_PER_SECOND)
        recorder.write_frame(Frame(replace(frame.header, exposure_end_ns=end_ns), frame.images))
    recorder.finish_frames(RunFinished("bench", "bench", 0, 0, 0, frames, frames - 1, "bench", recorder.digest))
    recorder.close("incomplete", "no heights are asked for")


async def _late_s(run: Path) -> NDArray[np.float64]:
    """Seconds after its time at which each frame but the first leaves the replay, negative where too early."""
    clock = SystemClock()
    source = ReplaySource(run, clock)
    recorded_ns, left_ns = [], []
    async for exposure in source.exposures(None):
        left_ns.append(clock.now().monotonic_ns)
        recorded_ns.append(exposure.end.monotonic_ns)
    late_ns = np.subtract(left_ns, recorded_ns) - (left_ns[0] - recorded_ns[0])
    return late_ns[1:] / NANOSECONDS_PER_SECOND
