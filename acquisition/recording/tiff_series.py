"""Image pages in classic TIFF files, each page flushed as it is written, the next file begun before 2 GiB.

Classic TIFF because ImageJ refuses BigTIFF; page by page because such a file survives being cut anywhere.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from acquisition.errors import BadInput

MAX_FILE_BYTES = 2**31 - 2**24
MAX_TAG_BYTES = 1024
CENTIMETRES_PER_METRE = 100.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where pages lie: `offsets` are the byte positions of their pixels in `file`, `page` the first one's number."""

    file: str
    page: int
    offsets: tuple[int, ...]


class TiffSeries:
    """Appends pages to `stem-0000.tif`, `stem-0001.tif`, ... in `folder`. `suffix` is added while being replaced."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        pixel_size_m: float,
        *,
        value_unit: str | None = None,
        suffix: str = "",
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self._folder = folder
        self._stem = stem
        self._suffix = suffix
        self._pixels_per_cm = 1.0 / (pixel_size_m * CENTIMETRES_PER_METRE)
        self._description = None if value_unit is None else f"values in {value_unit}; pixel size {pixel_size_m:g} m"
        self._max_file_bytes = max_file_bytes
        self._writer: tifffile.TiffWriter | None = None
        self._page = 0
        self.names: list[str] = []

    def append(self, pages: NDArray[Any]) -> Place:
        """Write (N, H, W) pages and flush them to the system. Raises OSError when the disk refuses."""
        needed = pages.nbytes + len(pages) * MAX_TAG_BYTES
        if self._writer is not None and self._writer.filehandle.tell() + needed > self._max_file_bytes:
            self.close()
        if self._writer is None:
            self._open_next()
        assert self._writer is not None
        place = Place(self.names[-1], self._page, tuple(self._append_page(self._writer, page) for page in pages))
        self._writer.filehandle.flush()
        self._page += len(pages)
        return place

    def fileno(self) -> int | None:
        """The descriptor to make durable, or None before the first page."""
        return None if self._writer is None else self._writer.filehandle.fileno()

    def close(self) -> None:
        """Make the present file durable and close it."""
        if self._writer is not None:
            os.fsync(self._writer.filehandle.fileno())
            self._writer.close()
            self._writer = None

    def _open_next(self) -> None:
        name = f"{self._stem}-{len(self.names):04d}.tif"
        self._writer = tifffile.TiffWriter(self._folder / (name + self._suffix), bigtiff=False, byteorder="<")
        self.names.append(name)
        self._page = 0

    def _append_page(self, writer: tifffile.TiffWriter, image: NDArray[Any]) -> int:
        written = writer.write(
            image,
            photometric="minisblack",
            metadata=None,
            description=self._description,
            software="eclips-live",
            resolution=(self._pixels_per_cm, self._pixels_per_cm),
            resolutionunit="CENTIMETER",
            contiguous=False,
            returnoffset=True,
        )
        assert written is not None
        return int(written[0])


def read_pages(folder: Path, place: Place, shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """The pages at `place` as (N, H, W). Raises `BadInput` when the file is too short."""
    page_shape = tuple(shape[-2:])
    little_endian = np.dtype(dtype).newbyteorder("<")
    count = page_shape[0] * page_shape[1]
    images = np.empty((len(place.offsets), *page_shape), dtype)
    with (folder / place.file).open("rb") as file:
        for image, offset in zip(images, place.offsets, strict=True):
            file.seek(offset)
            pixels = np.fromfile(file, little_endian, count)
            if pixels.size != count:
                raise BadInput(f"{folder / place.file} ends inside page {place.page}; try `eclips repair`")
            image[...] = pixels.reshape(page_shape)
    return images


def cut_after_page(path: Path, pages: int, end_of_data: int) -> None:
    """Make `path` end after its first `pages` pages, whose pixels end at byte `end_of_data`: a torn tail is cut and
    the last page's next-page pointer closed. The file is in classic little-endian form, as `TiffSeries` writes it."""
    with path.open("r+b") as file:
        pointer, end = 4, end_of_data
        for _ in range(pages):
            file.seek(pointer)
            (directory,) = struct.unpack("<I", file.read(4))
            file.seek(directory)
            (tags,) = struct.unpack("<H", file.read(2))
            pointer = directory + 2 + 12 * tags
            end = max(end, pointer + 4)
        file.seek(pointer)
        file.write(struct.pack("<I", 0))
        file.truncate(end)
