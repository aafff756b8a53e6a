"""Difference over sum and a Poisson solve, in numpy: what checks of a calibration are made with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from inference.calibration import Calibration

STEEPEST_SLOPE = 4.0
LEAST_SHARE = 0.02

Floats = NDArray[np.float64]


def electrons_of(images: NDArray[np.uint16], calibration: Calibration) -> Floats:
    """(S, H, W), below 0 where noise lies below the dark level."""
    dark, gain = calibration.dark_counts[:, None, None], calibration.gain_counts_per_electron[:, None, None]
    return np.asarray((images - dark.astype(np.float64)) / gain)


def slopes_of(moments: Floats, flat_share: float) -> Floats:
    """(2, H, W) p and q from brightness times (n_x, n_y, a n_z + 1 - a), each (H, W); see `Calibration`."""
    brightness = np.maximum(moments[2], LEAST_SHARE * float(np.median(moments[2])) + 1e-12)
    across = moments[:2] / brightness
    if flat_share == 0.0:
        across = across / np.sqrt(np.maximum(1.0 - (across**2).sum(axis=0), STEEPEST_SLOPE**-2))
    return np.asarray(np.clip(-across, -STEEPEST_SLOPE, STEEPEST_SLOPE))


def integrated(slopes: Floats) -> Floats:
    """(H, W) heights in pixels whose forward differences fit the slopes best, mean zero, the plane kept."""
    p, q = slopes
    source = np.zeros(p.shape)
    between_x, between_y = 0.5 * (p[:, 1:] + p[:, :-1]), 0.5 * (q[1:] + q[:-1])
    source[:, 1:] += between_x
    source[:, :-1] -= between_x
    source[1:] += between_y
    source[:-1] -= between_y
    along_y, along_x = ((2.0 * np.sin(0.5 * np.pi * np.arange(size) / size)) ** 2 for size in p.shape)
    squares = along_y[:, None] + along_x
    squares[0, 0] = np.inf
    return np.asarray(idctn(dctn(source, norm="ortho") / squares, norm="ortho"))


def facing(height_px: Floats, flat_share: float) -> Floats:
    """(3, H, W): (n_x, n_y, a n_z + 1 - a) of a height map in pixels."""
    q, p = np.gradient(height_px)
    upright = 1.0 / np.sqrt(1.0 + p**2 + q**2)
    return np.stack([-p * upright, -q * upright, flat_share * upright + 1.0 - flat_share])
