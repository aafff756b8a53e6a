"""Makes `recording-v1`, the compatibility test of recording schema 1: a run that every later version must read.

It is kept as the version of its time wrote it: make another one for another schema, never this one again.
`PYTHONPATH=.:tests python tests/data/make_recording.py tests/data/recording-v1`
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from acquisition.frames import Event, Frame, Result, RunFinished, StateSample, checksum
from acquisition.instrument import four_quadrant
from acquisition.recording import Recorder
from acquisition.recording.heights import put_heights_in_order
from recordings import frame, result, run_started

SHAPE = (4, 8, 12)
FRAMES = 3


def small_frame(sequence: int) -> Frame:
    images = np.ascontiguousarray(frame(sequence).images[:, : SHAPE[1], : SHAPE[2]])
    return Frame(replace(frame(sequence).header, shape=SHAPE, xxh3=checksum(images)), images)


def main(folder: Path) -> None:
    run = replace(run_started("recording-v1"), shape=SHAPE, expected_frames=FRAMES, notes="schema 1")
    recorder = Recorder(folder, run, four_quadrant(), lambda _: None, simulated=True)
    recorder.write_event(Event("recording-v1", "test", 0, 1, 1, "transition", "info", "idle -> armed", {"before": 1}))
    for sequence in range(FRAMES):
        recorder.write_state(StateSample("recording-v1", "test", sequence, 1, 1, "stage.x_m", 1e-3, True, ""))
        recorder.write_frame(small_frame(sequence), np.full(SHAPE[1:], sequence, np.float32))
    for sequence in (2, 0, 1):
        height_m = np.full(SHAPE[1:], sequence * 1e-9, np.float32)
        recorder.write_result(Result(result(sequence).header, {"height": height_m}))
    last = FRAMES - 1
    recorder.finish_frames(RunFinished("recording-v1", "test", 0, 2, 2, FRAMES, last, "all taken", recorder.digest))
    recorder.close("recording")
    put_heights_in_order(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
