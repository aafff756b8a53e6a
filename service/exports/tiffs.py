"""Heights as TIFF: as ImageJ likes it, and as OME-TIFF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from acquisition.errors import BadInput
from service.exports.heights import Heights
from service.tasks import Progress

MOST_IMAGEJ_BYTES = 4 * 2**30 - 2**20


def imagej(heights: Heights, out: Path, report: Progress) -> None:
    """A page per height, float32 metres, in the order of the frames, with pixel size and frame interval for ImageJ.
    Raises `BadInput` for more than ImageJ's TIFFs can hold."""
    if heights.count_bytes > MOST_IMAGEJ_BYTES:
        raise BadInput(
            f"{heights.count_bytes / 1e9:.1f} GB of heights, an ImageJ TIFF ends at 4 GB: export as ome-tiff"
        )
    width_m, height_m = heights.pixel_m()
    metadata = {"axes": "TYX", "unit": "um", "finterval": heights.interval_s, "fps": 1.0 / heights.interval_s}
    resolution = (1e-6 / width_m, 1e-6 / height_m)
    with tifffile.TiffWriter(out, imagej=True) as writer:
        _write(writer, heights, report, metadata=metadata, resolution=resolution)


def ome(heights: Heights, out: Path, report: Progress) -> None:
    """Axes T, Y, X; float32 metres; physical pixel size and the time of each plane."""
    width_m, height_m = heights.pixel_m()
    metadata = {
        "axes": "TYX",
        "Name": heights.name,
        "Channel": {"Name": ["height in metres"]},
        "PhysicalSizeX": 1e9 * width_m,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 1e9 * height_m,
        "PhysicalSizeYUnit": "nm",
        "TimeIncrement": heights.interval_s,
        "TimeIncrementUnit": "s",
        "Plane": {"DeltaT": heights.seconds, "DeltaTUnit": ["s"] * len(heights.numbers)},
    }
    resolution = (1e-2 / width_m, 1e-2 / height_m)
    with tifffile.TiffWriter(out, ome=True, bigtiff=heights.count_bytes > MOST_IMAGEJ_BYTES) as writer:
        _write(writer, heights, report, metadata=metadata, resolution=resolution, resolutionunit="CENTIMETER")


def _write(writer: tifffile.TiffWriter, heights: Heights, report: Progress, **how: Any) -> None:
    count = len(heights.numbers)

    def pages() -> Iterator[NDArray[np.float32]]:
        for index, height_m in enumerate(heights):
            yield height_m
            report(index + 1, count)

    writer.write(pages(), shape=(count, *heights.shape), dtype=np.float32, photometric="minisblack", **how)
