"""Nothing lost, and nothing acknowledged too early: the disk dawdles, hangs or fails."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from acquisition.errors import RecordingFailed
from acquisition.recording import RecordedRun
from recordings import assert_frames_are_whole, finish, frame, new_recorder, truth_m


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
