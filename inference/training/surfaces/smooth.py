"""Surfaces without edges: roughness of a spectrum, hills, and next to nothing. Scaled to a drawn rms slope."""

from __future__ import annotations

import numpy as np

from inference.training.surfaces.canvas import Canvas, Heights, with_slope

HURST = (0.3, 0.9)
MOST_HILLS = 300


def gaussian(canvas: Canvas) -> Heights:
    """Gaussian-correlated roughness, its correlation length the scale."""
    return with_slope(canvas.noise(canvas.scale_px), canvas.slope())


def fractal(canvas: Canvas) -> Heights:
    """Self-affine roughness, Hurst exponent 0.3 to 0.9, from a roll-off at the scale to a cut-off near the finest."""
    hurst = canvas.rng.uniform(*HURST)
    roll_off = 1.0 / canvas.scale_px
    cut_off = 1.0 / (canvas.finest_px * canvas.log_uniform(1.0, 4.0))

    def amplitude(frequency: Heights) -> Heights:
        power_law: Heights = (frequency**2 + roll_off**2) ** (-0.5 * (1.0 + hurst))
        power_law *= np.exp(-((frequency / cut_off) ** 2))
        return power_law

    return with_slope(canvas.spectral(amplitude), canvas.slope())


def hills(canvas: Canvas) -> Heights:
    """A sum of round bumps, most of them up, of widths around the scale: each the product of a column and a row."""
    size, rng = canvas.size_px, canvas.rng
    count = int(np.clip(rng.uniform(0.3, 2.0) * (size / canvas.scale_px) ** 2, 2, MOST_HILLS))
    width = np.clip(canvas.scale_px * np.exp(rng.normal(0.0, 0.5, count)), canvas.finest_px, size) / 2.0
    place = rng.uniform(-0.1 * size, 1.1 * size, (2, count))
    rise = rng.exponential(1.0, count) * np.where(rng.random(count) < rng.uniform(0.5, 1.0), 1.0, -1.0)
    along = np.arange(size)[:, None]
    down, right = np.exp(-0.5 * ((along - place[:, None]) / width) ** 2).astype(np.float32)
    summed: Heights = (down * (rise * width).astype(np.float32)) @ right.T
    return with_slope(summed, canvas.slope())


def flat(canvas: Canvas) -> Heights:
    """Nearly nothing: level, or with a trace of roughness or a single scratch."""
    kind = canvas.rng.integers(3)
    if kind == 0:
        return np.zeros((canvas.size_px, canvas.size_px), np.float32)
    if kind == 1:
        return with_slope(canvas.noise(canvas.scale_px), canvas.slope(0.003, 0.1))
    u, _ = canvas.axes(2.0, canvas.size_px)
    width = canvas.finest_px * canvas.rng.uniform(0.5, 2.0)
    depth = width * canvas.slope(0.3, 10.0)
    off = canvas.rng.uniform(-0.3, 0.3) * canvas.size_px
    return np.asarray(-depth * np.exp(-0.5 * ((u - off) / width) ** 2), np.float32)
