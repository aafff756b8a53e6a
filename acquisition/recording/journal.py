"""`journal.jsonl`: one line per frame, state sample, event and result, each with a check sum of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import xxhash

from acquisition.errors import BadInput
from acquisition.recording import lock

MAX_LINE_BYTES = 2**20
_CHECK = b', "check": "'
_TAIL_LENGTH = len(_CHECK) + 16 + len(b'"}')


class Journal:
    """Appends lines for one writer at a time; what a full disk leaves of them is cut off again, so that only a kill
    can tear the end. Raises `BadInput` while another writer holds the file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        if not lock.hold(self._file):
            self._file.close()
            raise BadInput(f"{path.parent} is being written by another program: wait until that has ended")
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
        """Let others write. Harmless when closed."""
        if not self._file.closed:
            lock.release(self._file)
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


@dataclass(frozen=True, slots=True)
class JournalLine:
    """The bytes from `begin` to before `end`, newline included, and what they say; `tree` is None where damaged."""

    begin: int
    end: int
    tree: dict[str, Any] | None


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
    """All of it from byte `start`, in memory. Raises OSError."""
    lines: list[dict[str, Any]] = []
    whole_end, damaged = start, 0
    for line in walk_journal(path, start):
        whole_end = line.end
        if line.tree is None:
            damaged += 1
        else:
            lines.append(line.tree)
    return JournalScan(lines, whole_end, damaged)


def walk_journal(path: Path, start: int = 0) -> Iterator[JournalLine]:
    """Whole lines from byte `start`, one in memory at a time. A line that ends but does not hold is damaged; an end
    without newline is a torn tail, or a line that is being written. Raises OSError."""
    with path.open("rb") as file:
        begin = file.seek(start)
        for raw in _whole_lines(file):
            end = file.tell()
            yield JournalLine(begin, end, None if raw is None else decode_line(raw))
            begin = end


def read_lines(path: Path, begins: Iterable[int]) -> Iterator[dict[str, Any]]:
    """What the lines that begin at those bytes say. Raises OSError, and ValueError where there is no sound line."""
    with path.open("rb") as file:
        for begin in begins:
            file.seek(begin)
            tree = decode_line(file.readline(MAX_LINE_BYTES).removesuffix(b"\n"))
            if tree is None:
                raise ValueError(f"no sound line begins at byte {begin}")
            yield tree


def _whole_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines without their newlines; None for one that is longer than any that was written."""
    too_long = False
    while raw := file.readline(MAX_LINE_BYTES):
        if not raw.endswith(b"\n"):
            too_long = True
            continue
        yield None if too_long else raw[:-1]
        too_long = False
