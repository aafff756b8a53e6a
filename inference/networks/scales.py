"""Slopes taken apart by scale, and a U-Net that says how much of each scale to believe at each place."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.networks.unet import Body, Mix, inside, start_at_zero

BINOMIAL = (0.125, 0.375, 0.375, 0.125)
COARSER_VARIANCE = 0.25
REJECTED_WEIGHT = 0.01
LEAST_WEIGHT = 1e-4
LEAST_VARIANCE = 1e-8
TOLD_FINEST, TOLD = 4, 8
STEEPEST = 3.0
MOST_KEPT = 1.25
WHOLE = math.log(1.0 / (MOST_KEPT - 1.0))


class Scales(NamedTuple):
    """`bands`: (B, 2, h, w) each, finest first, what a scale adds to the coarser ones; the last is all that is left.
    `told`: what a network should know of each, (B, 8, h, w), of order one."""

    bands: list[Tensor]
    told: list[Tensor]


class ScaleNet(nn.Module):
    """Features and classical slopes to better slopes: an adaptive Wiener filter, learned.

    Noise falls from scale to scale as the surface doesn't, so what is best to believe of a scale depends on dose,
    steepness and place. A share of each band is kept (all of it when untrained) and something is added, level by level
    of the U-Net, which sees how far each band stands out of its noise. A network that only adds would have to learn
    the slopes first in order to take their noise away.
    """

    def __init__(self, inputs: int, width: int, depth: int, blocks: int) -> None:
        super().__init__()
        self.body = Body(inputs + TOLD_FINEST, width, depth, blocks, TOLD)
        self.heads = nn.ModuleList(Mix(size, 4) for size in self.body.widths)
        self.leave = nn.ConvTranspose2d(width, 6, 4, stride=2, padding=1)
        for head in (*self.heads, self.leave):
            assert isinstance(head, Mix | nn.ConvTranspose2d)
            start_at_zero(head)

    def forward(self, features: Tensor, slopes: Tensor, variances: Tensor, lit: Tensor) -> tuple[Tensor, ...]:
        """Three of (B, 2, H, W): slopes at pixels; what is to be added right of and below each; and the logarithm of
        how much larger their sigmas are than the classical ones."""
        bands, told = take_apart(slopes, variances, lit, len(self.heads))
        levels = self.body(torch.cat([features, told[0][:, :TOLD_FINEST]], dim=1), told[1:])
        found = torch.zeros_like(bands[-1])
        for level in reversed(range(len(levels))):
            head = self.heads[level](levels[level])
            found = found + _kept(head[:, :2]) * bands[level + 1] + head[:, 2:]
            found = finer(found, bands[level])
        head = inside(self.leave(levels[0]), slopes)
        return found + _kept(head[:, :2]) * bands[0], head[:, 2:4], head[:, 4:]


def take_apart(slopes: Tensor, variances: Tensor, lit: Tensor, levels: int) -> Scales:
    """`slopes`, `variances` (B, 2, H, W), `lit` (B, 1, H, W) 0 where slopes mean little: a Laplacian pyramid (P. Burt
    and E. Adelson, IEEE Trans. Commun. 31 (1983) 532) of means weighed by it. The grids are those of `Body`."""
    weight = lit.clamp_min(REJECTED_WEIGHT)
    bands, told = [], []
    for _ in range(levels):
        total = coarser(weight)
        safe = total.clamp_min(LEAST_WEIGHT)
        means = coarser(slopes * weight) / safe
        bands.append(slopes - finer(means, slopes))
        told.append(_told(bands[-1], slopes, variances))
        slopes, variances, weight = means, COARSER_VARIANCE * coarser(variances * weight) / safe, total
    return Scales([*bands, slopes], [*told, _told(slopes, slopes, variances)])


def coarser(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, H // 2 + 1, W // 2 + 1), nothing beyond the frame."""
    line = torch.tensor(BINOMIAL, dtype=maps.dtype)
    flat = maps.reshape(-1, 1, *maps.shape[2:])
    found = functional.conv2d(flat, torch.outer(line, line)[None, None], stride=2, padding=2)
    return found.reshape(*maps.shape[:2], *found.shape[2:])


def finer(maps: Tensor, like: Tensor) -> Tensor:
    """Of `coarser`'s grid, in between on that of `like`."""
    return inside(functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False), like)


def _told(band: Tensor, slopes: Tensor, variances: Tensor) -> Tensor:
    variances = variances + LEAST_VARIANCE
    scaled = band * variances.rsqrt()
    squared = scaled * scaled
    outstanding = scaled * (1.0 + squared / 16.0).rsqrt(), 0.5 * torch.log(1.0 + squared)
    return torch.cat([*outstanding, slopes.clamp(-STEEPEST, STEEPEST), 0.2 * torch.log(variances)], dim=1)


def _kept(share: Tensor) -> Tensor:
    """From 0 to a little more than all, which undoes blur; all of it at 0."""
    return MOST_KEPT * torch.sigmoid(share + WHOLE)
