"""What all surface families draw with: turned axes, noise of a given spectrum, scattered cells, stairs, slopes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Heights = NDArray[np.float32]
Indices = NDArray[np.intp]

LEAST_RMS_DEG, STEEPEST_RMS_DEG = 0.1, 60.0
NOISE_FIELD = 1.25


@dataclass(frozen=True, slots=True)
class Canvas:
    """A square of `size_px` to draw on, the lateral scale to draw at (a cell, a terrace, a period), and the chance."""

    size_px: int
    scale_px: float
    finest_px: float
    rng: np.random.Generator

    def log_uniform(self, low: float, high: float) -> float:
        return float(np.exp(self.rng.uniform(math.log(low), math.log(high))))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def slope(self, low_deg: float = LEAST_RMS_DEG, high_deg: float = STEEPEST_RMS_DEG) -> float:
        """Tangent of an angle drawn log-uniformly."""
        return math.tan(math.radians(self.log_uniform(low_deg, high_deg)))

    def axes(self, wander_px: float = 0.0, wander_length_px: float = 40.0) -> tuple[Heights, Heights]:
        """(H, W) coordinates in pixels from the middle, turned at random, bent smoothly by about `wander_px`."""
        angle = self.rng.uniform(0.0, 2.0 * math.pi)
        cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        along = np.arange(self.size_px, dtype=np.float32) - np.float32(0.5 * (self.size_px - 1))
        u, v = along * cosine - along[:, None] * sine, along * sine + along[:, None] * cosine
        if wander_px > 0:
            u += np.float32(wander_px) * self.noise(wander_length_px)
            v += np.float32(wander_px) * self.noise(wander_length_px)
        return u, v

    def noise(self, length_px: float) -> Heights:
        """Gaussian-correlated noise of unit deviation (over the ensemble), covariance exp(-r² / length²)."""
        return self.spectral(lambda frequency: np.exp(-0.5 * (math.pi * length_px * frequency) ** 2))

    def spectral(self, amplitude: Callable[[Heights], Heights]) -> Heights:
        """Unit-deviation noise whose spectrum has this amplitude over frequency in cycles per pixel.

        Cut from a larger periodic field, lest opposite edges of the frame continue each other.
        """
        side = scipy.fft.next_fast_len(math.ceil(NOISE_FIELD * self.size_px), real=True)
        filtered = amplitude(_frequencies(side))
        filtered[0, 0] = 0.0
        white = scipy.fft.rfft2(self.rng.standard_normal((side, side), dtype=np.float32))
        power = 2.0 * float(np.sum(filtered[:, 1:] ** 2)) + float(np.sum(filtered[:, 0] ** 2))
        field = scipy.fft.irfft2(white * filtered, s=(side, side))
        return np.asarray(field[: self.size_px, : self.size_px] * (side / math.sqrt(power + 1e-30)), np.float32)


@dataclass(frozen=True, slots=True)
class Cells:
    """One scattered centre in each square cell of a lattice. Tables of `count` numbers hold what each of them is."""

    count: int
    columns: int
    home: Indices
    u: Heights
    v: Heights
    centre_u: Heights
    centre_v: Heights

    def around(self) -> Iterator[tuple[Indices, Heights, Heights]]:
        """For the nine cells around every pixel: their index, and the pixel's place from their centre in cells.

        A shape reaching no further than one cell from its centre is seen wherever it lies.
        """
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                index = self.home + (down * self.columns + right)
                yield index, self.u - self.centre_u[index], self.v - self.centre_v[index]


def scatter(canvas: Canvas, axes: tuple[Heights, Heights], jitter: float = 1.0) -> Cells:
    """Cells of `canvas.scale_px`; `jitter` 0 puts centres on the lattice, 1 anywhere in their cells."""
    shift = canvas.rng.random(2, dtype=np.float32)
    u, v = (axis / np.float32(canvas.scale_px) + part for axis, part in zip(axes, shift, strict=True))
    column, row = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    first_column, first_row = int(column.min()) - 1, int(row.min()) - 1
    columns, rows = int(column.max()) - first_column + 2, int(row.max()) - first_row + 2
    place_v, place_u = np.divmod(np.arange(rows * columns), columns)
    wander = (canvas.rng.random((2, rows * columns)) - 0.5) * jitter + 0.5
    return Cells(
        count=rows * columns,
        columns=columns,
        home=(row - first_row) * columns + (column - first_column),
        u=u - np.float32(first_column),
        v=v - np.float32(first_row),
        centre_u=(place_u + wander[0]).astype(np.float32),
        centre_v=(place_v + wander[1]).astype(np.float32),
    )


def stairs(phase: Heights, riser: float) -> Heights:
    """Continuous stairs: 1 up per unit of phase, all of it within the share `riser` after each whole number."""
    whole = np.floor(phase)
    risen: Heights = whole + np.minimum((phase - whole) * np.float32(1.0 / riser), np.float32(1.0))
    return risen


def rms_slope(heights: NDArray[np.floating]) -> float:
    """Root mean square of the gradient's length, by forward differences, of heights in pixels."""
    along_x, along_y = np.diff(heights, axis=1), np.diff(heights, axis=0)
    return math.sqrt(float(np.mean(along_x**2, dtype=np.float64)) + float(np.mean(along_y**2, dtype=np.float64)))


def with_slope(heights: Heights, slope: float) -> Heights:
    """Scaled so that its rms slope is `slope`."""
    return heights * np.float32(slope / max(rms_slope(heights), 1e-12))


@lru_cache(maxsize=8)
def _frequencies(side: int) -> Heights:
    down, right = scipy.fft.fftfreq(side), scipy.fft.rfftfreq(side)
    return np.hypot(down[:, None], right).astype(np.float32)
