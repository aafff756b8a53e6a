"""A recording played again: the same frames, when the recording says, one at a time, and nothing lost untold."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from acquisition.clock import SystemClock, VirtualClock
from acquisition.errors import BadInput, RequestRefused
from acquisition.recording import RecordedRun, Recorder, verify
from acquisition.replay import ReplaySource
from acquisition.run import RunMachine
from acquisition.run_plan import RunPlan
from acquisition.stamping import REPLAY_CHANGES
from recordings import header_changes
from replayed import TIMES_S, Ports, assert_same, numbers, played, record_again, source_run


async def test_a_replay_recorded_again_equals_its_source_and_so_does_its_own_replay(tmp_path: Path) -> None:
    source = source_run(tmp_path / "source")
    second, _, _ = await record_again(source, tmp_path / "second")
    third, _, _ = await record_again(second, tmp_path / "third")
    assert_same(second, source)
    assert_same(third, source)
    assert all("have no height" in finding for finding in verify(third).findings)


async def test_a_replay_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    source = source_run(tmp_path / "source")
    again, _, _ = await record_again(source, tmp_path / "again", first=2)
    before, after = RecordedRun(source).frames[3].header, RecordedRun(again).frames[1].header
    assert header_changes(before, after) == REPLAY_CHANGES


@pytest.mark.parametrize("speed", ["1", "4", "0.5"])
async def test_frames_leave_when_the_recorded_times_say_pauses_included(tmp_path: Path, speed: str) -> None:
    clock = VirtualClock()
    begin = clock.now()
    source = ReplaySource(source_run(tmp_path / "source"), clock, speed=speed)
    left_s = [clock.now().seconds_since(begin) async for _ in source.exposures(None)]
    assert left_s == pytest.approx([(end_s - TIMES_S[0]) / float(speed) for end_s in TIMES_S], abs=1e-6)


async def test_a_consumer_that_is_late_once_does_not_shift_the_schedule(tmp_path: Path) -> None:
    clock = VirtualClock()
    begin = clock.now()
    source, left_s = ReplaySource(source_run(tmp_path / "source"), clock), []
    async for _ in source.exposures(None):
        left_s.append(clock.now().seconds_since(begin))
        if len(left_s) == 1:
            await clock.sleep(0.4)
    assert left_s == pytest.approx([0.0, 0.4, 0.5, 3600.5, 3600.75], abs=1e-6)


async def test_times_that_run_backwards_are_not_waited_for(tmp_path: Path) -> None:
    clock = VirtualClock()
    begin = clock.now()
    source = ReplaySource(source_run(tmp_path / "source", (5.0, 1.0, 2.0)), clock)
    assert [round(clock.now().seconds_since(begin), 6) async for _ in source.exposures(None)] == [0.0, 0.0, 1.0]


async def test_at_speed_max_a_slow_recorder_still_gets_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_run(tmp_path / "source", [0.0] * 30)
    write = Recorder.write_frame

    def slow(self: Recorder, *arguments: Any) -> None:
        time.sleep(0.005)
        write(self, *arguments)

    monkeypatch.setattr(Recorder, "write_frame", slow)
    again, ports, _ = await record_again(source, tmp_path / "again")
    assert_same(again, source)
    assert [frame.header.sequence for frame in ports.frames] == list(range(30))


async def test_a_step_lets_exactly_one_frame_go_however_fast_they_come(tmp_path: Path) -> None:
    source = ReplaySource(source_run(tmp_path / "source"), SystemClock(), speed="step")
    exposures = source.exposures(None)
    first = asyncio.ensure_future(anext(exposures))
    await asyncio.sleep(0.1)
    assert not first.done()
    for _ in range(3):
        source.step()
    assert numbers([await first, await anext(exposures), await anext(exposures)]) == [0, 1, 2]
    fourth = asyncio.ensure_future(anext(exposures))
    await asyncio.sleep(0.1)
    assert not fourth.done()
    source.step()
    assert numbers([await fourth]) == [3]


async def test_a_seek_shows_the_frame_sought_and_steps_go_on_from_there(tmp_path: Path) -> None:
    source = ReplaySource(source_run(tmp_path / "source"), SystemClock(), speed="step")
    exposures = source.exposures(None)
    coming = asyncio.ensure_future(anext(exposures))
    await asyncio.sleep(0.05)
    source.seek(3)
    assert numbers([await coming]) == [3]
    source.step()
    assert numbers([await anext(exposures)]) == [4]
    source.seek(0)
    source.seek(1)
    assert numbers([await anext(exposures)]) == [1]


async def test_a_seek_out_of_a_pause_lands_at_once_and_keeps_the_pace_from_there(tmp_path: Path) -> None:
    clock = VirtualClock()
    source = ReplaySource(source_run(tmp_path / "source"), clock)
    exposures = source.exposures(None)
    for _ in range(3):
        await anext(exposures)
    asleep = asyncio.Event()

    async def endless(seconds: float) -> None:
        asleep.set()
        await asyncio.sleep(3600)

    usual, clock.sleep = clock.sleep, endless  # type: ignore[method-assign]
    coming = asyncio.ensure_future(anext(exposures))
    await asleep.wait()
    clock.sleep = usual  # type: ignore[method-assign]
    source.seek(1)
    began = clock.now()
    assert numbers([await coming]) == [1]
    assert clock.now() == began
    assert numbers([await anext(exposures)]) == [2]
    assert clock.now().seconds_since(began) == pytest.approx(0.25)


async def test_what_cannot_be_sought_or_stepped_is_refused_with_the_limit(tmp_path: Path) -> None:
    source = ReplaySource(source_run(tmp_path / "source"), SystemClock(), first=1, last=3)
    for position in (-1, 3):
        with pytest.raises(RequestRefused, match=rf"position {position} is outside this replay's 0 to 2"):
            source.seek(position)
    with pytest.raises(RequestRefused, match="plays at speed 1"):
        source.step()
    assert source.position == 0


async def test_a_loop_begins_again_after_the_last_pause_and_its_sequences_rise(tmp_path: Path) -> None:
    clock = VirtualClock()
    begin = clock.now()
    run = source_run(tmp_path / "source", (1.0, 1.5, 3.5))
    source = ReplaySource(run, clock, loop=True)
    left = [
        (number, clock.now().seconds_since(begin))
        async for exposure in source.exposures(7)
        for number in numbers([exposure])
    ]
    assert [number for number, _ in left] == [0, 1, 2, 0, 1, 2, 0]
    assert [at_s for _, at_s in left] == pytest.approx([0.0, 0.5, 2.5, 4.5, 5.0, 7.0, 9.0])
    ports = Ports()
    machine = RunMachine(tmp_path / "again", SystemClock(), ports, low_space_bytes=0)
    looping = ReplaySource(run, SystemClock(), speed="max", loop=True)
    await machine.start(RunPlan(looping, "replay", looping.scan, frames=7))
    await machine.wait()
    assert [frame.header.sequence for frame in ports.frames] == list(range(7))
    assert ports.frames[3].images.tobytes() == ports.frames[0].images.tobytes()


async def test_a_single_frame_loops_at_a_pace_that_can_be_borne(tmp_path: Path) -> None:
    clock = VirtualClock()
    begin = clock.now()
    source = ReplaySource(source_run(tmp_path / "source", (1.0,)), clock, loop=True)
    assert [round(clock.now().seconds_since(begin), 6) async for _ in source.exposures(3)] == [0.0, 1.0, 2.0]


async def test_from_and_to_are_frame_numbers_and_both_are_played(tmp_path: Path) -> None:
    run = source_run(tmp_path / "source", range(10), without=[0, 4])
    for first, last, expected in ((2, 6, [2, 3, 5, 6]), (5, 5, [5]), (0, None, [1, 2, 3, 5, 6, 7, 8, 9])):
        source = ReplaySource(run, SystemClock(), speed="max", first=first, last=last)
        assert source.total == len(expected)
        assert numbers(await played(source)) == expected


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"first": 10}, r"frame 10 is outside the recording: .* holds frames 1 to 9"),
        ({"last": 12}, r"frame 12 is outside the recording: .* holds frames 1 to 9"),
        ({"first": 6, "last": 5}, "the first must not lie after the last"),
        ({"first": 4, "last": 4}, "no frame from 4 to 4 was recorded"),
        ({"speed": "fast"}, r"'fast' is not a number from 0\.01 to 1000, nor step or max"),
        ({"speed": "nan"}, "'nan' is not a number"),
        ({"speed": "0"}, "'0' is not a number"),
        ({"speed": "-1"}, "'-1' is not a number"),
    ],
)
def test_what_cannot_be_played_is_refused_with_the_limit(
    tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    run = source_run(tmp_path / "source", range(10), without=[0, 4])
    with pytest.raises(BadInput, match=complaint):
        ReplaySource(run, SystemClock(), **options)


def test_a_run_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no frames"):
        ReplaySource(source_run(tmp_path / "source", ()), SystemClock())
