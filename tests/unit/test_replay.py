"""A recording played again: the same frames, when the recording says, one at a time, and nothing lost untold."""

from __future__ import annotations

import asyncio
import shutil
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acquisition.clock import Instant, SystemClock, VirtualClock
from acquisition.errors import BadInput, RequestRefused
from acquisition.frames import Exposure, Frame, JoinedValue, RunFinished, RunStarted, checksum
from acquisition.instrument import four_quadrant
from acquisition.recording import RecordedRun, Recorder, repair, verify
from acquisition.replay import ReplaySource
from acquisition.run import Progress, RunMachine, RunPlan
from acquisition.stamping import REPLAY_CHANGES
from recordings import finish, frame, header_changes, new_recorder, run_started, truth_m

SECOND_NS = 10**9
TIMES_S = (1.0, 1.25, 1.5, 3601.5, 3601.75)
"""When the exposures of the usual recording ended: quick ones, and a pause of an hour."""


class Ports:
    """What a node would do for a run, written down."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.told: list[str] = []

    def join_state(self, start: Instant, end: Instant) -> Mapping[str, JoinedValue]:
        return {"stage.x_m": JoinedValue(99.0, True, 0.0)}

    def publish_start(self, run: RunStarted) -> None: ...

    def publish_frame(self, frame: Frame, run: RunStarted) -> None:
        self.frames.append(frame)

    def publish_finish(self, finished: RunFinished) -> None: ...

    def acknowledge(self, run_id: str, sequence: int) -> None: ...

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        self.told.append(f"{name}: {text}")

    async def run_over(self, progress: Progress, reason: str, whole: bool) -> None:
        if progress.recorder is not None:
            progress.recorder.close("complete" if whole else "incomplete", reason)


def taken(sequence: int, end_s: float) -> Frame:
    """A frame with something of its own in every field of its header."""
    made = frame(sequence)
    header = replace(
        made.header,
        monotonic_ns=round(end_s * SECOND_NS),
        utc_ns=1_700_000_000 * SECOND_NS + sequence,
        exposure_start_ns=round((end_s - 0.25) * SECOND_NS),
        exposure_end_ns=round(end_s * SECOND_NS),
        hardware_time_ns=77 + sequence,
        optics=replace(made.header.optics, working_distance_m=8e-3 + 1e-6 * sequence),
        state={"stage.x_m": JoinedValue(1e-6 * sequence, True, 0.01), "gauge.pressure_pa": JoinedValue(None, False, 9)},
        flags=frozenset({"simulated"}),
    )
    return Frame(header, made.images)


def source_run(folder: Path, times_s: Sequence[float] = TIMES_S, without: Sequence[int] = ()) -> Path:
    recorder = new_recorder(folder)
    for sequence, end_s in enumerate(times_s):
        if sequence not in without:
            recorder.write_frame(taken(sequence, end_s), truth_m(sequence))
    finish(recorder)
    return folder


def damage(run: Path, *sequences: int) -> None:
    recorded = RecordedRun(run)
    for sequence in sequences:
        place = recorded.frames[sequence].place
        with (run / place.file).open("r+b") as file:
            file.seek(place.offsets[1])
            file.write(b"\xff\x00\xff")


async def record_again(run: Path, folder: Path, **options: Any) -> tuple[Path, Ports, RunMachine]:
    """Replay `run` through a run machine that records into `folder`, as a node does."""
    ports = Ports()
    machine = RunMachine(folder, SystemClock(), ports, low_space_bytes=0)
    source = ReplaySource(run, SystemClock(), tell=ports.tell, **{"speed": "max"} | options)
    started = await machine.start(RunPlan(source, "replay of run", source.scan, keep_truth=True, simulated=True))
    await machine.wait()
    return folder / started.run_id, ports, machine


async def played(source: ReplaySource, count: int | None = None) -> list[Exposure]:
    return [exposure async for exposure in source.exposures(count)]


def numbers(exposures: Sequence[Exposure]) -> list[int]:
    """The numbers that frames had in their recording."""
    return [exposure.recorded.sequence for exposure in exposures if exposure.recorded is not None]


def assert_same(again: Path, source: Path) -> None:
    """Frame by frame all is equal but what a replay says it changes."""
    one, two = RecordedRun(source), RecordedRun(again)
    assert two.sequences == list(range(len(one.frames)))
    for sequence, before in zip(two.sequences, one.sequences, strict=True):
        first, second = one.read_frame(before), two.read_frame(sequence)
        assert second.images.tobytes() == first.images.tobytes()
        assert header_changes(first.header, second.header) <= REPLAY_CHANGES
        assert second.header.flags == first.header.flags | {"replayed"}
        first_truth, second_truth = one.read_truth(before), two.read_truth(sequence)
        assert first_truth is not None and second_truth is not None
        assert second_truth.tobytes() == first_truth.tobytes()
    assert two.instrument == one.instrument
    assert (again / "instrument.toml").read_bytes() == (source / "instrument.toml").read_bytes()
    assert two.started().optics.calibration_hash == two.instrument.calibration_hash == one.instrument.calibration_hash
    assert (two.manifest.simulated, two.manifest.shape) == (one.manifest.simulated, one.manifest.shape)
    assert two.finished is not None and one.finished is not None
    assert two.finished.digest == one.finished.digest


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
