"""What image files say about themselves: Thermo/FEI tag 34682, and plain resolution tags of our own files."""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from acquisition.errors import BadInput

FEI_TAG = 34682
CENTIMETRE = 3
LARGEST_PIXEL_M = 1.0e-4
FULL_SCALE_8_TO_16 = 257
MOST_COMPRESSION = 1100
"""Deflate makes at most 1032 bytes of one, other methods for greyscale images less."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """`pages`: (N, H, W) uint16, the data bar cut off. What the file does not tell is None."""

    path: Path
    pages: NDArray[np.uint16]
    pixel_size_m: float | None = None
    dwell_time_s: float | None = None
    energy_ev: float | None = None
    working_distance_m: float | None = None
    current_a: float | None = None
    taken: datetime | None = None


def read_image_file(path: Path) -> ImageFile:
    """Raises `BadInput` when `path` is no greyscale TIFF of 8 or 16 bits, or its pages differ in size.

    8 bits are widened to the full scale of 16, as microscopes do themselves: white stays white, so that saturation is
    seen; gains and dark levels in an instrument file are then in counts of that scale.
    """
    try:
        with tifffile.TiffFile(path) as file:
            _check_size(file, path)
            images = [_grey(page.asarray(), path) for page in file.pages]
            if len({image.shape for image in images}) > 1:
                raise BadInput(f"{path} has pages of different sizes: {[image.shape for image in images]}")
            pages = np.stack(images)
            tags = file.pages[0].tags
            fei = tags[FEI_TAG].value if FEI_TAG in tags else None
            pixel_size_m = _resolution_pixel_size_m(tags)
    except BadInput:
        raise
    except Exception as error:  # tifffile raises many types, all meaning: this is not a TIFF one can read
        raise BadInput(f"{path} cannot be read as TIFF: {error}") from error
    if fei is not None:
        return _from_fei(path, pages, fei)
    return ImageFile(path, pages, pixel_size_m=pixel_size_m)


def _check_size(file: tifffile.TiffFile, path: Path) -> None:
    """A few damaged bytes can declare any size, or send the chain of pages in a circle: no more memory is asked for
    than the file can hold, and no page is read twice."""
    held = os.fstat(file.filehandle.fileno()).st_size
    needed, seen = 0, set[int]()
    for page in file.pages:
        if page.offset in seen:
            raise BadInput(f"{path}: its pages go round in a circle after {len(seen)}: it is damaged")
        seen.add(page.offset)
        needed += page.nbytes if page.compression == 1 else page.nbytes // MOST_COMPRESSION
    if needed > held:
        raise BadInput(f"{path} declares more pixels than its {held} bytes can hold: it is damaged or cut off")


def _from_fei(path: Path, pages: NDArray[np.uint16], tag: object) -> ImageFile:
    """The tag is INI text; image rows are [Image] ResolutionY, the data bar lies below whatever DatabarHeight says."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        if isinstance(tag, dict):
            parser.read_dict({section: values for section, values in tag.items() if isinstance(values, dict)})
        else:
            text = tag.decode("latin-1") if isinstance(tag, bytes) else str(tag)
            parser.read_string(text.replace("\x00", ""))
        rows = parser.getint("Image", "ResolutionY", fallback=pages.shape[1])
        if rows < 1:
            raise ValueError(f"ResolutionY is {rows}")
        return ImageFile(
            path,
            np.ascontiguousarray(pages[:, :rows]),
            pixel_size_m=_number(parser, "Scan", "PixelWidth"),
            dwell_time_s=_number(parser, "Scan", "Dwelltime"),
            energy_ev=_number(parser, "EBeam", "HV"),
            working_distance_m=_number(parser, "EBeam", "WD"),
            current_a=_number(parser, "EBeam", "BeamCurrent"),
            taken=_taken(parser),
        )
    except (configparser.Error, ValueError) as error:
        raise BadInput(f"{path}: its FEI metadata cannot be read: {error}") from error


def _number(parser: configparser.ConfigParser, section: str, key: str) -> float | None:
    text = parser.get(section, key, fallback="")
    value = float(text) if text else None
    return value if value is not None and value > 0 else None


def _taken(parser: configparser.ConfigParser) -> datetime | None:
    text = f"{parser.get('User', 'Date', fallback='')} {parser.get('User', 'Time', fallback='')}"
    for form in ("%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M:%S"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _grey(image: NDArray[np.generic], path: Path) -> NDArray[np.uint16]:
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise BadInput(
            f"{path}: a page of shape {image.shape} and type {image.dtype}; greyscale of 8 or 16 bits is read"
        )
    return image.astype(np.uint16) * np.uint16(FULL_SCALE_8_TO_16 if image.dtype == np.uint8 else 1)


def _resolution_pixel_size_m(tags: tifffile.TiffTags) -> float | None:
    """Only from a resolution in centimetres, and below 0.1 mm: dots per inch in image files are nearly always made up,
    and so are those of a screen written in centimetres."""
    if "XResolution" not in tags or "ResolutionUnit" not in tags or int(tags["ResolutionUnit"].value) != CENTIMETRE:
        return None
    pixels, centimetres = tags["XResolution"].value
    pixel_size_m = 0.01 * centimetres / pixels if pixels else 0.0
    return pixel_size_m if 0.0 < pixel_size_m < LARGEST_PIXEL_M else None
