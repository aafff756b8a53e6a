"""Image pages in classic TIFF files, each page flushed as it is written, the next file begun before 2 GiB.

Classic TIFF because ImageJ refuses BigTIFF; page by page because such a file survives being cut anywhere.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from acquisition.errors import BadInput
from acquisition.recording.manifest import sync_folder
from acquisition.recording.tiff_page import FILE_HEADER, FIRST_POINTER, encode_head

MAX_FILE_BYTES = 2**31 - 2**24
MAX_TAG_BYTES = 1024
CENTIMETRES_PER_METRE = 100.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where pages lie: `offsets` are the byte positions of their pixels in `file`, `page` the first one's number."""

    file: Annotated[str, Field(pattern=r"^[a-z]{1,20}-[0-9]{4,8}\.tif$")]
    page: Annotated[int, Field(ge=0, lt=2**31)]
    offsets: Annotated[tuple[Annotated[int, Field(ge=8, lt=2**32)], ...], Field(min_length=1)]


PLACE = TypeAdapter(Place)


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
        self._file: io.FileIO | None = None
        self._end = self._pointer = self._page = 0
        self.names: list[str] = []

    def append(self, pages: NDArray[Any]) -> Place:
        """Write (N, H, W) pages and flush them to the system. Raises OSError when the disk refuses."""
        needed = pages.nbytes + len(pages) * MAX_TAG_BYTES
        if self._file is not None and self._end + needed > self._max_file_bytes:
            self.close()
        if self._file is None:
            self._open_next()
        assert self._file is not None
        pages = np.ascontiguousarray(pages, pages.dtype.newbyteorder("<"))
        begin, last, offsets = self._end, len(pages) - 1, []
        for number, image in enumerate(pages):
            head = encode_head(self._end, image, self._pixels_per_cm, self._description, followed=number < last)
            _write(self._file, head.encoded)
            _write(self._file, image.reshape(-1).view(np.uint8).data)
            self._end = head.end
            offsets.append(head.pixels)
        # Only now, so that the chain never leads to pages that are not there.
        self._file.seek(self._pointer)
        _write(self._file, struct.pack("<I", begin))
        self._file.seek(self._end)
        self._pointer = head.pointer
        place = Place(self.names[-1], self._page, tuple(offsets))
        self._page += len(pages)
        return place

    def fileno(self) -> int | None:
        """The descriptor to make durable, or None before the first page."""
        return None if self._file is None else self._file.fileno()

    def close(self) -> None:
        """Make the present file durable and close it."""
        file, self._file = self._file, None
        if file is not None:
            try:
                os.fsync(file.fileno())
            finally:
                file.close()

    def _open_next(self) -> None:
        name = f"{self._stem}-{len(self.names):04d}.tif"
        self._file = io.FileIO(str(self._folder / (name + self._suffix)), "w")
        _write(self._file, FILE_HEADER)
        self._end, self._pointer, self._page = len(FILE_HEADER), FIRST_POINTER, 0
        self.names.append(name)
        sync_folder(self._folder)


def _write(file: io.FileIO, data: bytes | memoryview) -> None:
    """All of it: a disk that is nearly full takes a part and says so only at the next write."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def read_pages(folder: Path, place: Place, shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """The pages at `place` as (N, H, W). Never asks for more memory than the file has bytes.

    Raises `BadInput` when the file is missing, too short or unreadable, or when pages overlap.
    """
    page_shape = tuple(shape[-2:])
    little_endian = np.dtype(dtype).newbyteorder("<")
    page_bytes = page_shape[0] * page_shape[1] * little_endian.itemsize
    starts, ends = place.offsets, (0, *(offset + page_bytes for offset in place.offsets))
    if any(start < end for start, end in zip(starts, ends, strict=False)):
        raise BadInput(f"pages of {folder / place.file} would overlap at bytes {starts}: their place is damaged")
    try:
        with (folder / place.file).open("rb") as file:
            if os.fstat(file.fileno()).st_size < ends[-1]:
                raise BadInput(f"{folder / place.file} ends inside page {place.page}; try `eclips repair`")
            images = np.empty((len(starts), *page_shape), little_endian)
            for image, offset in zip(images, starts, strict=True):
                file.seek(offset)
                if file.readinto(image.reshape(-1).view(np.uint8)) != page_bytes:
                    raise ValueError(f"it ends at byte {file.tell()}, inside a page")
    except FileNotFoundError:
        raise BadInput(f"{folder / place.file} is missing: bring it back from a copy") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / place.file} cannot be read: {error}") from error
    return images.astype(dtype, copy=False)
