"""A Wiener filter that takes the surface's spectrum from the frame itself: where a network starts from."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from inference.networks.poisson import divergence, eigenvalues, folded_cosines, from_modes, slopes_of, to_modes

MODES_AROUND = 9, 15
FINE_FROM = 10
SUSPECTED = 1.15
LEAST_POWER = 1e-20
LEAST_PASSED = 1e-3
MOST_SHARPENED = 3.0
LEAST_LEFT = 1e-3


class Filtered(NamedTuple):
    """`p` (B, H, W - 1), `q` (B, H - 1, W): slopes of the filtered surface. `left` (B,): the part of the noise power
    of a surface's slopes that is still in them."""

    p: Tensor
    q: Tensor
    left: Tensor


def filtered(p: Tensor, q: Tensor, variance: Tensor, beam_sigma_px: Tensor, aspect: Tensor | float = 1.0) -> Filtered:
    """Slopes on the staggered grid, means of two pixels' each of which has the (B,) `variance`, without what is noise.

    N. Wiener's filter (Extrapolation, Interpolation, and Smoothing (1949)) over the cosine modes of the surface, whose
    power is measured as the mean of 9 x 9 modes around, of 15 x 15 where they are finer, so that gratings and terraces
    keep their direction; noise is assumed a little larger than it is, as any of it that stays would look like relief.
    Where hardly any noise is, what pixels, their means and the beam have weakened is strengthened again. No number here
    is learned.
    """
    rows, columns = p.shape[1], q.shape[2]
    along_y, along_x = folded_cosines(rows), folded_cosines(columns)
    across_x = eigenvalues(columns)[:, None]  # a row of modes is of one wavelength along x
    across_y = aspect * aspect * eigenvalues(rows)[None, :]
    eigen = across_x + across_y
    level = eigen <= 0.0
    safe = torch.where(level, 1.0, eigen)
    source = to_modes(divergence(p, q, aspect), along_y).transpose(1, 2)
    found = torch.where(level, 0.0, to_modes(source, along_x) / safe)

    # A mean of two neighbours weakens noise as it weakens the slope: by the cosine of half the phase between them.
    of_x, of_y = across_x * (1.0 - 0.25 * across_x), across_y * (1.0 - 0.25 * eigenvalues(rows)[None, :])
    noise = variance[:, None, None] * torch.where(level, 0.0, (of_x + of_y) / safe)
    power = _around(found * found * eigen)
    kept = (1.0 - SUSPECTED * noise / power.clamp_min(LEAST_POWER)).clamp_min(0.0)
    left = ((kept * noise).sum(dim=(1, 2)) / noise.sum(dim=(1, 2)).clamp_min(LEAST_POWER)).clamp(LEAST_LEFT, 1.0)

    phase_x, phase_y = (torch.arange(count).to(p.dtype) * (math.pi / count) for count in (columns, rows))
    slope = (torch.sin(phase_x) * phase_x)[:, None] + aspect * aspect * torch.sin(phase_y) * phase_y
    squares = (phase_x**2)[:, None] + aspect * aspect * phase_y**2
    passed = slope / safe * torch.exp(-0.5 * beam_sigma_px[:, None, None] ** 2 * squares)
    sharpened = (1.0 / passed.clamp_min(LEAST_PASSED)).clamp_max(MOST_SHARPENED) - 1.0
    sure = (kept * kept) * (kept * kept)
    modes = torch.where(level, 0.0, kept * (1.0 + sharpened * sure)) * found
    height = from_modes(from_modes(modes, along_x).transpose(1, 2), along_y)
    return Filtered(*slopes_of(height, aspect), left)


def _around(power: Tensor) -> Tensor:
    """Means over the modes around each, of those that are: few where power falls steeply."""
    rows, columns = (torch.arange(count).to(power.dtype) for count in power.shape[1:])
    from_coarsest = torch.sqrt(rows[:, None] ** 2 + columns**2)
    fine = (from_coarsest / FINE_FROM - 1.0).clamp(0.0, 1.0)
    few_lines, many_lines = _sums(power, 2)
    there_x, there_y = _sums(torch.ones_like(power[:, :1]), 2), _sums(torch.ones_like(power[:, :, :1]), 1)
    coarse_mean = _sums(few_lines, 1)[0] / there_x[0] / there_y[0]
    fine_mean = _sums(many_lines, 1)[1] / there_x[1] / there_y[1]
    return coarse_mean + fine * (fine_mean - coarse_mean)


def _sums(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Over the 9 and the 15 values around each along `axis`, nothing beyond the ends: as sums of threes, which a
    processor does ten times as fast as a pooling layer."""
    reach, count = MODES_AROUND[1] // 2, values.shape[axis]
    ends = (reach, reach) if axis == 2 else (0, 0, reach, reach)
    padded = functional.pad(values, ends)
    first, second, third = (padded.narrow(axis, step, count + 2 * reach - 2) for step in range(3))
    threes = first + second + third
    parts = [threes.narrow(axis, step, count) for step in range(0, 2 * reach, 3)]
    few = parts[1] + parts[2] + parts[3]
    return few, parts[0] + few + parts[4]
