"""The adaptation benchmark's watch over a recording: a frame counts once its whole line stands in the journal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from programs import wait_until
from service.benchmarks import adaptation_live

LINE = b'{"schema":1,"kind":"frame","sequence":%d}\n'


def test_whole_lines_of_frames_alone_are_counted(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b'{"schema":1,"kind":"run_started"}\n' + LINE % 0 + (LINE % 1)[:20])
    with adaptation_live._written_s(journal) as written_s, journal.open("ab", buffering=0) as rest:
        wait_until(lambda: len(written_s) == 1, lambda: f"{len(written_s)} frames are seen")
        rest.write((LINE % 1)[20:] + b'{"schema":1,"kind":"state"}\n' + LINE % 2)
        wait_until(lambda: len(written_s) == 3, lambda: f"{len(written_s)} frames are seen")
    assert written_s == sorted(written_s)


def test_even_intervals_are_not_stretched_and_late_frames_are() -> None:
    even_s = np.full(200, 0.1)
    assert adaptation_live._stretched(even_s) == 1.0
    assert adaptation_live._stretched(np.where(np.arange(200) % 50 == 0, 0.3, even_s)) == pytest.approx(3.0)
