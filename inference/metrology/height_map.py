"""One height map with its scale: what everything here is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.accuracy import without_plane

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeightMap:
    """`height_m` (H, W) float64 metres; row 0 at the top, z up. Slopes are of x to the right and y down.

    Raises `BadInput` for anything that is no map of finite heights on pixels of positive size.
    """

    height_m: Floats
    pixel_size_m: float
    pixel_size_y_m: float

    def __post_init__(self) -> None:
        if self.height_m.ndim != 2 or min(self.height_m.shape) < 2:
            raise BadInput(f"heights of shape {self.height_m.shape}: expected (H, W) of 2 x 2 pixels or more")
        if not np.isfinite(self.height_m).all():
            missing = int(np.count_nonzero(~np.isfinite(self.height_m)))
            raise BadInput(f"{missing} of {self.height_m.size} heights are not finite: fill them first")
        if not (0.0 < self.pixel_size_m < np.inf and 0.0 < self.pixel_size_y_m < np.inf):
            raise BadInput(f"a pixel of {self.pixel_size_m:g} m by {self.pixel_size_y_m:g} m: both must be above 0 m")

    def level(self) -> HeightMap:
        """The same without its mean plane."""
        return HeightMap(without_plane(self.height_m), self.pixel_size_m, self.pixel_size_y_m)


@dataclass(frozen=True, slots=True)
class FrameMap:
    """The height map of one recorded frame. `state`: readings joined to it, in SI units, by name."""

    sequence: int
    utc_ns: int
    monotonic_ns: int
    map: HeightMap
    state: dict[str, float]


def frame_map(run: RecordedRun, sequence: int) -> FrameMap:
    """The height map of one frame of `run`. Raises `BadInput` where that frame has none."""
    height_m = run.read_height(sequence).astype(np.float64)
    header = run.frames[sequence].header
    scan = run.instrument.scan
    aspect = 1.0 if scan.pixel_size_y_m is None else scan.pixel_size_y_m / scan.pixel_size_m
    pixel_m = header.optics.pixel_size_m
    state = {name: joined.value for name, joined in header.state.items() if joined.value is not None}
    return FrameMap(sequence, header.utc_ns, header.monotonic_ns, HeightMap(height_m, pixel_m, aspect * pixel_m), state)


def frame_maps(run: RecordedRun, sequences: Sequence[int] | None = None) -> Iterator[FrameMap]:
    """Those of all frames that have heights, or of `sequences`, in their order, one at a time in memory."""
    for sequence in sorted(run.heights) if sequences is None else sequences:
        yield frame_map(run, sequence)
