"""What a filter took from slopes, scale by scale, and a U-Net that gives back what of it was the surface's."""

from __future__ import annotations

from collections.abc import Sequence
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
MOST_GIVEN = 1.25


class Scales(NamedTuple):
    """`bands`: (B, 2, h, w) each, finest first, what a scale adds to the coarser ones; the last is all that is left.
    `told`: what a network should know of each, (B, 8, h, w), of order one; of the finest (B, 4, h, w), what isn't among
    the features of its pixels."""

    bands: list[Tensor]
    told: list[Tensor]


class ScaleNet(nn.Module):
    """What a filter has taken away, to what of it belonged to the surface.

    Noise falls from scale to scale as the surface doesn't, and edges, steps and shadows are at some places and not at
    others: of each band the network gives back a share (nothing when untrained) and adds something, level by level of
    the U-Net, which sees how far each band stands out of its noise.
    """

    def __init__(self, inputs: int, width: int, depth: int, blocks: int) -> None:
        super().__init__()
        self.body = Body(inputs + TOLD_FINEST, width, depth, blocks, TOLD)
        self.heads = nn.ModuleList(Mix(size, 4) for size in self.body.widths)
        self.leave = nn.ConvTranspose2d(width, 6, 4, stride=2, padding=1)
        for head in (*self.heads, self.leave):
            assert isinstance(head, Mix | nn.ConvTranspose2d)
            start_at_zero(head)

    def forward(
        self, features: Sequence[Tensor], taken: Tensor, slopes: Tensor, variances: Tensor, lit: Tensor, unit: Tensor
    ) -> tuple[Tensor, ...]:
        """Of the slopes at pixels that were `taken` away and those that were left, three of (B, 2, H, W): what is given
        back; what is to be added right of and below each pixel; the logarithm of a factor to the sigmas there. What is
        added is told in `unit`s (B, 1, 1, 1), what a slope may be off by: so a clean frame needs no smaller numbers."""
        bands, told = take_apart(taken, slopes, variances, lit, len(self.heads))
        levels = self.body([*features, told[0]], told[1:])
        found = torch.zeros_like(bands[-1])
        for level in reversed(range(len(levels))):
            head = self.heads[level](levels[level])
            found = found + _share(head[:, :2]) * bands[level + 1] + unit * head[:, 2:]
            found = finer(found, bands[level])
        head = inside(self.leave(levels[0]), taken)
        return found + _share(head[:, :2]) * bands[0], unit * head[:, 2:4], head[:, 4:]


def take_apart(taken: Tensor, slopes: Tensor, variances: Tensor, lit: Tensor, levels: int) -> Scales:
    """All (B, 2, H, W), `lit` (B, 1, H, W) 0 where they mean little: a Laplacian pyramid (P. Burt and E. Adelson, IEEE
    Trans. Commun. 31 (1983) 532) of what was `taken`, of means weighed by it. The grids are those of `Body`."""
    weight = lit.clamp_min(REJECTED_WEIGHT)
    bands: list[Tensor] = []
    told: list[Tensor] = []
    for _ in range(levels):
        total = coarser(weight)
        means = coarser(torch.cat([taken, slopes, variances], dim=1) * weight) / total.clamp_min(LEAST_WEIGHT)
        bands.append(taken - finer(means[:, :2], taken))
        told.append(_told(bands[-1], slopes, variances) if told else _outstanding(bands[-1], variances))
        taken, slopes, variances, weight = means[:, :2], means[:, 2:4], COARSER_VARIANCE * means[:, 4:], total
    return Scales([*bands, taken], [*told, _told(taken, slopes, variances)])


def coarser(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, H // 2 + 1, W // 2 + 1), nothing beyond the frame."""
    line, count = torch.tensor(BINOMIAL, dtype=maps.dtype), maps.shape[1]
    # As a full convolution, most of it zeros: the runtime's are so fast that a channel for itself takes three times as
    # long.
    kernel = torch.eye(count, dtype=maps.dtype)[:, :, None, None] * torch.outer(line, line)
    return functional.conv2d(maps, kernel, stride=2, padding=2)


def finer(maps: Tensor, like: Tensor) -> Tensor:
    """Of `coarser`'s grid, in between on that of `like`."""
    return inside(functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False), like)


def _told(band: Tensor, slopes: Tensor, variances: Tensor) -> Tensor:
    level = 0.2 * torch.log(variances + LEAST_VARIANCE)
    return torch.cat([_outstanding(band, variances), slopes.clamp(-STEEPEST, STEEPEST), level], dim=1)


def _outstanding(band: Tensor, variances: Tensor) -> Tensor:
    """(B, 4, h, w) how far a band stands out of its noise."""
    scaled = band * (variances + LEAST_VARIANCE).rsqrt()
    squared = scaled * scaled
    return torch.cat([scaled * (1.0 + squared / 16.0).rsqrt(), 0.5 * torch.log(1.0 + squared)], dim=1)


def _share(values: Tensor) -> Tensor:
    """None at 0, and at most a little more than all."""
    return MOST_GIVEN * torch.tanh(values)
