"""A recording of schema 1, kept as it was written (`tests/data/make_recording.py`), is readable from now on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from acquisition.clock import SystemClock
from acquisition.frames import Event
from acquisition.recording import RecordedRun, verify
from acquisition.replay import ReplaySource

KEPT = Path(__file__).parents[1] / "data" / "recording-v1"
DIGEST = "68f335359e145e32"


def test_it_opens_with_all_that_was_recorded() -> None:
    run = RecordedRun(KEPT)
    assert (run.manifest.status, run.manifest.frames, run.manifest.heights) == ("complete", 3, 3)
    assert run.manifest.digest == DIGEST
    assert (run.manifest.model, run.manifest.models) == ("classical", ())
    assert run.started().shape == (4, 8, 12)
    assert [sample.value for sample in run.states] == [1e-3] * 3
    assert [type(event) for event in run.events] == [Event]
    for sequence in range(3):
        np.testing.assert_array_equal(run.read_truth(sequence), np.full((8, 12), sequence, np.float32))
        np.testing.assert_array_equal(run.read_height(sequence), np.full((8, 12), sequence * 1e-9, np.float32))


def test_every_checksum_and_count_holds() -> None:
    assert verify(KEPT).findings == ()


def test_its_pages_are_the_frames_for_programs_that_know_only_tiff() -> None:
    pages = tifffile.imread(KEPT / "frames-0000.tif").reshape(3, 4, 8, 12)
    for sequence, one in enumerate(RecordedRun(KEPT).frame_iterator()):
        np.testing.assert_array_equal(pages[sequence], one.images)


async def test_it_replays_bit_for_bit() -> None:
    source = ReplaySource(KEPT, SystemClock(), speed="max")
    replayed = [exposure async for exposure in source.exposures(None)]
    recorded = list(RecordedRun(KEPT).frame_iterator())
    assert [exposure.recorded for exposure in replayed] == [one.header for one in recorded]
    for exposure, one in zip(replayed, recorded, strict=True):
        np.testing.assert_array_equal(exposure.images, one.images)
