"""What needs a second look at a frame: the cycle through the forward model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from inference.accuracy import compare, without_plane
from inference.training.frames import (
    FULL_SCALE,
    MARGIN_PX,
    SUBPIXELS,
    Sample,
    calibrated,
    calibration_of,
    expected_frame,
)
from inference.training.held_out import DARK_COUNTS, FLAT_COUNTS
from service.benchmarks.judged import Seen
from service.benchmarks.model_sets import ModelSet

CYCLE_DOSE = 10_000.0
CYCLED_DOSE = 100_000.0

Floats = NDArray[np.float64]


class Cycle(NamedTuple):
    """`over_std`: rms of height 1 minus height 2 over the deviation of height 1, planes removed. `chi2`: reduced chi
    squared of the measured frame against BSESM of height 1, no degrees of freedom taken off. `truth_over_std`: error of
    height 1."""

    family: str
    over_std: float
    chi2: float
    truth_over_std: float


def cycle(seen: Seen, model: ModelSet) -> Cycle:
    """Height 1 of a set, its frame by BSESM without noise, and the height 2 that the set sees in it."""
    sample, height = seen.case.sample, seen.heights[model.name]
    per_electron = expected_frame(refined(height), sample.instrument, 1.0, seen.scene.beam_px)
    segments = len(per_electron)
    gains, darks = [FLAT_COUNTS * segments / CYCLED_DOSE] * segments, [DARK_COUNTS] * segments
    counts = np.rint(per_electron * (FLAT_COUNTS * segments) + DARK_COUNTS)
    images = np.minimum(counts, FULL_SCALE).astype(np.uint16)
    stated = calibrated(sample.instrument, CYCLED_DOSE, seen.scene.beam_px, gains, darks)
    again = Sample(images, stated, sample.height, sample.family, CYCLED_DOSE)
    _, second = model.answer(images, calibration_of(again))
    relief = float(without_plane(height).std())
    return Cycle(
        seen.scene.family,
        float(without_plane(second - height).std()) / max(relief, 1e-12),
        _chi2(seen, per_electron),
        compare(height, seen.truth, 1.0).height_error_over_std,
    )


def refined(height: Floats) -> NDArray[np.float32]:
    """On the fine grid with its margin, as `expected_frame` takes it: cubic splines, going on beyond the frame as its
    point reflection, which keeps tilts."""
    beyond = 2 * MARGIN_PX
    padded = np.pad(height, beyond, mode="reflect", reflect_type="odd")
    places = (
        (np.arange(SUBPIXELS * (side + 2 * MARGIN_PX)) + 0.5) / SUBPIXELS - 0.5 - MARGIN_PX + beyond
        for side in height.shape
    )
    fine = map_coordinates(padded, np.meshgrid(*places, indexing="ij"), order=3, mode="nearest")
    return np.asarray(fine, np.float32)


def _chi2(seen: Seen, per_electron: NDArray[np.float32]) -> float:
    """The frame's brightness as a whole is fitted."""
    calibration = seen.calibration
    gain, dark = (one[:, None, None] for one in (calibration.gain_counts_per_electron, calibration.dark_counts))
    measured = (seen.case.sample.images.astype(np.float64) - dark) / gain
    expected = per_electron * (measured.sum() / float(per_electron.sum(dtype=np.float64)))
    variance = np.maximum(expected, 1.0) + 1.0 / (12.0 * gain**2)
    return float(((measured - expected) ** 2 / variance).mean())
