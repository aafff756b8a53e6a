"""Pixel by pixel: does a new picture show what is remembered, and what both together say."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

POOL_HALVES = (1, 3, 5)
LEAST_SIGMAS = 2.5
SHARE_OF_POOL = 8.0

Floats = NDArray[np.float32]
Counts = NDArray[np.uint16]


@njit(nogil=True, cache=True, parallel=True, fastmath=True)
def excess_of(unlike, segments):  # type: ignore[no-untyped-def]
    """(H, W): by how much squared differences of expectation 1, pooled over 3 x 3, 7 x 7 or 11 x 11 pixels and
    all segments, exceed what noise makes of them. What changes is often a line: a part of the pool, so that its own
    excess is some times that of the pool."""
    rows, columns = unlike.shape
    excess = np.zeros((rows, columns), np.float32)
    for row in prange(rows):
        for half in POOL_HALVES:
            pixels = (2 * half + 1) ** 2
            limit = np.float32(1.0 + LEAST_SIGMAS * np.sqrt(2.0 / (pixels * segments)))
            down = np.zeros(columns + 2 * half, np.float32)
            for away in range(-half, half + 1):
                source = min(max(row + away, 0), rows - 1)
                for column in range(columns):
                    down[column + half] += unlike[source, column]
            for edge in range(half):
                down[edge] = down[half]
                down[columns + half + edge] = down[columns + half - 1]
            for column in range(columns):
                pooled = np.float32(0.0)
                for away in range(2 * half + 1):
                    pooled += down[column + away]
                over = np.float32(SHARE_OF_POOL) * (pooled / np.float32(pixels) - limit)
                excess[row, column] = max(excess[row, column], over)
    return excess


@njit(nogil=True, cache=True, parallel=True, fastmath=True)
def unlikeness(mean, held, new, noise, gain, dark, ceiling):  # type: ignore[no-untyped-def]
    """(H, W) float32: squared difference between `mean`, the mean of `held` frames, and `new` (S, H, W) over its
    expectation, averaged over segments; 1 where there is nothing to compare. `noise` (H, W): the variance of new over
    that of a frame."""
    segments, rows, columns = new.shape
    unlike = np.ones((rows, columns), np.float32)
    one = np.float32(1.0)
    for row in prange(rows):
        total, highest = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
        for segment in range(segments):
            per_count, level = one / gain[segment], dark[segment]
            for column in range(columns):
                old, now = mean[segment, row, column], new[segment, row, column]
                weight = held[row, column] * noise[row, column]
                electrons = ((weight * old + now) / (weight + one) - level) * per_count
                total[column] += ((now - old) * per_count) ** 2 / max(electrons, one)
                highest[column] = max(highest[column], max(old, now))
        for column in range(columns):
            if held[row, column] > 0.0 and highest[column] < ceiling:
                unlike[row, column] = total[column] / ((one / held[row, column] + noise[row, column]) * segments)
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
                value = min(max(value, np.float32(0.0)) + np.float32(0.5), ceiling - np.float32(1.0))
            counts[segment, row, column] = np.uint16(value)
    return counts


@njit(nogil=True, cache=True, parallel=True, fastmath=True)
def block_sums(images, used, size):  # type: ignore[no-untyped-def]
    """(S, H // size, W // size) float64 sums over the pixels of each block, weighted by `used` (H, W) float32."""
    segments, rows, columns = len(images), used.shape[0] // size, used.shape[1] // size
    sums = np.zeros((segments, rows, columns))
    for line in prange(segments * rows):
        segment, block_row = line // rows, line % rows
        for row in range(block_row * size, (block_row + 1) * size):
            for block in range(columns):
                total = np.float32(0.0)
                for column in range(block * size, (block + 1) * size):
                    total += images[segment, row, column] * used[row, column]
                sums[segment, block_row, block] += total
    return sums


@njit(nogil=True, cache=True, parallel=True)
def brighten(mean, ratios, dark, ceiling):  # type: ignore[no-untyped-def]
    """Scale what lies above the dark level of each segment, in place; saturated pixels stay so."""
    segments, rows, columns = mean.shape
    for line in prange(segments * rows):
        segment, row = line // rows, line % rows
        for column in range(columns):
            value = mean[segment, row, column]
            if value < ceiling:
                mean[segment, row, column] = dark[segment] + ratios[segment] * (value - dark[segment])
