"""What a found surface is off from the true one, for batches: as `inference.accuracy.compare` has it."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.networks.poisson import slopes_of


def surface_errors(height: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) of (B, H, W) in pixels: rms height error with the plane removed, and rms angle between the normals."""
    return plane_removed_rms(height - truth), rms_angle(*slopes_of(height), *slopes_of(truth))


def plane_removed_rms(values: Tensor) -> Tensor:
    """(B,) as `inference.accuracy.without_plane` has it, which on a full grid is three projections."""
    level = values - values.mean(dim=(1, 2), keepdim=True)
    for axis in (1, 2):
        along = torch.arange(values.shape[axis], dtype=values.dtype) - 0.5 * (values.shape[axis] - 1)
        along = along[:, None] if axis == 1 else along[None, :]
        level = level - along * (level * along).mean(dim=(1, 2), keepdim=True) / (along**2).mean()
    return ((level**2).mean(dim=(1, 2)) + 1e-12).sqrt()


def rms_angle(p: Tensor, q: Tensor, true_p: Tensor, true_q: Tensor) -> Tensor:
    """(B,) rms angle in radians between the normals that slopes on the staggered grid give, as
    `inference.accuracy.compare` has them."""
    off = normals(p, q) - normals(true_p, true_q)
    return ((off**2).sum(dim=1).mean(dim=(1, 2)) + 1e-12).sqrt()


def normals(p: Tensor, q: Tensor) -> Tensor:
    """(B, 3, H - 1, W - 1) unit normals between four pixels."""
    across, down = p[:, :-1], q[:, :, :-1]
    upright = (1.0 + across**2 + down**2).rsqrt()
    return torch.stack([-across * upright, -down * upright, upright], dim=1)
