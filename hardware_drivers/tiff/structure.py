"""Whether a TIFF is whole, by its own structure: every page, tag and strip that it promises lies inside the file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput

STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS = 273, 279, 324, 325
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
WHOLE_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}


def check_whole(path: Path) -> int:
    """How many pages `path` has. Raises `BadInput` for what is no TIFF, is cut off, or goes round in a circle;
    `OSError` as the file system gives it. Only directories are read, no pixels, so that a file on a slow network
    drive is judged by a few kilobytes. See TIFF 6.0 (Adobe 1992), section 2, and BigTIFF."""
    with path.open("rb") as file:
        return _Walk(path, file, os.fstat(file.fileno()).st_size).pages()


@dataclass(frozen=True, slots=True)
class _Walk:
    path: Path
    file: BinaryIO
    size: int

    def pages(self) -> int:
        head = self._bytes(0, 8, "its head")
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        version = int.from_bytes(head[2:4], order)
        if head[:2] not in (b"II", b"MM") or version not in (42, 43):
            raise BadInput(f"{self.path} cannot be read as TIFF: it does not begin like one")
        layout = _Layout(order, big=version == 43)
        at = layout.number(self._bytes(8, 8, "its head") if layout.big else head[4:8])
        seen = set[int]()
        while at:
            if at in seen:
                raise BadInput(f"{self.path}: its pages go round in a circle after {len(seen)}: it is damaged")
            seen.add(at)
            at = self._page(at, layout, f"page {len(seen)}")
        if not seen:
            raise BadInput(f"{self.path} has no page yet: is it still being written?")
        return len(seen)

    def _page(self, at: int, layout: _Layout, what: str) -> int:
        """Check the page whose directory stands at byte `at`; returns where the next one stands."""
        tags = layout.number(self._bytes(at, layout.count_bytes, what))
        entries_at = at + layout.count_bytes
        directory = self._bytes(entries_at, tags * layout.entry_bytes + layout.offset_bytes, what)
        chunks: dict[int, NDArray[np.uint64]] = {}
        for start in range(0, tags * layout.entry_bytes, layout.entry_bytes):
            entry = directory[start : start + layout.entry_bytes]
            code, kind = layout.number(entry[:2]), layout.number(entry[2:4])
            count = layout.number(entry[4 : 4 + layout.offset_bytes])
            length = count * TYPE_BYTES.get(kind, 0)
            value = entry[4 + layout.offset_bytes :]
            value_at = layout.number(value) if length > len(value) else 0
            self._check(value_at, length if value_at else 0, f"tag {code} of {what}")
            if code in (STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS) and kind in WHOLE_NUMBERS:
                content = self._bytes(value_at, length, what) if value_at else value[:length]
                chunks[code] = np.frombuffer(content, layout.numpy_order + WHOLE_NUMBERS[kind]).astype(np.uint64)
        for offsets, counts in ((STRIP_OFFSETS, STRIP_COUNTS), (TILE_OFFSETS, TILE_COUNTS)):
            if offsets in chunks:
                self._check_chunks(chunks[offsets], chunks.get(counts), what)
        return layout.number(directory[-layout.offset_bytes :])

    def _check_chunks(self, offsets: NDArray[np.uint64], counts: NDArray[np.uint64] | None, what: str) -> None:
        """Where a byte count is missing or 0 although the file may lawfully leave it so, the offset must still be."""
        for number, offset in enumerate(offsets.tolist()):
            count = int(counts[number]) if counts is not None and number < len(counts) else 0
            if offset == 0 and count > 0:
                raise BadInput(f"{self.path} has no pixels of {what} yet: is it still being written?")
            self._check(offset, count, f"the pixels of {what}")

    def _check(self, at: int, length: int, what: str) -> None:
        if at + length > self.size:
            raise BadInput(
                f"{self.path} cannot be read as TIFF: {what} would end at byte {at + length}, the file at {self.size}: "
                "it is still being written, cut off or damaged"
            )

    def _bytes(self, at: int, length: int, what: str) -> bytes:
        self._check(at, length, what)
        self.file.seek(at)
        return self.file.read(length)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order and widths: classic TIFF counts with 2 and points with 4 bytes, BigTIFF with 8."""

    order: Literal["little", "big"]
    big: bool

    @property
    def numpy_order(self) -> str:
        return "<" if self.order == "little" else ">"

    @property
    def count_bytes(self) -> int:
        return 8 if self.big else 2

    @property
    def offset_bytes(self) -> int:
        return 8 if self.big else 4

    @property
    def entry_bytes(self) -> int:
        return 20 if self.big else 12

    def number(self, encoded: bytes) -> int:
        return int.from_bytes(encoded, self.order)
