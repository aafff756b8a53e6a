"""Order and ages hold while the wall clock jumps."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from acquisition.clock import SystemClock
from acquisition.recording import RecordedRun
from acquisition.replay import ReplaySource
from recording_microscope import MEGABYTE, Microscope


async def test_a_wall_clock_that_jumps_changes_neither_order_nor_ages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_time_ns, step_ns = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: true_time_ns() + step_ns[0])
    async with Microscope(tmp_path / "runs", MEGABYTE) as microscope:
        started = await microscope.program.carry_out("start", {})
        progress = lambda: microscope.program.node.machine.progress  # noqa: E731
        for jump_s in (-1, 2, -1):
            before = progress().frames
            await microscope.until(lambda before=before: progress().frames > before + 1)
            step_ns[0] += jump_s * 10**9
        await microscope.acknowledged(3)
        await microscope.program.carry_out("stop", {})
        status = await microscope.program.carry_out("status", {})
        assert 0 <= status["frame_age_s"] < 10.0

    run = RecordedRun(tmp_path / "runs" / started["run_id"])
    headers = [run.frames[sequence].header for sequence in run.sequences]
    assert run.sequences == list(range(len(headers)))
    assert all(one.exposure_end_ns <= two.exposure_start_ns for one, two in itertools.pairwise(headers))
    assert any(two.utc_ns < one.utc_ns for one, two in itertools.pairwise(headers)), "no step was seen"
    samples = [sample.monotonic_ns for sample in run.states if sample.channel == "stage.x_m"]
    checked = [header for header in headers if header.exposure_start_ns > samples[0]]
    assert len(checked) >= 2
    for header in checked:
        middle_ns = (header.exposure_start_ns + header.exposure_end_ns) // 2
        joined = header.state["stage.x_m"]
        assert joined.valid
        assert any(abs(joined.age_s * 1e9 - abs(sample - middle_ns)) < 1000 for sample in samples)
    replayed = [one.recorded async for one in ReplaySource(run.path, SystemClock(), speed="max").exposures(None)]
    assert replayed == headers
