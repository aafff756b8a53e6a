"""What scanned height maps lose before anything is measured on them: offsets of scan lines, spikes, the mean plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from inference.accuracy import without_plane
from inference.metrology.scatter import MAD_TO_SIGMA

SPIKE_DEVIATIONS = 6.0

Floats = NDArray[np.float64]


def line_steps(height_m: Floats) -> Floats:
    """(H - 1,) metres: the median step of each scan line against the one before."""
    return np.asarray(np.median(np.diff(height_m, axis=0), axis=1), np.float64)


def levelled(height_m: Floats) -> Floats:
    """(H, W) without the median step of each scan line against the one before, spikes and mean plane, all of which
    would turn into false slope."""
    level = height_m - np.concatenate([[0.0], np.cumsum(line_steps(height_m))])[:, None]
    return without_plane(without_spikes(level))


def without_spikes(height_m: Floats) -> Floats:
    """(H, W) with single pixels far off their neighbourhood replaced by its median."""
    smooth = median_filter(height_m, size=3, mode="nearest")
    residual = height_m - smooth
    typical = MAD_TO_SIGMA * float(np.median(np.abs(residual))) + 1e-15
    return np.asarray(np.where(np.abs(residual) > SPIKE_DEVIATIONS * typical, smooth, height_m), np.float64)
