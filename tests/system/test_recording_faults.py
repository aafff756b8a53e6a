"""Nothing lost: the recorder is killed, its disk fills, fails, dawdles, and the wall clock jumps."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile

from acquisition.clock import SystemClock
from acquisition.errors import RecordingFailed, RequestRefused
from acquisition.frames import RunFinished
from acquisition.program import AcquisitionProgram
from acquisition.recording import RecordedRun, Recorder, find_runs, repair, verify
from acquisition.recording.heights import put_heights_in_order
from acquisition.replay import ReplaySource
from killable import RecorderHost
from programs import free_ports
from recordings import SHAPE, finish, frame, new_recorder, record, result, truth_m
from service import wiring
from service.settings import load_settings

MEGABYTE = 2**20
QUICK_S = 10.0
"""Generous: what "reopening is quick" must hold even beside other programs; reopening in time on the processor."""


def assert_frames_are_whole(run: Path, last: int) -> None:
    recorded = RecordedRun(run)
    for sequence in range(last + 1):
        np.testing.assert_array_equal(recorded.read_frame(sequence).images, frame(sequence).images)
        np.testing.assert_array_equal(recorded.read_truth(sequence), truth_m(sequence))


# kill -9


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


# The disk is full


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
        end(recorder)
    fill(disk)
    with pytest.raises(RecordingFailed, match="No space left"):
        end(recorder) if stage == "end of the frames" else recorder.write_result(result(1))
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
    end(recorder)
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


def end(recorder: Recorder) -> None:
    """Of its frames; heights may still come."""
    n = recorder.frames
    recorder.finish_frames(RunFinished("run", "test", 0, 0, 0, n, n - 1, "asked", recorder.digest))


class Microscope:
    """The acquisition program with a simulated lab, recording 64 px frames to `runs`."""

    def __init__(self, runs: Path, low_space_bytes: int) -> None:
        data, state, control = free_ports(3)
        self.said: list[str] = []
        settings = load_settings(
            None,
            {
                "runs_folder": str(runs),
                "scan": {"width_px": 64, "height_px": 64},
                "stream": {"data_port": data, "state_port": state, "control_port": control},
                "recording": {"low_space_bytes": low_space_bytes},
            },
        )
        self.program: AcquisitionProgram = wiring.acquisition_program(settings, self.said.append)

    async def __aenter__(self) -> Microscope:
        await self.program.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.program.node.recordings.hurry()
        await self.program.__aexit__()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def acknowledged(self, frames: int) -> None:
        await self.until(lambda: sum(line.startswith("acknowledged") for line in self.said) >= frames)


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


# The disk is slow, or fails


class DurableFiles:
    """What would be on the disk if the power went off now: of each file, what it held when a sync of it began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._durable: dict[int, bytes] = {}
        self._dawdle = lambda: None
        for name in ("fdatasync", "fsync"):
            if hasattr(os, name):
                monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def slowly(descriptor: int) -> None:
            status = os.fstat(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}")
            content = path.read_bytes() if path.is_file() else b""
            if content:
                self._dawdle()
            sync(descriptor)
            self._durable[status.st_ino] = content

        return slowly

    def dawdle(self, wait: Callable[[], object]) -> None:
        self._dawdle = wait  # type: ignore[assignment]

    def after_power_cut(self, run: Path, copy: Path) -> Path:
        copy.mkdir()
        for path in run.iterdir():
            if (content := self._durable.get(path.stat().st_ino)) is not None:
                (copy / path.name).write_bytes(content)
        return copy


@pytest.mark.skipif(sys.platform != "linux", reason="open files are read through /proc")
def test_what_is_acknowledged_is_on_the_disk_even_if_the_power_goes_at_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = DurableFiles(monkeypatch)
    disk.dawdle(lambda: time.sleep(0.01))
    acknowledged: list[int] = []
    copies = tmp_path / "copies"
    copies.mkdir()

    def acknowledge(sequence: int) -> None:
        disk.after_power_cut(tmp_path / "run", copies / str(sequence))
        acknowledged.append(sequence)

    recorder = new_recorder(tmp_path / "run", acknowledge)
    recorder._frames._max_file_bytes = 40_000
    for sequence in range(12):
        recorder.write_frame(frame(sequence), truth_m(sequence))
        time.sleep(0.05)
    finish(recorder)
    assert acknowledged[-1] == 11 and len(acknowledged) > 1
    for sequence in acknowledged:
        assert_frames_are_whole(copies / str(sequence), sequence)


def test_while_the_disk_hangs_nothing_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = DurableFiles(monkeypatch)
    acknowledged: list[int] = []
    recorder = new_recorder(tmp_path / "run", acknowledged.append)
    hangs, goes_on, told = threading.Event(), threading.Event(), threading.Event()
    disk.dawdle(lambda: (hangs.set(), goes_on.wait(60)))
    for sequence in range(3):
        recorder.write_frame(frame(sequence))
    assert hangs.wait(60)
    for sequence in range(3, 6):
        recorder.write_frame(frame(sequence))
    assert acknowledged == []
    recorder._acknowledge = lambda sequence: (acknowledged.append(sequence), told.set())
    goes_on.set()
    assert told.wait(60)
    finish(recorder)
    assert acknowledged == sorted(set(acknowledged)) and acknowledged[-1] == 5


def test_after_a_failed_sync_nothing_is_acknowledged_though_the_system_reports_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged: list[int] = []
    recorder = new_recorder(tmp_path / "run", acknowledged.append)
    failed = threading.Event()

    def fail_once(descriptor: int) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync" if hasattr(os, "fdatasync") else "fsync", fail_once)
    recorder.write_frame(frame(0))
    assert failed.wait(60)
    recorder._syncer.join(60)
    with pytest.raises(RecordingFailed, match="Input/output error"):
        recorder.write_frame(frame(1))
    with pytest.raises(RecordingFailed, match="is incomplete, not complete"):
        recorder.close("complete")
    assert acknowledged == []
    assert RecordedRun(tmp_path / "run").manifest.status == "incomplete"


def test_a_listener_that_fails_does_not_stop_the_recording(tmp_path: Path) -> None:
    heard = threading.Event()

    def listener(_: int) -> None:
        heard.set()
        raise BrokenPipeError("the terminal has gone")

    recorder = new_recorder(tmp_path / "run", listener)
    recorder.write_frame(frame(0))
    assert heard.wait(60)
    recorder.write_frame(frame(1))
    finish(recorder)
    assert_frames(tmp_path / "run", 2)


def assert_frames(run: Path, count: int) -> None:
    assert [one.header.sequence for one in RecordedRun(run).frame_iterator()] == list(range(count))


# The clock is stepped


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
        assert 0 <= status["frame_age_s"] < QUICK_S

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
