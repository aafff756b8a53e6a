"""The PINN integrator: slopes to height, exact Neumann Poisson solutions with a learned correction between them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.networks.poisson import integrate, slopes_of
from inference.networks.unet import UNet

FEATURES = 10
STEEPEST = 4.0


class Integrated(NamedTuple):
    """`height` (B, H, W) in pixels of a row, mean zero; `p`, `q` the corrected slopes it is integrated from; `misfit`
    (B,) rms of what the slopes that came in have and no height has."""

    height: Tensor
    p: Tensor
    q: Tensor
    misfit: Tensor


class IntegratorNet(nn.Module):
    """Least squares, looked at again: a first exact solution shows which slopes fit no surface; the network sees that
    together with the slopes' sigmas and the images' residual, and corrects what goes into the second.

    The correction is a share of the misfit (what reweighting would do) and an offset (what occlusion at steps hides
    from the slopes, models.md, "Lessons of the prototypes"). Untrained both are zero and the solution is the exact one.
    """

    def __init__(self, width: int = 16, depth: int = 3, blocks: int = 1) -> None:
        super().__init__()
        self.width, self.depth, self.blocks = width, depth, blocks
        self.net = UNet(FEATURES, 4, width, depth, blocks)

    def forward(
        self,
        p: Tensor,
        q: Tensor,
        sigma_p: Tensor,
        sigma_q: Tensor,
        rejected: Tensor,
        residual: Tensor,
        aspect: Tensor | float = 1.0,
    ) -> Integrated:
        """Slopes and sigmas as the slot `slopes` gives them, `rejected` and `residual` (B, H, W), with a leading batch
        axis; `aspect` is the pixel's width over its height."""
        fitted_p, fitted_q = slopes_of(integrate(p, q, aspect), aspect)
        off_p, off_q = fitted_p - p, fitted_q - q
        features = features_of(p, q, off_p, off_q, sigma_p, sigma_q, rejected, residual)
        share_p, share_q, add_p, add_q = self.net(features).unbind(1)
        better_p = p + share_p[:, :, :-1] * off_p + add_p[:, :, :-1]
        better_q = q + share_q[:, :-1] * off_q + add_q[:, :-1]
        squares = (off_p**2).mean(dim=(1, 2)) + (off_q**2).mean(dim=(1, 2))
        return Integrated(integrate(better_p, better_q, aspect), better_p, better_q, (0.5 * squares).sqrt())


def features_of(
    p: Tensor,
    q: Tensor,
    off_p: Tensor,
    off_q: Tensor,
    sigma_p: Tensor,
    sigma_q: Tensor,
    rejected: Tensor,
    residual: Tensor,
) -> Tensor:
    """(B, 10, H, W), all of order one: slopes, what of them fits no surface, sigmas, and where images say otherwise."""
    return torch.stack(
        [
            _on_pixels_p(p.clamp(-STEEPEST, STEEPEST)),
            _on_pixels_q(q.clamp(-STEEPEST, STEEPEST)),
            _on_pixels_p(off_p.clamp(-STEEPEST, STEEPEST)),
            _on_pixels_q(off_q.clamp(-STEEPEST, STEEPEST)),
            _on_pixels_p(torch.tanh(0.3 * off_p / sigma_p)),
            _on_pixels_q(torch.tanh(0.3 * off_q / sigma_q)),
            _on_pixels_p(0.3 * torch.log(sigma_p)),
            _on_pixels_q(0.3 * torch.log(sigma_q)),
            rejected,
            0.5 * torch.log1p(residual.clamp(0.0, 1e3)),
        ],
        dim=1,
    )


def _on_pixels_p(values: Tensor) -> Tensor:
    """Of the edges between columns, at the pixel left of each; the last column's repeated."""
    return torch.cat([values, values[:, :, -1:]], dim=2)


def _on_pixels_q(values: Tensor) -> Tensor:
    return torch.cat([values, values[:, -1:]], dim=1)
