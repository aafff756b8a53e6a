"""What every export of heights starts from: the maps in order with their scale and times, and room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput, RequestRefused
from acquisition.recording import RecordedRun

ROOM_BYTES = 100 * 2**20
"""Left free on the disk that holds exports."""


class Heights:
    """Height maps (H, W) float32 of a run, in the order of their frames, or of one frame.

    Raises `BadInput` for a run without heights or a frame without one, `RequestRefused` when the disk of `out` has no
    room for them as float32.
    """

    def __init__(self, run: Path, out: Path, frame: int | None = None) -> None:
        self.recorded = RecordedRun(run)
        if not self.recorded.heights:
            raise BadInput(
                f"{run.name} has no heights to export; make them with `eclips reprocess`, or export it as zip"
            )
        self.numbers = sorted(self.recorded.heights) if frame is None else [frame]
        if frame is not None and frame not in self.recorded.heights:
            self.recorded.read_height(frame)
        self.name = run.name
        self.shape: tuple[int, int] = self.recorded.manifest.shape[1:]
        self.count_bytes = 4 * self.shape[0] * self.shape[1] * len(self.numbers)
        check_room(out, self.count_bytes)
        scan = self.recorded.instrument.scan
        aspect = 1.0 if scan.pixel_size_y_m is None else scan.pixel_size_y_m / scan.pixel_size_m
        self.pixels_m = [self.recorded.frames[n].header.optics.pixel_size_m for n in self.numbers]
        self.aspect = aspect

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self.recorded.read_height(number) for number in self.numbers)

    @property
    def utc_ns(self) -> list[int]:
        return [self.recorded.frames[number].header.utc_ns for number in self.numbers]

    @property
    def seconds(self) -> list[float]:
        """Since the first of them."""
        begins = [self.recorded.frames[number].header.monotonic_ns for number in self.numbers]
        return [1e-9 * (ns - begins[0]) for ns in begins]

    @property
    def interval_s(self) -> float:
        """Mean time from one to the next; 1 s where there is only one."""
        return self.seconds[-1] / (len(self.numbers) - 1) if len(self.numbers) > 1 and self.seconds[-1] > 0 else 1.0

    def pixel_m(self) -> tuple[float, float]:
        """Width and height of a pixel that all maps share. Raises `BadInput` where the run changed it on the way."""
        if len(set(self.pixels_m)) > 1:
            sizes = ", ".join(f"{1e9 * size:g} nm" for size in sorted(set(self.pixels_m)))
            raise BadInput(f"{self.name} has pixels of {sizes}, this format holds one size: export single frames")
        return self.pixels_m[0], self.aspect * self.pixels_m[0]


def check_room(out: Path, needed_bytes: int) -> None:
    """Raises `RequestRefused` when the disk of `out` has no room for so much."""
    free_bytes = shutil.disk_usage(out.absolute().parent).free
    if free_bytes - needed_bytes < ROOM_BYTES:
        raise RequestRefused(
            f"the export needs {needed_bytes / 1e6:.0f} MB and {out.parent} has {free_bytes / 1e6:.0f} MB free: set "
            "TMPDIR to a larger disk, or fetch the files one by one"
        )
