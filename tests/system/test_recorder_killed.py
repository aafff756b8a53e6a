"""Nothing lost: the recorder is killed at any moment."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile

from acquisition.recording import RecordedRun, find_runs, repair, verify
from killable import RecorderHost
from recordings import SHAPE, assert_frames_are_whole

QUICK_S = 10.0
"""Generous: what "reopening is quick" must hold even beside other programs; reopening in time on the processor."""


@pytest.fixture(scope="module")
def host() -> Iterator[RecorderHost]:
    host = RecorderHost()
    yield host
    host.close()


needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="recorders are forked")


@pytest.mark.soak
@needs_fork
def test_every_acknowledged_frame_outlives_kill_9(host: RecorderHost, tmp_path: Path, rounds: int) -> None:
    for round_number in range(rounds):
        chance = random.Random(round_number)
        run = tmp_path / f"run-{round_number}"
        last = int(host.kill_while("frames", run, chance, 8)[-1])
        assert_frames_are_whole(run, last)
        began = time.process_time()
        found = repair(run)
        recorded = RecordedRun(run)
        assert time.process_time() - began < QUICK_S
        assert recorded.manifest.status == "recovered"
        assert len(recorded.frames) > last
        assert_frames_are_whole(run, max(recorded.frames))
        assert [finding for finding in found.findings if "have no height" not in finding] == []
        assert len(tifffile.imread(run / "frames-0000.tif")) == SHAPE[0] * len(recorded.frames)
        shutil.rmtree(run)


@pytest.mark.soak
@needs_fork
def test_a_kill_at_any_moment_of_a_runs_life_loses_no_acknowledged_frame_and_no_height(
    host: RecorderHost, tmp_path: Path, rounds: int
) -> None:
    for round_number in range(rounds):
        chance = random.Random(1000 + round_number)
        runs = tmp_path / f"runs-{round_number}"
        told = [line.split() for line in host.kill_while("runs", runs, chance, 12)]
        acknowledged: dict[str, int] = {}
        for name, what in told:
            if what == "complete":
                assert verify(runs / name).ok
            else:
                acknowledged[name] = int(what)
        assert set(acknowledged) <= {path.name for path in find_runs(runs)}
        for run in find_runs(runs):
            after = repair(run)
            assert_frames_are_whole(run, acknowledged.get(run.name, -1))
            assert all("have no height" in finding for finding in after.findings)
            assert not list(run.glob("*.new"))
        shutil.rmtree(runs)
