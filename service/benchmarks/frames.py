"""Images as a frame of a run that nobody recorded, for what takes frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import SystemClock
from acquisition.frames import Exposure, Frame
from acquisition.instrument import Instrument
from acquisition.stamping import optics_of, stamp, start_run


def frame_of(images: NDArray[np.uint16], instrument: Instrument, name: str) -> Frame:
    """`images` (S, H, W) counts as the only frame of the run `name`."""
    at = SystemClock().now()
    run = start_run(at, name, "bench", instrument, images.shape[1:], 1, "")
    return stamp(run, 0, Exposure(images, at, at, optics_of(instrument)), {})


def with_gain(instrument: Instrument, gain_counts_per_electron: float) -> Instrument:
    """The same gain in every segment."""
    gain: dict[str, Any] = {"gain_counts_per_electron": gain_counts_per_electron}
    segments = tuple(segment.model_copy(update=gain) for segment in instrument.detector.segments)
    return instrument.model_copy(update={"detector": instrument.detector.model_copy(update={"segments": segments})})
