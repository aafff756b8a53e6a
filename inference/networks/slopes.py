"""The slope network: what classical inversion leaves, learned from neighbours, with its uncertainty."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.networks.moments import FEATURES, Moments, moments
from inference.networks.unet import UNet

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

    Adds to the classical slopes and scales the classical sigmas, so that untrained it is exactly classical. Arguments
    and tensors as `inference.networks.moments.moments` and the slot `slopes` have them, with a leading batch axis.
    """

    def __init__(self, width: int = 32, depth: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.width, self.depth, self.blocks = width, depth, blocks
        self.net = UNet(FEATURES, 4, width, depth, blocks)

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
        p, q, sigma_p, sigma_q = self.correct(found.features, *classical(found))
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
        self, features: Tensor, p: Tensor, q: Tensor, sigma_p: Tensor, sigma_q: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The learned part: classical slopes and sigmas on the staggered grid to better ones."""
        add_p, add_q, log_p, log_q = self.net(features).unbind(1)
        return (
            p + add_p[:, :, :-1],
            q + add_q[:, :-1],
            (sigma_p * torch.exp(log_p[:, :, :-1])).clamp(LEAST_SIGMA, MOST_SIGMA),
            (sigma_q * torch.exp(log_q[:, :-1])).clamp(LEAST_SIGMA, MOST_SIGMA),
        )


def classical(found: Moments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slopes p, q and their standard deviations, taken from pixels to the staggered grid between them."""
    sigma_p = 0.5 * (found.variance_p[:, :, :-1] + found.variance_p[:, :, 1:]).sqrt()
    sigma_q = 0.5 * (found.variance_q[:, :-1] + found.variance_q[:, 1:]).sqrt()
    return (
        _between_columns(found.p),
        _between_rows(found.q),
        sigma_p.clamp_min(LEAST_SIGMA),
        sigma_q.clamp_min(LEAST_SIGMA),
    )


def _between_columns(values: Tensor) -> Tensor:
    return 0.5 * (values[:, :, :-1] + values[:, :, 1:])


def _between_rows(values: Tensor) -> Tensor:
    return 0.5 * (values[:, :-1] + values[:, 1:])
