"""The exact integrator as a layer: the height whose forward differences are nearest to the slopes, any image size."""

from __future__ import annotations

import torch
from torch import Tensor


def integrate(p: Tensor, q: Tensor, aspect: Tensor | float = 1.0) -> Tensor:
    """(B, H, W) heights of zero mean in pixels of a row, from p (B, H, W - 1) and q (B, H - 1, W).

    Least squares with natural (inhomogeneous Neumann) borders by cosine transforms as matrix products: the normal
    derivative at the border equals the measured slope (models.md, "The chain"). `aspect` is the pixel's width over its
    height. The same mathematics as the `classical` set's `integrate`.
    """
    return from_source(divergence(p, q, aspect), aspect)


def divergence(p: Tensor, q: Tensor, aspect: Tensor | float = 1.0) -> Tensor:
    """The transposed gradient: what `from_source` takes, (B, H, W)."""
    p_padded, q_padded = torch.nn.functional.pad(p, (1, 1)), torch.nn.functional.pad(q, (0, 0, 1, 1))
    return (p_padded[:, :, :-1] - p_padded[:, :, 1:]) + aspect * (q_padded[:, :-1] - q_padded[:, 1:])


def from_source(source: Tensor, aspect: Tensor | float = 1.0) -> Tensor:
    """The solution of zero mean of the Neumann Poisson equation, (B, H, W)."""
    along_y, along_x = cosines(source.shape[1]), cosines(source.shape[2])
    spectrum = along_y @ source @ along_x.T
    eigen = eigenvalues(source.shape[2])[None, :] + aspect * aspect * eigenvalues(source.shape[1])[:, None]
    level = eigen <= 0.0
    solved = torch.where(level, 0.0, spectrum / torch.where(level, 1.0, eigen))
    return along_y.T @ solved @ along_x


def slopes_of(height: Tensor, aspect: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Forward differences of (B, H, W), on the staggered grid."""
    return height[:, :, 1:] - height[:, :, :-1], aspect * (height[:, 1:] - height[:, :-1])


def cosines(count: int) -> Tensor:
    """The orthonormal DCT-II matrix [k, i]. Angles are reduced in integers, so float32 holds them at any size."""
    places = torch.arange(count)
    full_turn = 4 * (places[-1] + 1)  # a tensor, as ONNX's exporter knows no remainder by a dynamic size
    turns = torch.remainder((2 * places[None, :] + 1) * places[:, None], full_turn)
    waves = torch.cos(turns.to(torch.float32) * (0.5 * torch.pi / count))
    scale = torch.where(places == 0, (1.0 / count) ** 0.5, (2.0 / count) ** 0.5)
    return waves * scale[:, None]


def eigenvalues(count: int) -> Tensor:
    """Of the negative second difference with Neumann ends, in the form that keeps small ones."""
    half = torch.sin(torch.arange(count).to(torch.float32) * (0.5 * torch.pi / count))
    return 4.0 * half * half
