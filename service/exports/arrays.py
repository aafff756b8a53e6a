"""Heights as numpy's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.exports.heights import Heights
from service.tasks import Progress


def npz(heights: Heights, out: Path, report: Progress) -> None:
    """`heights_m` (N, H, W) float32, and by frame `sequence`, `utc_ns` and `pixel_size_m`."""
    heights_m = np.empty((len(heights.numbers), *heights.shape), np.float32)
    for index, height_m in enumerate(heights):
        heights_m[index] = height_m
        report(index + 1, len(heights.numbers))
    with out.open("wb") as file:  # numpy would add an ending to a name
        np.savez(
            file,
            heights_m=heights_m,
            sequence=np.array(heights.numbers),
            utc_ns=np.array(heights.utc_ns),
            pixel_size_m=np.array(heights.pixels_m),
        )


def npy(heights: Heights, out: Path, report: Progress) -> None:
    """(N, H, W) float32 metres, or (H, W) of one frame; an .npy holds no pixel size."""
    with out.open("wb") as file:
        shape = heights.shape if len(heights.numbers) == 1 else (len(heights.numbers), *heights.shape)
        form = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, form)
        for index, height_m in enumerate(heights):
            file.write(np.ascontiguousarray(height_m, "<f4").data)
            report(index + 1, len(heights.numbers))
