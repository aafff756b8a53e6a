"""The slope network: what classical inversion leaves, learned from neighbours, with its uncertainty."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.networks.moments import FEATURES, LIT, Moments, moments
from inference.networks.scales import ScaleNet

LEAST_SIGMA = 1e-4
MOST_SIGMA = 10.0
GUESSED_SIGMA = 0.5


class Slopes(NamedTuple):
    """On the staggered grid: `p`, `sigma_p` (B, H, W - 1), `q`, `sigma_q` (B, H - 1, W); `rejected` (B, H, W) bool."""

    p: Tensor
    q: Tensor
    sigma_p: Tensor
    sigma_q: Tensor
    rejected: Tensor


class SlopeNet(nn.Module):
    """Images to slopes between neighbouring pixels and their standard deviations, for any three or more segments.

    Keeps of the classical slopes what it believes, adds to them, and scales the classical sigmas, so that untrained it
    is exactly classical. Arguments
    and tensors as `inference.networks.moments.moments` and the slot `slopes` have them, with a leading batch axis.
    """

    def __init__(self, width: int = 32, depth: int = 5, blocks: int = 2) -> None:
        super().__init__()
        self.width, self.depth, self.blocks = width, depth, blocks
        self.net: nn.Module = ScaleNet(FEATURES, width, depth, blocks)

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
        p, q, sigma_p, sigma_q = self.correct(found.features, found.slopes, found.variances)
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

    def correct(self, features: Tensor, slopes: Tensor, variances: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The learned part: slopes at pixels and their variances, (B, 2, H, W), to better ones on the staggered grid
        and their sigmas."""
        found, add, log_sigma = self.net(features, slopes, variances, features[:, LIT : LIT + 1])
        p, q = staggered(found)
        sigma_p, sigma_q = staggered_sigma(variances)
        return (
            p + add[:, 0, :, :-1],
            q + add[:, 1, :-1],
            (sigma_p * torch.exp(log_sigma[:, 0, :, :-1])).clamp(LEAST_SIGMA, MOST_SIGMA),
            (sigma_q * torch.exp(log_sigma[:, 1, :-1])).clamp(LEAST_SIGMA, MOST_SIGMA),
        )


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
