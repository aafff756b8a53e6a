"""Room on the disk: what a run needs before it starts, and the little it keeps aside for saying how it ended."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from acquisition.errors import RequestRefused

LOW_SPACE_BYTES = 500 * 1024 * 1024
RESERVE = "reserve.new"
RESERVE_BYTES = 64 * 1024


def check_disk_space(
    folder: Path,
    shape: tuple[int, int, int],
    frames: int | None,
    spare_bytes: int = LOW_SPACE_BYTES,
    *,
    with_truth: bool = False,
) -> None:
    """Raise `RequestRefused` unless `folder` has room for `frames` of `shape` (one if unknown), their truth if asked
    for, their heights twice (they are put in order beside the old ones), and `spare_bytes` beyond."""
    segments, height, width = shape
    needed = spare_bytes + (frames or 1) * height * width * (2 * segments + 2 * 4 + 4 * with_truth)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RequestRefused(
            f"{frames or 1} frames and their heights need {needed} bytes ({needed / 1e9:.1f} GB, of which "
            f"{spare_bytes} stay free) in {folder}, and {free} bytes ({free / 1e9:.1f} GB) are free: make room, ask "
            "for fewer frames, or set another runs folder"
        )


class Reserve:
    """A few blocks of a run's disk, given back when the rest is full, so that its manifest can still be written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESERVE
        # Random, because some disks compress zeros to nothing.
        self._path.write_bytes(os.urandom(RESERVE_BYTES))

    def give_back(self) -> None:
        """Harmless when given back already."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
