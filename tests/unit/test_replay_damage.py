"""What a recording lacks or has spoiled is told, counted and passed over when it is played again."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acquisition.clock import SystemClock, VirtualClock
from acquisition.frames import Frame, checksum
from acquisition.instrument import four_quadrant
from acquisition.recording import RecordedRun, Recorder, repair
from acquisition.replay import ReplaySource
from recordings import finish, frame, new_recorder, run_started, truth_m
from replayed import TIMES_S, Ports, assert_same, damage, numbers, played, record_again, source_run, taken


async def test_gaps_are_told_and_passed_over(tmp_path: Path) -> None:
    run = source_run(tmp_path / "source", range(10), without=[0, 3, 4])
    again, ports, _ = await record_again(run, tmp_path / "again")
    assert "replay_gaps: run lacks frames 0, 3 to 4: the replay goes on without" in ports.told
    assert_same(again, run)
    _, ports, _ = await record_again(run, tmp_path / "part", first=5, last=9)
    assert not [told for told in ports.told if "replay_gaps" in told]


@pytest.mark.parametrize("mended", [False, True])
async def test_a_run_that_was_never_closed_replays_as_it_is_and_repaired(tmp_path: Path, mended: bool) -> None:
    recorder = new_recorder(tmp_path / "live")
    for sequence in range(4):
        recorder.write_frame(taken(sequence, sequence), truth_m(sequence))
    torn = shutil.copytree(tmp_path / "live", tmp_path / "torn")
    with (torn / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"schema":1,"kind":"fra')
    finish(recorder)
    if mended:
        repair(torn)
        assert RecordedRun(torn).manifest.status == "recovered"
    again, _, machine = await record_again(torn, tmp_path / "again")
    assert (machine.state, machine.fault) == ("idle", "")
    assert_same(again, tmp_path / "live")


async def test_a_damaged_frame_is_told_counted_and_passed_over(tmp_path: Path) -> None:
    run = source_run(tmp_path / "source")
    damage(run, 0, 2)
    again, ports, machine = await record_again(run, tmp_path / "again")
    assert machine.state == "idle"
    told = [text for text in ports.told if text.startswith("replay_damaged")]
    assert len(told) == 2
    assert "frame 0" in told[0] and "checksum" in told[0]
    assert machine.progress is not None and isinstance(machine.progress.plan.source, ReplaySource)
    assert machine.progress.plan.source.damaged == {0, 2}
    assert [frame.header.hardware_time_ns for frame in ports.frames] == [78, 80, 81]
    assert RecordedRun(again).sequences == [0, 1, 2]


async def test_a_damaged_frame_takes_no_step_and_shifts_no_time(tmp_path: Path) -> None:
    run = source_run(tmp_path / "source")
    damage(run, 1)
    clock = VirtualClock()
    begin = clock.now()
    paced = [clock.now().seconds_since(begin) async for _ in ReplaySource(run, clock).exposures(None)]
    assert paced == pytest.approx([0.0, 0.5, 3600.5, 3600.75])
    stepping = ReplaySource(run, SystemClock(), speed="step")
    exposures = stepping.exposures(None)
    stepping.step()
    stepping.step()
    assert numbers([await anext(exposures), await anext(exposures)]) == [0, 2]


async def test_a_loop_tells_each_damaged_frame_once(tmp_path: Path) -> None:
    run = source_run(tmp_path / "source")
    damage(run, 1)
    ports = Ports()
    source = ReplaySource(run, SystemClock(), speed="max", loop=True, tell=ports.tell)
    assert numbers(await played(source, 9)) == [0, 2, 3, 4, 0, 2, 3, 4, 0]
    assert len(ports.told) == 1


@pytest.mark.parametrize("loop", [False, True])
async def test_a_replay_of_nothing_but_damage_ends_and_says_so(tmp_path: Path, loop: bool) -> None:
    run = source_run(tmp_path / "source")
    damage(run, *range(len(TIMES_S)))
    _, _, machine = await record_again(run, tmp_path / "again", loop=loop)
    assert "none of the 5 frames" in machine.fault


async def test_a_frame_whose_truth_is_lost_is_played_without_it(tmp_path: Path) -> None:
    run = source_run(tmp_path / "source")
    (run / "truth-0000.tif").unlink()
    ports = Ports()
    exposures = await played(ReplaySource(run, SystemClock(), speed="max", tell=ports.tell))
    assert [exposure.truth_m for exposure in exposures] == [None] * len(TIMES_S)
    assert ports.told[0].startswith("replay_truth: truth of frame 0 is lost")


async def test_a_long_run_is_never_in_memory(tmp_path: Path) -> None:
    shape, frames = (4, 128, 128), 60
    recorder = Recorder(
        tmp_path / "long", replace(run_started(), shape=shape), four_quadrant(), lambda _: None, simulated=True
    )
    for sequence in range(frames):
        images = np.full(shape, sequence, np.uint16)
        header = replace(frame(sequence).header, shape=shape, xxh3=checksum(images))
        recorder.write_frame(Frame(header, images))
    finish(recorder)
    tracemalloc.start()
    try:
        source = ReplaySource(tmp_path / "long", SystemClock(), speed="max")
        count = 0
        async for exposure in source.exposures(None):
            assert (exposure.images == count).all()
            count += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == frames
    assert peak < frames * 4 * 128 * 128 * 2 / 4
