"""The page chain of a classic little-endian TIFF as `TiffSeries` writes it: walked with care, cut where it is torn."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from acquisition.errors import BadInput

_HEADER = b"II*\0"
_MAX_TAGS = 64
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 12: 8}
_STRIP_OFFSETS, _STRIP_BYTE_COUNTS = 273, 279


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page: where its pixels begin, where it ends, and where the pointer to the next one lies (bytes)."""

    pixels: int
    end: int
    pointer: int


def walk_pages(path: Path) -> Iterator[Page]:
    """Whole pages from the first on, until the chain ends or does not hold: whatever the bytes are, this ends. Each
    page must lie after the one before it, as pages do in a file that only grows. Raises OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(4) != _HEADER:
            return
        pointer = file.read(4)
        after = 8
        while len(pointer) == 4 and (directory := struct.unpack("<I", pointer)[0]) >= after:
            page = _page(file, directory, size)
            if page is None:
                return
            yield page
            after = page.pointer + 4
            file.seek(page.pointer)
            pointer = file.read(4)


def cut_after_page(path: Path, pages: int) -> int:
    """Make `path` end after its first `pages` pages: a torn tail is cut, the last next-page pointer closed.

    Returns the number of bytes cut. Raises `BadInput`, and leaves the file as it is, when the chain has fewer pages.
    """
    kept = [page for _, page in zip(range(pages), walk_pages(path), strict=False)]
    if len(kept) < pages:
        raise BadInput(f"the page chain of {path.name} breaks after page {len(kept) - 1}: nothing was cut")
    end = max((page.end for page in kept), default=8)
    pointer = kept[-1].pointer if kept else 4
    with path.open("r+b") as file:
        file.seek(pointer)
        if file.read(4) != bytes(4):
            file.seek(pointer)
            file.write(bytes(4))
        cut = file.seek(0, os.SEEK_END) - end
        file.truncate(end)
        file.flush()
        os.fsync(file.fileno())
    return cut


def _page(file: BinaryIO, directory: int, size: int) -> Page | None:
    file.seek(directory)
    count = file.read(2)
    tags = struct.unpack("<H", count)[0] if len(count) == 2 else 0
    entries = file.read(12 * tags) if tags <= _MAX_TAGS else b""
    pointer = directory + 2 + 12 * tags
    if not entries or pointer + 4 > size:
        return None
    end, strips = pointer + 4, {}
    for code, kind, length, value in struct.iter_unpack("<HHII", entries):
        value_bytes = _SIZES.get(kind, 0) * length
        if value_bytes > 4:
            end = max(end, value + value_bytes)
        if code in (_STRIP_OFFSETS, _STRIP_BYTE_COUNTS):
            strips[code] = (length, value & 0xFFFF if kind == 3 else value)
    (one, pixels), (also_one, byte_count) = strips.get(_STRIP_OFFSETS, (0, 0)), strips.get(_STRIP_BYTE_COUNTS, (0, 0))
    end = max(end, pixels + byte_count)
    return Page(pixels, end, pointer) if one == also_one == 1 and end <= size else None
