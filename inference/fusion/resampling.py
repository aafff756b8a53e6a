"""Images moved by fractions of a pixel, once, and what that leaves of their noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage
from numba import njit, prange
from numpy.typing import NDArray

LOBES = 4
TAPS = 2 * LOBES

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]


def resample(images: NDArray[Any], offset_px: tuple[float, float]) -> tuple[Floats, float]:
    """(S, H, W) float32 values at (row + offset, column + offset), and the factor by which uncorrelated noise of a
    pixel has lost variance. Offsets (rows, columns) within half a pixel.

    Lanczos interpolation of eight taps: 1.00 at half the Nyquist frequency and 0.90 at three quarters for half a
    pixel. Beyond the border the last pixel is repeated.
    """
    along = [lanczos(part) for part in offset_px]
    if offset_px == (0.0, 0.0):
        return np.asarray(images, np.float32), 1.0
    moved: Floats = _filtered(images, *along)
    return moved, float(np.prod([np.sum(taps.astype(np.float64) ** 2) for taps in along]))


def lanczos(offset_px: float) -> Floats:
    """(8,) weights of the pixels from -3 to 4 around one, for its value at `offset_px`; their sum is 1."""
    away = np.arange(1 - LOBES, LOBES + 1) - offset_px
    taps = np.sinc(away) * np.sinc(away / LOBES)
    return np.asarray(taps / taps.sum(), np.float32)


def reach_of(spots: Bits) -> Bits:
    """(H, W): the pixels into whose interpolation one of `spots` enters."""
    reached: Bits = scipy.ndimage.maximum_filter(spots, TAPS + 1)
    return reached


@njit(nogil=True, cache=True, parallel=True)
def _filtered(images, down, across):  # type: ignore[no-untyped-def]
    """Down the columns into a row that is kept at hand, then across it."""
    segments, rows, columns = images.shape
    out = np.empty(images.shape, np.float32)
    for line in prange(segments * rows):
        segment, row = line // rows, line % rows
        mixed = np.zeros(columns + TAPS, np.float32)
        for tap in range(TAPS):
            source = min(max(row + tap + 1 - LOBES, 0), rows - 1)
            weight = down[tap]
            for column in range(columns):
                mixed[column + LOBES - 1] += weight * np.float32(images[segment, source, column])
        for edge in range(LOBES - 1):
            mixed[edge] = mixed[LOBES - 1]
        for edge in range(LOBES + 1):
            mixed[columns + LOBES - 1 + edge] = mixed[columns + LOBES - 2]
        for column in range(columns):
            value = np.float32(0.0)
            for tap in range(TAPS):
                value += across[tap] * mixed[column + tap]
            out[segment, row, column] = value
    return out
