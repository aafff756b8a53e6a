"""Nothing lost: the disk fills before, during and after a run."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from acquisition.errors import RecordingFailed, RequestRefused
from acquisition.recording import RecordedRun, repair, verify
from acquisition.recording.heights import put_heights_in_order
from recording_microscope import MEGABYTE, Microscope
from recordings import assert_frames_are_whole, end_of_frames, finish, frame, new_recorder, record, result, truth_m


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes; unmounted at the end of the test."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "eclips-test", str(folder)]
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("a small disk can only be mounted by root on Linux")
        if (done := subprocess.run(command, capture_output=True, text=True)).returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    free = shutil.disk_usage(disk).free - leave
    with (disk / "filler").open("ab", buffering=0) as file, pytest.raises(OSError) if not leave else file:
        while free > 0 or not leave:
            free -= file.write(bytes(min(65536, free) if leave else 4096))


@pytest.mark.soak
def test_a_full_disk_leaves_an_incomplete_run_with_every_acknowledged_frame(
    small_disk: Callable[[int], Path], rounds: int
) -> None:
    disk = small_disk(1024 * 1024)
    for round_number in range(rounds):
        (disk / "filler").write_bytes(bytes(random.Random(round_number).randrange(0, 800_000)))
        run, acknowledged = disk / "run", [-1]
        recorder = new_recorder(run, acknowledged.append)
        with pytest.raises(RecordingFailed, match="No space left"):
            for sequence in range(10_000):
                recorder.write_frame(frame(sequence), truth_m(sequence))
                recorder.write_result(result(sequence))
        with pytest.raises(RecordingFailed, match="No space left"):
            recorder.write_frame(frame(0))
        recorder.close("incomplete", "the disk is full")
        recorded = RecordedRun(run)
        assert (recorded.manifest.status, recorded.manifest.reason) == ("incomplete", "the disk is full")
        assert recorded.manifest.frames == len(recorded.frames) > acknowledged[-1]
        assert_frames_are_whole(run, max(recorded.frames, default=-1))
        torn = [finding for finding in verify(run).findings if "torn" in finding or "unknown to the journal" in finding]
        assert torn == []
        shutil.rmtree(run)


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()


def test_on_a_full_disk_no_run_begins_and_nothing_of_it_is_left(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(MEGABYTE)
    fill(disk)
    with pytest.raises(RecordingFailed, match="No space left"):
        new_recorder(disk / "run")
    assert not (disk / "run").exists()
    make_room(disk)
    finish(record(disk / "run", 1, [0]))
    assert verify(disk / "run").ok


@pytest.mark.parametrize("stage", ["end of the frames", "heights"])
def test_a_disk_that_fills_after_the_last_frame_costs_no_frame(small_disk: Callable[[int], Path], stage: str) -> None:
    disk = small_disk(MEGABYTE)
    run = disk / "run"
    recorder = record(run, 3, [0])
    if stage == "heights":
        end_of_frames(recorder)
    fill(disk)
    with pytest.raises(RecordingFailed, match="No space left"):
        end_of_frames(recorder) if stage == "end of the frames" else recorder.write_result(result(1))
    with suppress(RecordingFailed):
        recorder.close("incomplete", "the disk is full")
    assert RecordedRun(run).manifest.status == "incomplete"
    assert_frames_are_whole(run, 2)
    make_room(disk)
    assert repair(run).findings == ("2 frames have no height (frames 1 to 2); make them with `eclips reprocess`",)
    assert_frames_are_whole(run, 2)


@pytest.mark.parametrize("work", [put_heights_in_order, repair])
def test_work_on_a_run_that_a_full_disk_stops_is_done_again_once_there_is_room(
    small_disk: Callable[[int], Path], work: Callable[[Path], object]
) -> None:
    disk = small_disk(MEGABYTE)
    run = disk / "run"
    recorder = record(run, 3, [2, 0, 1])
    end_of_frames(recorder)
    recorder.close("recording")
    fill(disk)
    for _ in range(2):
        with pytest.raises((RecordingFailed, OSError), match="No space left"):
            work(run)
        recorded = RecordedRun(run)
        assert [recorded.read_height(sequence).max() for sequence in range(3)] == [
            result(n).height_m.max() for n in range(3)
        ]
    make_room(disk)
    work(run)
    assert verify(run).ok
    assert_frames_are_whole(run, 2)
    assert not list(run.glob("*.new"))


async def test_a_disk_that_fills_ends_the_run_with_the_lab_at_rest_and_refuses_the_next(
    small_disk: Callable[[int], Path],
) -> None:
    disk = small_disk(40 * MEGABYTE)
    async with Microscope(disk / "runs", MEGABYTE) as microscope:
        started = await microscope.program.carry_out("start", {})
        await microscope.acknowledged(2)
        heater = microscope.program.node.lab.heater
        assert heater is not None
        await heater.set_current(0.5)
        await heater.arm()
        assert (await heater.read())["emission"].value == 1
        fill(disk)
        machine = microscope.program.node.machine
        await microscope.until(lambda: machine.state == "fault")
        assert "No space left" in machine.fault
        run = RecordedRun(disk / "runs" / started["run_id"])
        assert run.manifest.status == "incomplete"
        assert "No space left" in run.manifest.reason
        last = max(int(line.split()[1]) for line in microscope.said if line.startswith("acknowledged"))
        assert run.sequences == list(range(len(run.frames))) and len(run.frames) > last
        assert len(list(run.frame_iterator())) == len(run.frames)
        assert any("incomplete" in line for line in microscope.said)
        assert (await heater.read())["emission"].value == 0
        await microscope.program.carry_out("reset", {})
        with pytest.raises(RequestRefused, match=r"need \d+ bytes .* and \d+ bytes .* are free: make room"):
            await microscope.program.carry_out("start", {})
        assert machine.state == "idle"


async def test_a_nearly_full_disk_ends_the_run_in_order_and_says_so(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(40 * MEGABYTE)
    async with Microscope(disk / "runs", 10 * MEGABYTE) as microscope:
        started = await microscope.program.carry_out("start", {})
        await microscope.acknowledged(2)
        fill(disk, leave=8 * MEGABYTE)
        node = microscope.program.node
        await microscope.until(lambda: node.machine.state == "idle")
        run = RecordedRun(disk / "runs" / started["run_id"])
        assert run.finished is not None
        assert run.finished.frames == len(run.frames)
        assert f"below the limit of {10 * MEGABYTE}" in run.finished.reason
        told = next(event for event in run.events if event.name == "low_space")
        assert told.severity == "alarm" and told.details["free_bytes"] < told.details["limit_bytes"]
        assert node.machine.fault == ""
