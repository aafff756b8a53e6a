"""A run of any length opens: a few bytes a line of its journal stay in memory, the rest is read when asked for."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from acquisition.clock import SystemClock
from acquisition.errors import BadInput
from acquisition.recording import RecordedRun, Recorder
from acquisition.recording.journal import encode_line, scan_journal
from acquisition.replay import ReplaySource
from recordings import finish, frame, record, result

SHORT, LONG = 500, 3500


def long_run(folder: Path, frames: int) -> Path:
    """Its journal tells of so many frames and state samples; all frames lie where the first one does."""
    finish(record(folder, 1, []))
    lines = scan_journal(folder / "journal.jsonl").lines
    first = next(line for line in lines if line["kind"] == "frame")
    told = {"schema": 1, "kind": "state", "run_id": "run", "source": "test", "monotonic_ns": 0, "utc_ns": 0}
    sample = {**told, "channel": "stage.x_m", "value": 1.0, "valid": True, "reason": ""}
    with (folder / "journal.jsonl").open("ab") as journal:
        for number in range(1, frames):
            journal.write(encode_line({**first, "sequence": number}))
            journal.write(encode_line({**sample, "sequence": number}))
    return folder


def bytes_in_memory(run: Path) -> tuple[int, int]:
    """What a replay of `run` holds, and the most that it held while it opened."""
    tracemalloc.start()
    source = ReplaySource(run, SystemClock(), speed="max")
    held = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.total == len(source.recorded.states) + 1
    return held


def test_a_replay_holds_less_than_a_hundred_bytes_a_frame(tmp_path: Path) -> None:
    short = bytes_in_memory(long_run(tmp_path / "short", SHORT))
    long = bytes_in_memory(long_run(tmp_path / "long", LONG))
    for of_the_long, of_the_short in zip(long, short, strict=True):
        assert (of_the_long - of_the_short) / (LONG - SHORT) < 100


def test_what_comes_out_of_order_is_found_and_told_in_order(tmp_path: Path) -> None:
    recorder: Recorder = record(tmp_path / "run", 5, [3, 0, 4])
    run = RecordedRun(tmp_path / "run")
    assert list(run.heights) == [0, 3, 4] and run.missing_heights == [1, 2]
    recorder.write_result(result(1))
    run.refresh()
    assert list(run.heights) == [0, 1, 3, 4] and 2 not in run.heights
    assert [run.heights[number].header.sequence for number in run.heights] == [0, 1, 3, 4]
    with pytest.raises(KeyError):
        run.heights[2]
    finish(recorder)


def test_a_journal_that_is_changed_behind_a_reader_is_told(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 2, []))
    run = RecordedRun(tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[10:])
    with pytest.raises(BadInput, match="was changed since the run was opened"):
        run.read_frame(1)
    assert RecordedRun(tmp_path / "run").read_frame(1).header == frame(1).header
