"""Whether a frame and its heights agree with the instrument file, without truth: residual, its band and the cycle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.frames import Frame
from acquisition.instrument import Instrument
from inference.calibration import calibrate
from inference.consistency import apart
from inference.pipeline import Pipeline, with_optics
from inference.plain_inversion import electrons_of
from inference.segment_score import shown_per_brightness

FULL_SCALE = 65535
ROOM = 0.05
"""By which residuals may leave the range of those that an instrument was calibrated on."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """Of one frame and model set: `residual` (median, in units of noise) with its band, and `cycle`, the relative
    difference of heights after the forward model rendered the first; `cycle_by_set` has the set's own graph there."""

    residual: float
    expected: float
    low: float
    high: float
    cycle: float
    cycle_by_set: float

    def tree(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.__slots__}

    def in_words(self) -> tuple[str, ...]:
        fits = "inside" if self.low <= self.residual <= self.high else "OUTSIDE"
        return (
            f"residual {self.residual:.3g} times the noise (median), {fits} its band of {self.low:.3g} to "
            f"{self.high:.3g}; noise alone leaves {self.expected:.3g}",
            f"cycle: height, image by the forward model, height again differ by {100.0 * self.cycle:.2g} % of the "
            f"relief ({100.0 * self.cycle_by_set:.2g} % by the set's own images)",
        )


def consistency_of(frame: Frame, instrument: Instrument, pipeline: Pipeline) -> Consistency:
    """Raises `BadInput` as `Pipeline.reconstruct` does."""
    first = pipeline.reconstruct(_numbered_0(frame), instrument)
    figures, used = first.header.figures, with_optics(instrument, frame.header.optics)
    again = pipeline.reconstruct(
        Frame(replace(frame.header, sequence=1), _shown(first.height_m, frame.images, used)), instrument
    )
    return Consistency(
        residual=figures["residual_median"],
        expected=figures["residual_expected"],
        low=figures["residual_low"],
        high=figures["residual_high"],
        cycle=apart(again.height_m, first.height_m),
        cycle_by_set=figures["cycle_height"],
    )


def residual_band(frames: Iterable[Frame], instrument: Instrument, pipeline: Pipeline) -> tuple[float, float] | None:
    """Between which multiples of what noise leaves residuals lie, from frames that `instrument` was calibrated on;
    None without any."""
    figures: list[Mapping[str, float]] = [
        pipeline.reconstruct(_numbered_0(frame), instrument).header.figures for frame in frames
    ]
    ratios = [one["residual_median"] / one["residual_expected"] for one in figures if one.get("residual_expected")]
    return (max(min(ratios) - ROOM, 0.0), max(ratios) + ROOM) if ratios else None


def _numbered_0(frame: Frame) -> Frame:
    """Live, only some frames are checked, by their number: 0 is."""
    return Frame(replace(frame.header, sequence=0), frame.images)


def _shown(height_m: NDArray[np.float32], images: NDArray[np.uint16], instrument: Instrument) -> NDArray[np.uint16]:
    """Counts without noise of this height, each pixel as bright as in `images`."""
    numbers = calibrate(instrument, images)
    shown = shown_per_brightness(height_m.astype(np.float64) / instrument.scan.pixel_size_m, numbers, instrument)
    brightness = np.maximum(electrons_of(images, numbers).sum(axis=0), 0.0) / np.maximum(shown.sum(axis=0), 1e-9)
    gain, dark = (
        one.astype(np.float64)[:, None, None] for one in (numbers.gain_counts_per_electron, numbers.dark_counts)
    )
    counts: NDArray[Any] = np.rint(shown * brightness * gain + dark)
    return np.asarray(np.clip(counts, 0, FULL_SCALE), np.uint16)
