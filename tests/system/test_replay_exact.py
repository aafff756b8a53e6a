"""A live run, its replay, and the replay of that replay: equal to the last bit, heights too, however it is driven."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from acquisition.errors import BadInput, RequestRefused
from acquisition.recording import RecordedRun, verify
from acquisition.stamping import REPLAY_CHANGES
from programs import Laboratory, eclips, write_settings
from recordings import finish, header_changes, record
from service.commands import live as commands

FRAMES = 3


def assert_same(again: Path, source: Path) -> None:
    one, two = RecordedRun(source), RecordedRun(again)
    assert two.sequences == one.sequences == list(range(FRAMES))
    for sequence in one.sequences:
        first, second = one.read_frame(sequence), two.read_frame(sequence)
        assert second.images.tobytes() == first.images.tobytes()
        assert header_changes(first.header, second.header) <= REPLAY_CHANGES
        assert two.read_height(sequence).tobytes() == one.read_height(sequence).tobytes()
        was, now = one.heights[sequence].header, two.heights[sequence].header
        assert (now.model, now.model_hashes, now.provider) == (was.model, was.model_hashes, was.provider)
        assert (now.calibration_hash, now.figures, now.estimated) == (was.calibration_hash, was.figures, was.estimated)
    assert two.instrument == one.instrument
    assert verify(again).ok


@pytest.mark.parametrize("model", ["classical", "unet"])
async def test_a_replay_and_its_replay_equal_the_live_run_heights_included(tmp_path: Path, model: str) -> None:
    inference = f'model = "{model}"\nprovider = "cpu"\nthreads = 1'
    async with Laboratory(write_settings(tmp_path, inference=inference), with_worker=True) as laboratory:
        first = await laboratory.recorded("start", frames=FRAMES, keep_truth=True)
        second = await laboratory.recorded("replay", run=first.name, speed="max", record=True)
        third = await laboratory.recorded("replay", run=str(second), speed="max", record=True)
    assert_same(second, first)
    assert_same(third, first)
    truths = [RecordedRun(run).read_truth(FRAMES - 1) for run in (first, third)]
    assert truths[0] is not None and truths[1] is not None and truths[0].tobytes() == truths[1].tobytes()


async def test_a_replay_by_hand_goes_frame_by_frame_wherever_the_command_comes_from(tmp_path: Path) -> None:
    finish(record(tmp_path / "runs" / "source", 5, []))
    config = write_settings(tmp_path)
    async with Laboratory(config) as laboratory:
        await laboratory.ask("replay", run="source", speed="step", first=1, last=3, loop=True)

        async def comes_to(position: int, frames: int) -> None:
            def run() -> tuple[int, int]:
                progress, source = laboratory.program.node.machine.progress, laboratory.program.node.replaying
                assert progress is not None and source is not None
                return source.position, progress.frames

            await laboratory.until(lambda: run() == (position, frames))

        await comes_to(0, 0)
        await asyncio.to_thread(commands.step, config)
        await comes_to(1, 1)
        await laboratory.ask("step")
        await comes_to(2, 2)
        await asyncio.to_thread(commands.seek, 0, config)
        await comes_to(1, 3)
        with pytest.raises(RequestRefused, match="outside this replay's 0 to 2"):
            await asyncio.to_thread(commands.seek, 3, config)
        with pytest.raises(BadInput, match="greater than or equal to 0"):
            await laboratory.ask("seek", position=-1)
        told = (await laboratory.ask("status"))["run"]["replayed"]
        assert told == {"run_id": "run", "position": 1, "total": 3, "speed": "step", "missing": 0, "damaged": 0}
        await laboratory.ask("stop")
        with pytest.raises(RequestRefused, match="nothing is being replayed"):
            await laboratory.ask("step")


async def test_the_lab_of_today_takes_no_part_in_a_recorded_replay(tmp_path: Path) -> None:
    finish(record(tmp_path / "runs" / "source", 2, []))
    async with Laboratory(write_settings(tmp_path)) as laboratory:
        started = await laboratory.ask("replay", run="source", speed="step", record=True)
        state = laboratory.program.node.state
        before = state.latest()["stage.x_m"].instant
        await laboratory.until(lambda: state.latest()["stage.x_m"].instant != before)
        await laboratory.ask("step")
        await laboratory.until(lambda: any(line.startswith("acknowledged 0") for line in laboratory.said))
        await laboratory.ask("stop")
    again = RecordedRun(tmp_path / "runs" / started["run_id"])
    assert again.states == []
    assert again.frames[0].header.state == RecordedRun(tmp_path / "runs" / "source").frames[0].header.state


async def test_a_damaged_recording_is_replayed_with_its_losses_in_the_status_and_in_the_journal(
    tmp_path: Path,
) -> None:
    finish(record(tmp_path / "runs" / "source", 5, []))
    place = RecordedRun(tmp_path / "runs" / "source").frames[3].place
    with (tmp_path / "runs" / "source" / place.file).open("r+b") as file:
        file.seek(place.offsets[0])
        file.write(b"\x00\xff\x00\xff")
    journal = tmp_path / "runs" / "source" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"sequence":1,' not in line))
    async with Laboratory(write_settings(tmp_path), with_worker=True) as laboratory:
        again = await laboratory.recorded("replay", run="source", speed="max", record=True)
        told = (await laboratory.ask("status"))["run"]["replayed"]
    assert (told["total"], told["missing"], told["damaged"]) == (4, 1, 1)
    recorded = RecordedRun(again)
    assert [frame.header.xxh3 for frame in recorded.frames.values()] == [
        RecordedRun(tmp_path / "runs" / "source").frames[sequence].header.xxh3 for sequence in (0, 2, 4)
    ]
    events = {event.name: event.text for event in recorded.events}
    assert "lacks frame 1" in events["replay_gaps"]
    assert "frame 3" in events["replay_damaged"]


def test_what_cannot_be_replayed_is_refused_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    finish(record(tmp_path / "source", 5, []))
    done = eclips("replay", str(tmp_path / "source"), "--from", "2", "--to", "9")
    assert done.returncode == 2
    assert "frame 9 is outside the recording" in done.stderr and "holds frames 0 to 4" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
