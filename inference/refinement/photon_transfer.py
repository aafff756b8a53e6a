"""Counts per electron from how the noise of still frames grows with the signal; dark levels from beam-blanked frames.

J. Janesick, Photon Transfer (SPIE, 2007), chapter 5: a signal of e electrons at gain g has the variance g² e + read².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from acquisition.errors import BadInput

SATURATED_COUNTS = 65535
ROUNDING_VARIANCE = 1.0 / 12.0
BLOCKS = 6
SMALLEST_PX = 4 * BLOCKS
SMOOTHED_PX = 5
# A contrast of the frame below this leaves the line through variance and mean without a slope.
LEAST_CONTRAST = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DarkLevels:
    """Per segment, each (S,) in counts: the level without electrons, its standard error, and the noise of a pixel."""

    dark_counts: Floats
    dark_sigma_counts: Floats
    read_noise_counts: Floats


@dataclass(frozen=True, slots=True)
class PhotonTransfer:
    """Per segment, each (S,): counts per electron with its standard error; `noise_correlation`, of a pixel's noise
    with that of the pixel before it, which a preamplifier's lag makes and which is taken out of the gain."""

    gain_counts_per_electron: Floats
    gain_sigma: Floats
    noise_correlation: Floats


def dark_levels(frames: Sequence[NDArray[np.uint16]]) -> DarkLevels:
    """From beam-blanked `frames`, each (S, H, W).

    With two frames or more the standard error is that between frames where it exceeds what pixels alone would give:
    levels wander. Raises `BadInput` without frames and for frames in which the beam was on (noise that grows with the
    image's brightness would pass for a dark level; a structure does not).
    """
    stack = _stack(frames)
    count, segments = stack.shape[:2]
    per_frame = stack.mean(axis=(2, 3))
    read = np.sqrt(np.maximum(stack.var(axis=(2, 3)).mean(axis=0) - ROUNDING_VARIANCE, 0.0))
    shown = uniform_filter(stack.mean(axis=0), (0, SMOOTHED_PX, SMOOTHED_PX)).std(axis=(1, 2))
    expected = np.sqrt(read**2 + ROUNDING_VARIANCE) / (SMOOTHED_PX * np.sqrt(count))
    for segment in range(segments):
        if shown[segment] > 3.0 * expected[segment] + 0.5:
            raise BadInput(
                f"segment {segment} of the dark frames shows a structure of {shown[segment]:.2g} counts, where noise "
                f"leaves {expected[segment]:.2g}: blank the beam while they are taken"
            )
    by_pixels = np.sqrt((read**2 + ROUNDING_VARIANCE) / stack[:, 0].size)
    between = per_frame.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.zeros(segments)
    return DarkLevels(per_frame.mean(axis=0), np.maximum(by_pixels, between), read)


def photon_transfer(frames: Sequence[NDArray[np.uint16]], dark: DarkLevels | None = None) -> PhotonTransfer:
    """From two or more `frames` (S, H, W) of one still scene, in the order they were taken.

    Half the variance of the difference of consecutive frames, over the mean signal. What a drift between the two puts
    into the difference (the image's gradients, its brightness) is fitted and taken out first, and the noise that goes
    with it given back. With `dark` the line through variance and mean starts at the known dark level and read noise;
    without, its slope alone is the gain, which needs a frame of some contrast. Standard errors by a jackknife over 36
    parts of the frame.
    Raises `BadInput` for a single frame, small or saturated frames and, without `dark`, too little contrast.
    """
    stack = _stack(frames)
    if len(stack) < 2:
        raise BadInput("photon transfer takes the difference of two frames: give a run of two or more of a still scene")
    if min(stack.shape[2:]) < SMALLEST_PX:
        raise BadInput(f"frames of {stack.shape[2:]} pixels are too small: give {SMALLEST_PX} x {SMALLEST_PX} or more")
    found = [_of_segment(stack[:, segment], dark, segment) for segment in range(stack.shape[1])]
    gains, sigmas, correlations = np.array(found).T
    return PhotonTransfer(gains, sigmas, correlations)


def _of_segment(stack: Floats, dark: DarkLevels | None, segment: int) -> tuple[float, float, float]:
    sums = np.zeros((BLOCKS**2, 7))
    for first, second in pairwise(stack):
        lit = np.maximum(first, second) < SATURATED_COUNTS
        mean = 0.5 * (first + second)
        squared, beside = _noise_of(second - first, mean, lit)
        signal = uniform_filter(mean, SMOOTHED_PX)
        level = 0.0 if dark is None else float(dark.dark_counts[segment])
        floor = ROUNDING_VARIANCE + (0.0 if dark is None else float(dark.read_noise_counts[segment]) ** 2)
        variance, above = 0.5 * squared - floor, signal - level
        parts = (np.ones_like(mean), above, variance, above**2, above * variance, squared, beside)
        sums += np.stack([_by_block(part * lit) for part in parts], axis=1)
    total = sums.sum(axis=0)
    if total[0] < 0.1 * stack[0].size:
        raise BadInput(f"segment {segment} is saturated nearly everywhere: lower its gain or the dwell time")
    if dark is None:
        contrast = np.sqrt(max(total[3] / total[0] - (total[1] / total[0]) ** 2, 0.0)) / max(total[1] / total[0], 1.0)
        if contrast < LEAST_CONTRAST:
            raise BadInput(
                f"segment {segment} has a contrast of {contrast:.2g}, too little to tell gain from dark level (at "
                f"least {LEAST_CONTRAST}): add beam-blanked frames (--dark), or take frames of a rougher place"
            )
    gain_of = _through_dark if dark is not None else _by_slope
    gain, gain_sigma = _jackknifed(sums, gain_of)
    correlation, _ = _jackknifed(sums, lambda s: float(s[6] / max(s[5], 1e-12)))
    return gain, gain_sigma, correlation


def _through_dark(sums: Floats) -> float:
    return float(sums[2] / max(sums[1], 1e-12)) * _lag_factor(sums)


def _by_slope(sums: Floats) -> float:
    count, x, y, xx, xy = sums[:5]
    return float((count * xy - x * y) / max(count * xx - x * x, 1e-12)) * _lag_factor(sums)


def _lag_factor(sums: Floats) -> float:
    """A first-order lag of correlation a leaves (1 - a) / (1 + a) of the variance."""
    correlation = float(np.clip(sums[6] / max(sums[5], 1e-12), -0.5, 0.9))
    return (1.0 + correlation) / (1.0 - correlation)


def _jackknifed(sums: Floats, figure: Callable[[Floats], float]) -> tuple[float, float]:
    total = sums.sum(axis=0)
    without = np.array([figure(total - part) for part in sums])
    count = len(sums)
    return figure(total), float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def _noise_of(difference: Floats, mean: Floats, lit: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """(H, W) each: the squared noise of `difference` and its product with that of the pixel before, without drift.

    The fit of the drift follows the noise too and takes its own share of both, which is given back: of variance s², a
    projection P leaves s² (1 - P), on and beside the diagonal. Four numbers out of 48 x 48 pixels would lower the gain
    by 0.5 %, of every segment alike.
    """
    smooth = uniform_filter(mean, 3)
    along_y, along_x = np.gradient(smooth)
    design = np.stack([np.ones_like(mean), smooth, along_x, along_y], axis=-1) * lit[..., None]
    followed = np.linalg.qr(design.reshape(mean.size, -1))[0]
    drift = (followed @ (followed.T @ (difference * lit).ravel())).reshape(mean.shape)
    noise = (difference - drift) * lit
    variance = (noise**2).sum() / max(lit.sum() - followed.shape[1], 1)
    followed = followed.reshape(*mean.shape, -1)
    beside = np.zeros_like(noise)
    beside[:, 1:] = noise[:, 1:] * noise[:, :-1] + variance * (followed[:, 1:] * followed[:, :-1]).sum(axis=-1)
    return noise**2 + variance * (followed**2).sum(axis=-1), beside


def _by_block(values: Floats) -> Floats:
    rows, columns = (BLOCKS * (size // BLOCKS) for size in values.shape)
    inside = values[:rows, :columns].reshape(BLOCKS, rows // BLOCKS, BLOCKS, columns // BLOCKS)
    return np.asarray(inside.sum(axis=(1, 3)).ravel())


def _stack(frames: Sequence[NDArray[np.uint16]]) -> Floats:
    """(N, S, H, W) float64."""
    if not frames:
        raise BadInput("there are no frames to calibrate on")
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1 or frames[0].ndim != 3:
        raise BadInput(f"frames of shapes {sorted(shapes)}: all must be (S, H, W) and alike")
    return np.stack(frames).astype(np.float64)
