"""How far the surface lies from where it lay: the likeliest shift of one noisy picture against another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
from numba import njit, prange
from numpy.typing import NDArray

from inference.calibration import Calibration

SAMPLE_STEP = 4
MOST_PX = 512
TAPER = 0.25
COARSEST_CYCLES = 2
SMOOTHED_BINS = 5
NOISE_MARGIN = 1.3
LEAST_EVIDENCE = 6.0
MOST_ERROR_PX = 0.5
USUAL_DRIFT = 1.0 / 16.0
ROUNDS = 3
STEPS = 8

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Spectra = NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class Look:
    """How counts are compared: less `level` (S,), times `scale` (S,), which gives all segments about the same noise;
    what reaches `ceiling` says nothing and is taken for the level."""

    level: Floats
    scale: Floats
    ceiling: np.float32


@dataclass(frozen=True, slots=True)
class Shift:
    """`shift_px` (2,): rows and columns by which the new picture's content lies further down and right. `error_px`
    (2,): its standard deviations. `evidence`: the correlation's peak over its scatter if nothing were in common.
    Not `trusted`, it is zero and means nothing."""

    shift_px: Doubles
    error_px: Doubles
    evidence: float
    trusted: bool


UNKNOWN = Shift(np.zeros(2), np.full(2, np.inf), 0.0, False)


def look_at(images: NDArray[Any], calibration: Calibration) -> Look:
    """Compares electrons over the root of each segment's median, so that the noise of one frame is about 1."""
    gain, dark = calibration.gain_counts_per_electron, calibration.dark_counts
    level = np.median(images[:, ::SAMPLE_STEP, ::SAMPLE_STEP], axis=(1, 2)).astype(np.float32)
    scale = 1.0 / (gain * np.sqrt(np.maximum((level - dark) / gain, np.float32(1.0))))
    return Look(level, scale, calibration.saturation_counts)


def find_shift(
    kept: NDArray[Any],
    kept_noise: float,
    new: NDArray[Any],
    new_noise: float,
    look: Look,
    guess_px: tuple[int, int] = (0, 0),
) -> Shift:
    """The shift of `new` against `kept`, both (S, H, W) counts; `kept_noise` and `new_noise` are the variances of a
    pixel looked at as `look` says.

    Correlates all segments with the weights of maximum likelihood, S / (S (A + B) + A B) at each frequency, with S
    the texture and A and B the noise (Knapp and Carter 1976): they pass the band in which texture stands above noise
    and make the correlation a log-likelihood, so that its curvature is the error and a usual drift can be weighed
    in, which decides between the equal peaks of a periodic surface. Only what both pictures show is compared, around
    the last guess; a direction without texture is left unmoved.
    """
    found = UNKNOWN
    for _ in range(ROUNDS):
        mine, theirs = overlap(kept.shape[1:], guess_px)
        if min(part.stop - part.start for part in mine) < 4 * COARSEST_CYCLES:
            return UNKNOWN
        parts = kept[:, mine[0], mine[1]], new[:, theirs[0], theirs[1]]
        found = _shift(*parts, kept_noise, new_noise, look)
        if not found.trusted:
            break
        total = found.shift_px + guess_px
        found = Shift(total, found.error_px, found.evidence, True)
        nearest = (round(float(total[0])), round(float(total[1])))
        if nearest == guess_px:
            break
        guess_px = nearest
    return found


def overlap(shape: tuple[int, ...], shift_px: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """What two frames share when the second shows the same places `shift_px` further: in the first, in the second."""
    first, second = [], []
    for size, shift in zip(shape, shift_px, strict=True):
        part = max(size - abs(shift), 0)
        first.append(slice(max(-shift, 0), max(-shift, 0) + part))
        second.append(slice(max(shift, 0), max(shift, 0) + part))
    return (first[0], first[1]), (second[0], second[1])


def _shift(kept: NDArray[Any], new: NDArray[Any], kept_noise: float, new_noise: float, look: Look) -> Shift:
    binned = -(-max(kept.shape[1:]) // MOST_PX)
    shape = tuple(scipy.fft.prev_fast_len(size // binned, real=True) for size in kept.shape[1:])
    window = np.outer(*(_taper(size) for size in shape)).astype(np.float32)
    power = float(np.sum(window**2)) / binned**2
    a, b = (_spectra(images, look, binned, window) for images in (kept, new))
    noise_a, noise_b = kept_noise * power, new_noise * power
    weights, cross = _likelihood(a, noise_a, b, noise_b)
    # Of a half spectrum, the columns between the first and the last stand for their mirror images too.
    twice = np.full(cross.shape[1], 2.0, np.float32)
    twice[0] = 1.0
    if shape[1] % 2 == 0:
        twice[-1] = 1.0
    weighted = cross * weights * twice
    scatter = np.sqrt(float(np.sum(twice * weights**2 * (np.abs(a) ** 2).sum(axis=0)) * noise_b))
    if scatter <= 0.0:
        return UNKNOWN
    usual_px = [USUAL_DRIFT * size for size in shape]
    start = _highest(cross * weights, shape, usual_px)
    peak, shift, curvature = _climb(weighted, shape, start, usual_px)
    evidence = peak / scatter
    sharpness, axes = np.linalg.eigh(curvature)
    errors = np.where(sharpness > 0, 1.0 / np.sqrt(np.maximum(sharpness, 1e-12)), np.inf) * binned
    told = errors < MOST_ERROR_PX
    if evidence < LEAST_EVIDENCE or not told.any():
        return Shift(np.zeros(2), np.full(2, np.inf), evidence, False)
    moved = axes @ (told * (axes.T @ shift)) * binned
    return Shift(moved, np.sqrt((axes**2) @ np.where(told, errors, 0.0) ** 2), evidence, True)


def _taper(size: int) -> Doubles:
    """Cosine flanks over an eighth of the size at each end."""
    ramp = (np.arange(size) + 0.5) / (0.5 * TAPER * size)
    rise = 0.5 - 0.5 * np.cos(np.pi * np.minimum(ramp, 1.0))
    return np.asarray(rise * rise[::-1], np.float64)


def _fading(size: int) -> float:
    """Curvature of the taper's autocorrelation at its peak, over the peak."""
    taper = _taper(size)
    return float(np.sum(np.diff(taper) ** 2) / np.sum(taper**2))


def _spectra(images: NDArray[Any], look: Look, binned: int, window: Floats) -> Spectra:
    small = _binned(images, look.level, look.scale, look.ceiling, binned, *window.shape)
    small -= np.einsum("shw,hw->s", small, window)[:, None, None] / window.sum()
    found: Spectra = scipy.fft.rfft2(small * window, workers=-1)
    return found


@njit(nogil=True, cache=True, parallel=True)
def _binned(images, levels, scale, ceiling, size, rows, columns):  # type: ignore[no-untyped-def]
    """(S, rows, columns) float32: means over size x size pixels, less level, times scale."""
    segments = len(images)
    means = np.empty((segments, rows, columns), np.float32)
    for line in prange(segments * rows):
        segment, row = line // rows, line % rows
        level = levels[segment]
        factor = scale[segment] / np.float32(size * size)
        for column in range(columns):
            total = np.float32(0.0)
            for source in range(row * size, (row + 1) * size):
                for place in range(column * size, (column + 1) * size):
                    value = np.float32(images[segment, source, place])
                    if value < ceiling:
                        total += value - level
            means[segment, row, column] = total * factor
    return means


def _likelihood(a: Spectra, noise_a: float, b: Spectra, noise_b: float) -> tuple[Floats, Spectra]:
    """Weights (H, W // 2 + 1) and the cross spectrum summed over segments."""
    seen = 0.5 * (np.mean(np.abs(a) ** 2, axis=0) + np.mean(np.abs(b) ** 2, axis=0))
    seen = scipy.ndimage.uniform_filter(seen, SMOOTHED_BINS, mode=("wrap", "nearest"))
    noise = 0.5 * (noise_a + noise_b)
    texture = np.where(seen > NOISE_MARGIN * noise, seen - noise, 0.0).astype(np.float32)
    weights = texture / np.maximum(texture * (noise_a + noise_b) + noise_a * noise_b, 1e-30)
    weights[:COARSEST_CYCLES, :COARSEST_CYCLES] = 0.0
    weights[1 - COARSEST_CYCLES :, :COARSEST_CYCLES] = 0.0
    return weights, np.sum(np.conj(a) * b, axis=0)


def _highest(weighted: Spectra, shape: tuple[int, ...], usual_px: list[float]) -> Doubles:
    """The whole-pixel shift of the highest correlation, less what a drift so large costs."""
    surface = scipy.fft.irfft2(weighted, s=shape, workers=-1) * float(np.prod(shape))
    lags = [scipy.fft.fftfreq(size, 1.0 / size) for size in shape]
    surface -= 0.5 * (lags[0] / usual_px[0])[:, None] ** 2 + 0.5 * (lags[1] / usual_px[1]) ** 2
    row, column = np.unravel_index(np.argmax(surface), surface.shape)
    return np.array([lags[0][row], lags[1][column]])


def _climb(
    weighted: Spectra, shape: tuple[int, ...], start: Doubles, usual_px: list[float]
) -> tuple[float, Doubles, Doubles]:
    """Newton's steps from a whole-pixel maximum: the correlation there, the shift, and the curvature (2, 2)."""
    rows = 2j * np.pi * scipy.fft.fftfreq(shape[0])
    columns = 2j * np.pi * scipy.fft.rfftfreq(shape[1])
    usual = np.diag([drift_px**-2.0 for drift_px in usual_px])
    # Both pictures fade in the same window, which draws the peak towards no shift: its part is taken off again.
    fading = np.diag([_fading(size) for size in shape])
    shift, peak, curvature = start.copy(), 0.0, usual
    for _ in range(STEPS):
        down = (rows ** np.arange(3)[:, None] * np.exp(rows * shift[0])).astype(np.complex64)
        across = (columns ** np.arange(3)[:, None] * np.exp(columns * shift[1])).astype(np.complex64)
        moments = np.real(down @ weighted @ across.T)
        peak = float(moments[0, 0])
        prior = usual - peak * fading
        curvature = prior - np.array([[moments[2, 0], moments[1, 1]], [moments[1, 1], moments[0, 2]]])
        slope = np.array([moments[1, 0], moments[0, 1]]) - prior @ shift
        if np.linalg.eigvalsh(curvature)[0] <= 0.0:
            break
        step = np.clip(np.linalg.solve(curvature, slope), -0.5, 0.5)
        shift = np.clip(shift + step, start - 1.0, start + 1.0)
        if np.abs(step).max() < 1e-3:
            break
    return peak, shift, curvature
