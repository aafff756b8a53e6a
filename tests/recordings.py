"""Small recordings for tests: every frame is made from its number, so whoever reads it back knows what it must be."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np

from acquisition.clock import SystemClock
from acquisition.frames import (
    Frame,
    FrameHeader,
    Optics,
    Result,
    ResultHeader,
    RunFinished,
    RunStarted,
    checksum,
)
from acquisition.instrument import four_quadrant
from acquisition.recording import RecordedRun, Recorder

SHAPE = (4, 24, 32)
OPTICS = Optics(5e-9, 8e-3, 1e4, 1e-6, 0.0, "calibration")
SOAK_VARIABLE = "ECLIPS_SOAK_ROUNDS"
ROUNDS = int(os.environ.get(SOAK_VARIABLE, "5"))
"""How often a fault is injected; `make soak` sets a hundred. The only place that reads it."""


def run_started(run_id: str = "run") -> RunStarted:
    now = SystemClock().now()
    instrument = four_quadrant().model_dump(mode="json")
    return RunStarted(run_id, "test", 0, now.monotonic_ns, now.utc_ns, SHAPE, "uint16", OPTICS, instrument, None, "")


def frame(sequence: int) -> Frame:
    images = np.random.default_rng(sequence).integers(0, 65536, SHAPE, dtype=np.uint16)
    header = FrameHeader(
        "run", "test", sequence, sequence, sequence, 0, 1, None, SHAPE, "uint16", checksum(images), OPTICS
    )
    return Frame(header, images)


def header_changes(one: FrameHeader, other: FrameHeader) -> set[str]:
    """Names of the fields in which two headers differ."""
    return {field.name for field in fields(FrameHeader) if getattr(one, field.name) != getattr(other, field.name)}


def truth_m(sequence: int) -> np.ndarray:
    return np.full(SHAPE[1:], sequence, np.float32)


def result(sequence: int, model: str = "classical") -> Result:
    height_m = np.full(SHAPE[1:], sequence * 1e-9, np.float32)
    header = ResultHeader("run", "test", sequence, 0, 0, model, {}, "CPU", "c", 5e-9, {"bad": float("nan")}, {})
    return Result(header, {"height": height_m})


def new_recorder(folder: Path, acknowledge: Callable[[int], None] = lambda _: None) -> Recorder:
    return Recorder(folder, run_started(), four_quadrant(), acknowledge, simulated=True)


def record(folder: Path, frames: int, heights: list[int], acknowledged: list[int] | None = None) -> Recorder:
    recorder = new_recorder(folder, (acknowledged if acknowledged is not None else []).append)
    for sequence in range(frames):
        recorder.write_frame(frame(sequence), truth_m(sequence))
    for sequence in heights:
        assert recorder.write_result(result(sequence)) == ""
    return recorder


def end_of_frames(recorder: Recorder) -> None:
    """Heights may still come."""
    n = recorder.frames
    recorder.finish_frames(RunFinished("run", "test", 0, 0, 0, n, n - 1, "asked", recorder.digest))


def finish(recorder: Recorder) -> None:
    end_of_frames(recorder)
    recorder.close("complete")


def assert_frames_are_whole(run: Path, last: int) -> None:
    recorded = RecordedRun(run)
    for sequence in range(last + 1):
        np.testing.assert_array_equal(recorded.read_frame(sequence).images, frame(sequence).images)
        np.testing.assert_array_equal(recorded.read_truth(sequence), truth_m(sequence))
