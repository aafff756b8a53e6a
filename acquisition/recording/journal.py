"""`journal.jsonl`: one line per frame, state sample, event and result, each with a check sum of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

_CHECK = b', "check": "'
_TAIL_LENGTH = len(_CHECK) + 16 + len(b'"}')


@dataclass(frozen=True, slots=True)
class JournalScan:
    """What a journal holds: good lines, where the good part ends, and how many lines inside it are damaged."""

    lines: list[dict[str, Any]]
    good_bytes: int
    damaged: int


def encode_line(tree: Mapping[str, Any]) -> bytes:
    """One JSON line that ends with the xxh3 of what stands before it. Non-finite numbers are refused (ValueError)."""
    body = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    digest = xxhash.xxh3_64_hexdigest(body).encode()
    return body[:-1] + _CHECK + digest + b'"}\n'


def decode_line(line: bytes) -> dict[str, Any] | None:
    """The tree of a line without its newline, or None when the line is torn or damaged."""
    body, tail = line[:-_TAIL_LENGTH] + b"}", line[-_TAIL_LENGTH:]
    if not tail.startswith(_CHECK) or tail[len(_CHECK) : -2] != xxhash.xxh3_64_hexdigest(body).encode():
        return None
    try:
        tree = json.loads(body)
    except ValueError:
        return None
    return tree if isinstance(tree, dict) else None


def scan_journal(path: Path, start: int = 0) -> JournalScan:
    """Read from byte `start`. A damaged line with good lines after it is counted; a damaged end is a torn tail."""
    lines: list[dict[str, Any]] = []
    good_end = position = start
    damaged = damaged_since_good = 0
    with path.open("rb") as file:
        file.seek(start)
        for raw in file:
            position += len(raw)
            tree = decode_line(raw[:-1]) if raw.endswith(b"\n") else None
            if tree is None:
                damaged_since_good += 1
                continue
            lines.append(tree)
            damaged += damaged_since_good
            damaged_since_good = 0
            good_end = position
    return JournalScan(lines, good_end, damaged)
