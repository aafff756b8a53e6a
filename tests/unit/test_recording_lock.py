"""A run has one writer at a time, on POSIX systems and on Windows; readers are never kept out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from acquisition.errors import BadInput, RecordingFailed
from acquisition.recording import RecordedRun, repair, verify
from acquisition.recording import lock as lock_module
from acquisition.recording.journal import Journal
from recordings import finish, frame, new_recorder, record


class Msvcrt:
    """Windows' locks on bytes of a file (Microsoft's page of `_locking`): refused while another descriptor holds one,
    unlocking what is not locked fails."""

    LK_UNLCK, LK_NBLCK = 0, 2

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert count == 1
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        byte = os.fstat(descriptor).st_ino, position
        assert os.fstat(descriptor).st_size <= position, "what is in the file could not be read while it is locked"
        if mode == self.LK_UNLCK:
            if self.held.get(byte) != descriptor:
                raise OSError(errno.EACCES, "not locked")
            del self.held[byte]
        elif byte in self.held:
            raise OSError(errno.EACCES, "Permission denied")
        else:
            self.held[byte] = descriptor


@pytest.fixture(
    params=[
        pytest.param("posix", marks=pytest.mark.skipif(lock_module.fcntl is None, reason="a POSIX lock")),
        "windows",
    ]
)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "windows" and lock_module.msvcrt is None:
        monkeypatch.setattr(lock_module, "fcntl", None)
        monkeypatch.setattr(lock_module, "msvcrt", Msvcrt())
    yield request.param


def test_two_recorders_on_one_folder_are_refused_and_the_first_goes_on(system: str, tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", 2, [])
    with pytest.raises(RecordingFailed, match="cannot be made"):
        new_recorder(tmp_path / "run")
    with pytest.raises(BadInput, match="is being written by another program: wait until that has ended"):
        Journal(tmp_path / "run" / "journal.jsonl")
    recorder.write_frame(frame(2))
    finish(recorder)
    assert RecordedRun(tmp_path / "run").sequences == [0, 1, 2]


def test_a_run_that_is_being_recorded_is_read_but_not_repaired(system: str, tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", 2, [0])
    assert RecordedRun(tmp_path / "run").read_frame(1).header == frame(1).header
    with pytest.raises(BadInput, match="is being written"):
        repair(tmp_path / "run")
    finish(recorder)
    assert repair(tmp_path / "run").frames == 2
    assert any("have no height" in finding for finding in verify(tmp_path / "run").findings)


def test_a_lock_ends_with_its_writer_and_not_with_those_who_were_refused(system: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    for _ in range(2):
        with pytest.raises(BadInput):
            Journal(path)
    first.append(b"a\n")
    first.close()
    first.close()
    with Journal(path) as second:
        second.append(b"b\n")
    assert path.read_bytes() == b"a\nb\n"


def test_a_disk_without_locks_keeps_nobody_from_writing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fake = Msvcrt()
    fake.locking = unsupported  # type: ignore[method-assign]
    monkeypatch.setattr(lock_module, "fcntl", None)
    monkeypatch.setattr(lock_module, "msvcrt", fake)
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(b"a\n")
