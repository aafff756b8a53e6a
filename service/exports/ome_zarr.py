"""Heights as OME-Zarr 0.4: chunks a frame each, halved again and again for looking from afar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from service.exports.heights import Heights, check_room
from service.tasks import Progress

SMALLEST_PX = 128
MOST_LEVELS = 4


def ome_zarr(heights: Heights, out: Path, report: Progress) -> None:
    """A new folder with axes t, y, x in seconds and nanometres, float32 metres. Raises `BadInput` where `out` exists
    or zarr is not installed."""
    try:
        import zarr
    except ModuleNotFoundError:
        raise BadInput("OME-Zarr needs the extra `exports`: pip install 'eclips-live[exports]'") from None
    if out.exists():
        raise BadInput(f"{out} exists already: choose another name for --out, or remove it")
    check_room(out, 2 * heights.count_bytes)
    width_m, height_m = heights.pixel_m()
    count, levels = len(heights.numbers), _levels(heights.shape)
    group = zarr.open_group(out, mode="w", zarr_format=2)
    arrays = [
        group.create_array(
            str(level),
            shape=(count, *shape),
            chunks=(1, *shape),
            dtype="float32",
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        for level, shape in enumerate(levels)
    ]
    for index, full in enumerate(heights):
        small = full
        for array in arrays:
            array[index] = small
            small = _halved(small)
        report(index + 1, count)
    axes = [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "y", "type": "space", "unit": "nanometer"},
        {"name": "x", "type": "space", "unit": "nanometer"},
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [heights.interval_s, 1e9 * height_m * 2**level, 1e9 * width_m * 2**level]},
                {"type": "translation", "translation": [0.0, *(5e8 * m * (2**level - 1) for m in (height_m, width_m))]},
            ],
        }
        for level in range(len(levels))
    ]
    title = f"{heights.name}: height in metres"
    group.attrs["multiscales"] = [{"version": "0.4", "name": title, "axes": axes, "datasets": datasets}]


def _levels(shape: tuple[int, int]) -> list[tuple[int, int]]:
    levels = [shape]
    while len(levels) < MOST_LEVELS and min(levels[-1]) >= 2 * SMALLEST_PX:
        levels.append((levels[-1][0] // 2, levels[-1][1] // 2))
    return levels


def _halved(height_m: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = (side // 2 for side in height_m.shape)
    blocks = height_m[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))
