"""Pixel by pixel: does a new picture show what is remembered, and what both together say."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from numba import njit, prange
from numpy.typing import NDArray

POOL_PX = 5
LEAST_SIGMAS = 2.5
SHARE_OF_POOL = 4.0

Floats = NDArray[np.float32]
Counts = NDArray[np.uint16]


def excess_of(unlike: Floats, segments: int) -> Floats:
    """(H, W): by how much pooled squared differences, of expectation 1, exceed what noise makes of them.

    Averages over 5 x 5 pixels and all segments. What changes is often a line: a part of the pool, so that its own
    excess is some times that of the pool.
    """
    pooled = scipy.ndimage.uniform_filter(unlike, POOL_PX, mode="nearest")
    chance = LEAST_SIGMAS * np.sqrt(2.0 / (POOL_PX**2 * segments))
    excess: Floats = np.float32(SHARE_OF_POOL) * np.maximum(pooled - np.float32(1.0 + chance), np.float32(0.0))
    return excess


@njit(nogil=True, cache=True, parallel=True)
def unlikeness(mean, held, new, noise, gain, dark, ceiling):  # type: ignore[no-untyped-def]
    """(H, W) float32: squared difference between `mean`, the mean of `held` frames, and `new` (S, H, W) over its
    expectation, averaged over segments; 1 where there is nothing to compare. `noise` (H, W): the variance of new over
    that of a frame."""
    segments, rows, columns = new.shape
    unlike = np.ones((rows, columns), np.float32)
    for row in prange(rows):
        for column in range(columns):
            kept, share = held[row, column], noise[row, column]
            total, usable = np.float32(0.0), kept > 0.0
            for segment in range(segments):
                old, now = mean[segment, row, column], new[segment, row, column]
                usable = usable and old < ceiling and now < ceiling
                both = (kept * share * old + now) / (kept * share + np.float32(1.0))
                electrons = max((both - dark[segment]) / gain[segment], np.float32(1.0))
                total += ((now - old) / gain[segment]) ** 2 / electrons
            if usable:
                unlike[row, column] = total / ((np.float32(1.0) / kept + share) * segments)
    return unlike


@njit(nogil=True, cache=True, parallel=True)
def merge(mean, held, new, noise, excess, most, ceiling):  # type: ignore[no-untyped-def]
    """Take `new` into `mean` and `held`, in place; returns how many pixels forgot more than half of what they held.

    The variance 1 / held of a pixel grows by what changed; both are then weighted by their variances, new frames a
    little more once `most` are held, so that `held` stays there: with the weight w of the new,
    (1 - w)^2 / held + w^2 noise = 1 / most. A saturated pixel is the new frame's, and worth nothing to the next.
    """
    segments, rows, columns = new.shape
    forgotten = np.zeros(rows, np.int64)
    for row in prange(rows):
        for column in range(columns):
            kept, share = held[row, column], noise[row, column]
            for segment in range(segments):
                if mean[segment, row, column] >= ceiling:
                    kept = np.float32(0.0)
            saturated = False
            for segment in range(segments):
                saturated = saturated or new[segment, row, column] >= ceiling
            if saturated or kept <= 0.0:
                for segment in range(segments):
                    mean[segment, row, column] = new[segment, row, column]
                held[row, column] = np.float32(1.0) if saturated else np.float32(1.0) / share
                continue
            spread = np.float32(1.0) / kept
            spread += excess[row, column] * (spread + share)
            if spread * kept > 2.0:
                forgotten[row] += 1
            both = spread + share
            weight = spread / both
            if np.float32(1.0) / spread + np.float32(1.0) / share > most:
                wanted = np.float32(1.0) / most
                weight = (spread + np.sqrt(max(spread**2 - both * (spread - wanted), np.float32(0.0)))) / both
            for segment in range(segments):
                mean[segment, row, column] += weight * (new[segment, row, column] - mean[segment, row, column])
            held[row, column] = np.float32(1.0) / ((1 - weight) ** 2 * spread + weight**2 * share)
    return forgotten.sum()


@njit(nogil=True, cache=True, parallel=True)
def counts_of(mean, ceiling):  # type: ignore[no-untyped-def]
    """(S, H, W) uint16: rounded; only what is saturated reaches `ceiling`."""
    segments, rows, columns = mean.shape
    counts = np.empty(mean.shape, np.uint16)
    for line in prange(segments * rows):
        segment, row = line // rows, line % rows
        for column in range(columns):
            value = mean[segment, row, column]
            if value < ceiling:
                value = min(max(np.rint(value), np.float32(0.0)), ceiling - np.float32(1.0))
            counts[segment, row, column] = np.uint16(value)
    return counts
