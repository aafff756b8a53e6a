"""One page of a classic little-endian TIFF as bytes: its directory, made in one go, so that pixels need no copy."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

FILE_HEADER = b"II*\0" + bytes(4)
FIRST_POINTER = 4
"""Where the file says where its first page is."""
_ALIGNMENT = 16
_SHORT, _LONG, _RATIONAL, _ASCII = 3, 4, 5, 2
_FORMATS = {_SHORT: "<H", _LONG: "<I"}
_SAMPLE_FORMATS = {"u": 1, "f": 3}
_MAX_LONG = 2**32 - 1


@dataclass(frozen=True, slots=True)
class PageHead:
    """What stands in a file before the pixels of a page, and where (bytes): its pixels, its end, its pointer to the
    next page."""

    encoded: bytes
    pixels: int
    end: int
    pointer: int


def encode_head(
    start: int, image: NDArray[Any], pixels_per_cm: float, description: str | None, *, followed: bool
) -> PageHead:
    """Of an (H, W) `image` of unsigned integers or floats whose page begins at byte `start` (even); one that is
    `followed` points to where it ends. Tags as in TIFF 6.0 (Adobe 1992), sections 2 to 8."""
    height, width = image.shape
    density = _rational(pixels_per_cm)
    tags: list[tuple[int, int, int | bytes]] = [
        (256, _LONG, width),
        (257, _LONG, height),
        (258, _SHORT, 8 * image.itemsize),
        (259, _SHORT, 1),
        (262, _SHORT, 1),
        *([] if description is None else [(270, _ASCII, description.encode("ascii") + b"\0")]),
        (273, _LONG, 0),
        (277, _SHORT, 1),
        (278, _LONG, height),
        (279, _LONG, image.nbytes),
        (282, _RATIONAL, density),
        (283, _RATIONAL, density),
        (296, _SHORT, 3),
        (305, _ASCII, b"eclips-live\0"),
        (339, _SHORT, _SAMPLE_FORMATS[image.dtype.kind]),
    ]
    pointer = start + 2 + 12 * len(tags)
    values_at = pointer + 4
    values = b"".join(value + bytes(len(value) % 2) for _, _, value in tags if isinstance(value, bytes))
    pixels = -(-(values_at + len(values)) // _ALIGNMENT) * _ALIGNMENT
    entries = []
    for code, kind, value in tags:
        if isinstance(value, bytes):
            count = 1 if kind == _RATIONAL else len(value)
            entries.append(struct.pack("<HHII", code, kind, count, values_at))
            values_at += len(value) + len(value) % 2
        else:
            number = struct.pack(_FORMATS[kind], pixels if code == 273 else value)
            entries.append(struct.pack("<HHI4s", code, kind, 1, number))
    end = pixels + image.nbytes
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + struct.pack("<I", end if followed else 0)
    return PageHead((directory + values).ljust(pixels - start, b"\0"), pixels, end, pointer)


@lru_cache(maxsize=16)
def _rational(value: float) -> bytes:
    """The nearest fraction of two 32-bit numbers."""
    nearest = Fraction(value).limit_denominator(max(1, int(_MAX_LONG / max(value, 1.0))))
    return struct.pack("<II", min(nearest.numerator, _MAX_LONG), nearest.denominator)
