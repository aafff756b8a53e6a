"""The slope network: what classical inversion leaves, learned from neighbours, with its uncertainty."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.networks.moments import BEAM, FEATURES, LIT, Moments, moments
from inference.networks.scales import ScaleNet
from inference.networks.wiener import Filtered, filtered

LEAST_SIGMA = 1e-4
MOST_SIGMA = 10.0
GUESSED_SIGMA = 0.5
MORE_FEATURES = 3
STEEPEST = 3.0


class Slopes(NamedTuple):
    """On the staggered grid: `p`, `sigma_p` (B, H, W - 1), `q`, `sigma_q` (B, H - 1, W); `rejected` (B, H, W) bool."""

    p: Tensor
    q: Tensor
    sigma_p: Tensor
    sigma_q: Tensor
    rejected: Tensor


class SlopeNet(nn.Module):
    """Images to slopes between neighbouring pixels and their standard deviations, for any three or more segments.

    An adaptive Wiener filter of the classical slopes, and a network that gives back what of the surface the filter
    took, adds to it and scales the sigmas; untrained it is that filter. Arguments and tensors as
    `inference.networks.moments.moments` and the slot `slopes` have them, with a leading batch axis; `aspect` is the
    pixel's width over its height.
    """

    def __init__(self, width: int = 32, depth: int = 5, blocks: int = 2) -> None:
        super().__init__()
        self.width, self.depth, self.blocks = width, depth, blocks
        self.net: nn.Module = ScaleNet(FEATURES + MORE_FEATURES, width, depth, blocks)

    def forward(
        self,
        images: Tensor,
        response: Tensor,
        inversion: Tensor,
        gain_counts_per_electron: Tensor,
        dark_counts: Tensor,
        flat_share: Tensor,
        saturation_counts: Tensor,
        beam_sigma_px: Tensor,
        frames_held: Tensor,
        aspect: Tensor | float = 1.0,
    ) -> Slopes:
        found = moments(
            images,
            response,
            inversion,
            gain_counts_per_electron,
            dark_counts,
            flat_share,
            saturation_counts,
            beam_sigma_px,
            frames_held,
        )
        p, q, sigma_p, sigma_q = self.correct(found.features, found.slopes, found.variances, aspect)
        # What a network guesses where nothing was measured may be likely, but never certain.
        guessed_p = found.rejected[:, :, :-1] | found.rejected[:, :, 1:]
        guessed_q = found.rejected[:, :-1] | found.rejected[:, 1:]
        return Slopes(
            p,
            q,
            torch.where(guessed_p, sigma_p.clamp_min(GUESSED_SIGMA), sigma_p),
            torch.where(guessed_q, sigma_q.clamp_min(GUESSED_SIGMA), sigma_q),
            found.rejected,
        )

    def correct(
        self, features: Tensor, slopes: Tensor, variances: Tensor, aspect: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slopes at pixels and their variances, (B, 2, H, W), to better ones on the staggered grid and their sigmas."""
        lit = features[:, LIT : LIT + 1]
        start = self.start(features, slopes, variances, aspect)
        at_pixels = torch.stack([_at_pixels(start.p, 2), _at_pixels(start.q, 1)], dim=1)
        left = start.left[:, None, None, None]
        more = at_pixels.clamp(-STEEPEST, STEEPEST), (0.2 * torch.log(left)).expand_as(lit)
        unit = (mean_variance(features, variances) * start.left).sqrt()[:, None, None, None]
        back, add, log_sigma = self.net(
            [features, torch.cat(more, dim=1)], slopes - at_pixels, at_pixels, variances, lit, unit
        )
        back_p, back_q = staggered(back)
        sigma_p, sigma_q = staggered_sigma(variances * left)
        return (
            start.p + back_p + add[:, 0, :, :-1],
            start.q + back_q + add[:, 1, :-1],
            (sigma_p * torch.exp(log_sigma[:, 0, :, :-1])).clamp(LEAST_SIGMA, MOST_SIGMA),
            (sigma_q * torch.exp(log_sigma[:, 1, :-1])).clamp(LEAST_SIGMA, MOST_SIGMA),
        )

    def start(self, features: Tensor, slopes: Tensor, variances: Tensor, aspect: Tensor | float) -> Filtered:
        """What the network corrects."""
        variance = mean_variance(features, variances)
        return filtered(*staggered(slopes), variance, features[:, BEAM, 0, 0], aspect)


def mean_variance(features: Tensor, variances: Tensor) -> Tensor:
    """(B,) of a slope at a pixel that means something."""
    lit = features[:, LIT]
    share = lit / lit.sum(dim=(1, 2), keepdim=True).clamp_min(1.0)
    return (variances * share.unsqueeze(1)).sum(dim=(1, 2, 3)) * 0.5


def classical(found: Moments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slopes p, q and their standard deviations, taken from pixels to the staggered grid between them."""
    return *staggered(found.slopes), *staggered_sigma(found.variances)


def staggered(slopes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2, H, W) at pixels to p (B, H, W - 1) and q (B, H - 1, W) between them."""
    return _between_columns(slopes[:, 0]), _between_rows(slopes[:, 1])


def staggered_sigma(variances: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations of `staggered` slopes of independent pixels."""
    p, q = _between_columns(variances[:, 0]), _between_rows(variances[:, 1])
    return (0.5 * p).sqrt().clamp_min(LEAST_SIGMA), (0.5 * q).sqrt().clamp_min(LEAST_SIGMA)


def _between_columns(values: Tensor) -> Tensor:
    return 0.5 * (values[:, :, :-1] + values[:, :, 1:])


def _between_rows(values: Tensor) -> Tensor:
    return 0.5 * (values[:, :-1] + values[:, 1:])


def _at_pixels(between: Tensor, axis: int) -> Tensor:
    """Means of the two neighbours along `axis`; at both ends the one that is."""
    first, last = between.narrow(axis, 0, 1), between.narrow(axis, between.shape[axis] - 1, 1)
    return 0.5 * (torch.cat([first, between], dim=axis) + torch.cat([between, last], dim=axis))
