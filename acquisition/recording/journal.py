"""`journal.jsonl`: one line per frame, state sample, event and result, each with a check sum of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import xxhash

from acquisition.errors import BadInput

try:
    import fcntl
except ImportError:  # Windows has no such lock: there, whoever repairs a run has to know that nobody records it
    fcntl = None  # type: ignore[assignment]

MAX_LINE_BYTES = 2**20
_CHECK = b', "check": "'
_TAIL_LENGTH = len(_CHECK) + 16 + len(b'"}')


class Journal:
    """Appends lines for one writer at a time; what a full disk leaves of them is cut off again, so that only a kill
    can tear the end. Raises `BadInput` while another writer holds the file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise BadInput(f"{path.parent} is being written by another program: wait until that has ended") from None
        except OSError:
            pass  # some network disks know no locks
        self._end = os.fstat(self._file.fileno()).st_size

    def append(self, lines: bytes) -> None:
        """Hand whole `lines` to the system, all or none. Raises OSError when the disk refuses."""
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self.cut(self._end)
            raise
        self._end += len(lines)

    def cut(self, end: int) -> None:
        """Make the journal end after byte `end`."""
        with suppress(OSError):
            self._file.truncate(end)

    def sync(self) -> None:
        """Make it durable."""
        os.fsync(self._file.fileno())

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class JournalScan:
    """What a journal holds: good lines, where the last whole line ends, and how many whole lines are damaged."""

    lines: list[dict[str, Any]]
    whole_bytes: int
    damaged: int


def encode_line(tree: Mapping[str, Any]) -> bytes:
    """One JSON line that ends with the xxh3 of what stands before it. Non-finite numbers are refused (ValueError)."""
    body = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    digest = xxhash.xxh3_64_hexdigest(body).encode()
    return body[:-1] + _CHECK + digest + b'"}\n'


def decode_line(line: bytes) -> dict[str, Any] | None:
    """The tree of a line without its newline, or None when the line is torn or damaged."""
    body, tail = line[:-_TAIL_LENGTH] + b"}", line[-_TAIL_LENGTH:]
    if tail != _CHECK + xxhash.xxh3_64_hexdigest(body).encode() + b'"}':
        return None
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def scan_journal(path: Path, start: int = 0) -> JournalScan:
    """Read from byte `start`. A line that ends but does not hold is damaged; an end without newline is a torn tail,
    or a line that is being written. Raises OSError."""
    lines: list[dict[str, Any]] = []
    whole_end, damaged = start, 0
    with path.open("rb") as file:
        file.seek(start)
        for raw in _whole_lines(file):
            whole_end = file.tell()
            tree = None if raw is None else decode_line(raw)
            if tree is None:
                damaged += 1
            else:
                lines.append(tree)
    return JournalScan(lines, whole_end, damaged)


def _whole_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines without their newlines; None for one that is longer than any that was written."""
    too_long = False
    while raw := file.readline(MAX_LINE_BYTES):
        if not raw.endswith(b"\n"):
            too_long = True
            continue
        yield None if too_long else raw[:-1]
        too_long = False
