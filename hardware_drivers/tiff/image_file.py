"""One image file of any microscope: its pixels, the data bar cut off, and what it says of its scan."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from acquisition.errors import BadInput
from hardware_drivers.tiff.metadata import Told
from hardware_drivers.tiff.ome import is_ome, told_by_ome
from hardware_drivers.tiff.sidecars import told_beside
from hardware_drivers.tiff.structure import check_whole
from hardware_drivers.tiff.tags import FEI_TAGS, TESCAN_TAG, ZEISS_TAG, told_by_fei, told_by_tescan, told_by_zeiss

CENTIMETRE = 3
LARGEST_PIXEL_M = 1.0e-4
FULL_SCALE_8_TO_16 = 257
MOST_COMPRESSION = 1100
"""Deflate makes at most 1032 bytes of one, other methods for greyscale images less."""

READERS = {**dict.fromkeys(FEI_TAGS, told_by_fei), ZEISS_TAG: told_by_zeiss, TESCAN_TAG: told_by_tescan}
"""Makers by the tag that only they write. A file of a program that copies tags of another stays that maker's."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """`pages`: (N, H, W) uint16, the data bar cut off."""

    path: Path
    pages: NDArray[np.uint16]
    told: Told


def read_image_file(path: Path) -> ImageFile:
    """Raises `BadInput` when `path` is no whole greyscale TIFF of 8 or 16 bits, its pages differ in size, or what it
    says of its scan cannot be (with file, key and value).

    8 bits are widened to the full scale of 16, as microscopes do themselves: white stays white, so that saturation is
    seen; gains and dark levels in an instrument file are then in counts of that scale.
    """
    try:
        check_whole(path)
        with tifffile.TiffFile(path) as file:
            _check_size(file, path)
            images = [_grey(page.asarray(), path) for page in file.pages]
            if len({image.shape for image in images}) > 1:
                raise BadInput(f"{path} has pages of different sizes: {[image.shape for image in images]}")
            pages = np.stack(images)
            told = _told(path, file.pages[0], len(images))
    except BadInput:
        raise
    except Exception as error:  # tifffile raises many types, all meaning: this is not a TIFF one can read
        raise BadInput(f"{path} cannot be read as TIFF: {error}") from error
    rows = pages.shape[1]
    kept = rows if told.rows is None else told.rows if told.rows > 0 else rows + told.rows
    if not kept > 0:
        raise BadInput(f"{path} has {rows} rows, of which {-kept + rows} are to be the data bar: it is damaged")
    return ImageFile(path, np.ascontiguousarray(pages[:, :kept]), told)


def _told(path: Path, page: Any, pages: int) -> Told:
    """The maker's own words, in the file before beside it; else what any TIFF may say."""
    for code, reader in READERS.items():
        if code in page.tags:
            return reader(path, page.tags[code].value)
    beside = told_beside(path)
    if beside is not None:
        return beside
    description = str(page.tags.valueof("ImageDescription", "") or "")
    if is_ome(description):
        return told_by_ome(path, description, pages)
    return Told(pixel_size_m=_resolution_pixel_size_m(page.tags))


def _check_size(file: tifffile.TiffFile, path: Path) -> None:
    """A few damaged bytes can declare any size: no more memory is asked for than the file can hold."""
    held = os.fstat(file.filehandle.fileno()).st_size
    needed = sum(page.nbytes if page.compression == 1 else page.nbytes // MOST_COMPRESSION for page in file.pages)
    if needed > held:
        raise BadInput(f"{path} declares more pixels than its {held} bytes can hold: it is damaged or cut off")


def _grey(image: NDArray[np.generic], path: Path) -> NDArray[np.uint16]:
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise BadInput(
            f"{path}: a page of shape {image.shape} and type {image.dtype}; greyscale of 8 or 16 bits is read"
        )
    return image.astype(np.uint16) * np.uint16(FULL_SCALE_8_TO_16 if image.dtype == np.uint8 else 1)


def _resolution_pixel_size_m(tags: tifffile.TiffTags) -> float | None:
    """Our own files say it so. Only from a resolution in centimetres, and below 0.1 mm: dots per inch in image files
    are nearly always made up, and so are those of a screen written in centimetres."""
    if "XResolution" not in tags or "ResolutionUnit" not in tags or int(tags["ResolutionUnit"].value) != CENTIMETRE:
        return None
    pixels, centimetres = tags["XResolution"].value
    pixel_size_m = 0.01 * centimetres / pixels if pixels else 0.0
    return pixel_size_m if 0.0 < pixel_size_m < LARGEST_PIXEL_M else None
