"""What is resolved: Fourier ring correlation of two independent frames of a still scene, and height against truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap

LEAST_PX = 32
FIXED_THRESHOLD = 1.0 / 7.0
INDEPENDENT = 2.0 / 3.0
"""Share of a ring's values that stay independent under a Hann window along both axes."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rings:
    """By spatial frequency `frequency_per_m` (n,), middles of rings one frequency step wide: the `correlation` (n,) and
    the `half_bit` threshold (n,). `half_bit_m` and `fixed_m`: one over the frequency at which the correlation first
    falls under the half-bit threshold and under 0.143; NaN where it never does (finer than the pixels show) or never
    was above. `nyquist_m`: the finest that the pixels could show."""

    frequency_per_m: Floats
    correlation: Floats
    half_bit: Floats
    half_bit_m: float
    fixed_m: float
    nyquist_m: float


def ring_correlation(
    first: NDArray[np.floating], second: NDArray[np.floating], pixel_m: float, pixel_y_m: float | None = None
) -> Rings:
    """Fourier ring correlation (van Heel and Schatz 2005) of two pictures (H, W) of the same place, taken and processed
    apart: heights or images; what is shared by both but not of the specimen, such as a scan's fixed pattern or a prior
    that both were made with, counts as resolved. Raises `BadInput` for other shapes or under 32 x 32 pixels."""
    if first.shape != second.shape or first.ndim != 2 or min(first.shape) < LEAST_PX:
        raise BadInput(
            f"pictures of {first.shape} and {second.shape} pixels: ring correlation needs two of the same size, "
            f"{LEAST_PX} x {LEAST_PX} or more"
        )
    a, b = _spectrum(first), _spectrum(second)
    number, frequency, inside = _rings(first.shape, pixel_m, pixel_y_m)
    cross = np.bincount(number[inside], np.real(a * np.conj(b))[inside])
    power = [np.bincount(number[inside], (np.abs(one) ** 2)[inside]) for one in (a, b)]
    # Half of a real picture's spectrum repeats the other half.
    root = np.sqrt(np.maximum(np.bincount(number[inside]) * 0.5 * INDEPENDENT, 1.0))
    correlation = cross / np.maximum(np.sqrt(power[0] * power[1]), 1e-300)
    half_bit = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    fixed = np.full(len(correlation), FIXED_THRESHOLD)
    return Rings(
        frequency_per_m=frequency[1:],
        correlation=np.asarray(correlation[1:]),
        half_bit=np.asarray(half_bit[1:]),
        half_bit_m=_crossing(frequency[1:], correlation[1:], half_bit[1:]),
        fixed_m=_crossing(frequency[1:], correlation[1:], fixed[1:]),
        nyquist_m=2.0 * max(pixel_m, pixel_y_m or pixel_m),
    )


@dataclass(frozen=True, slots=True)
class Transfer:
    """How much of the true height is found by spatial frequency: `gain` (n,), 1 where all of it; `coherence` (n,), the
    share of the found height's power that is the truth's. `half_m`: one over the frequency at which the gain first
    falls under a half, NaN where it does not."""

    frequency_per_m: Floats
    gain: Floats
    coherence: Floats
    half_m: float


def transfer(found: HeightMap, truth: HeightMap) -> Transfer:
    """The transfer function of height against known truth, both levelled. Raises `BadInput` where the two maps do not
    lie on the same pixels."""
    same = found.height_m.shape == truth.height_m.shape and math.isclose(
        found.pixel_size_m, truth.pixel_size_m, rel_tol=1e-6
    )
    if not same or min(found.height_m.shape) < LEAST_PX:
        raise BadInput(
            f"a height of {found.height_m.shape} pixels of {found.pixel_size_m:g} m against a truth of "
            f"{truth.height_m.shape} of {truth.pixel_size_m:g} m: they must lie on the same {LEAST_PX} x {LEAST_PX} "
            "pixels or more"
        )
    a, b = _spectrum(found.level().height_m), _spectrum(truth.level().height_m)
    number, frequency, inside = _rings(found.height_m.shape, found.pixel_size_m, found.pixel_size_y_m)
    cross = np.bincount(number[inside], np.real(a * np.conj(b))[inside])
    power_a, power_b = (np.bincount(number[inside], (np.abs(one) ** 2)[inside]) for one in (a, b))
    gain = cross / np.maximum(power_b, 1e-300)
    coherence = np.maximum(cross, 0.0) ** 2 / np.maximum(power_a * power_b, 1e-300)
    half = np.full(len(gain), 0.5)
    return Transfer(frequency[1:], gain[1:], coherence[1:], _crossing(frequency[1:], gain[1:], half[1:]))


def _spectrum(picture: NDArray[np.floating]) -> NDArray[np.complex128]:
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in picture.shape))
    level = np.asarray(picture, np.float64)
    level = level - np.sum(level * window) / window.sum()
    return np.asarray(np.fft.fft2(level * window))


def _rings(
    shape: tuple[int, ...], pixel_m: float, pixel_y_m: float | None
) -> tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """The ring of each frequency, the rings' frequencies, and which lie within the coarser axis's limit."""
    pixels = (pixel_y_m or pixel_m, pixel_m)
    down, right = (np.fft.fftfreq(size, pixel) for size, pixel in zip(shape, pixels, strict=True))
    radius = np.hypot(down[:, None], right)
    step = max(1.0 / (size * pixel) for size, pixel in zip(shape, pixels, strict=True))
    number = np.rint(radius / step).astype(np.int64)
    last = int(0.5 / max(pixels) / step)
    return number, step * np.arange(last + 1, dtype=np.float64), number <= last


def _crossing(frequency_per_m: Floats, curve: Floats, threshold: Floats) -> float:
    """One over the frequency where the curve, taken over three rings, first falls under the threshold for good enough:
    this ring and the next."""
    smooth = np.convolve(np.pad(curve, 1, mode="edge"), np.full(3, 1.0 / 3.0), mode="valid")
    above = smooth - threshold
    if above[0] <= 0.0:
        return math.nan
    for ring in range(1, len(above) - 1):
        if above[ring] < 0.0 and above[ring + 1] < 0.0:
            share = above[ring - 1] / (above[ring - 1] - above[ring])
            return float(1.0 / (frequency_per_m[ring - 1] + share * np.diff(frequency_per_m)[ring - 1]))
    return math.nan
