"""The exact integrator as a layer: the height whose forward differences are nearest to the slopes, any image size."""

from __future__ import annotations

from typing import NamedTuple

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
    rows, columns = source.shape[1:]
    along_y, along_x = folded_cosines(rows), folded_cosines(columns)
    spectrum = to_modes(to_modes(source, along_y).transpose(1, 2), along_x)  # (B, W, H)
    eigen = eigenvalues(columns)[:, None] + aspect * aspect * eigenvalues(rows)[None, :]
    level = eigen <= 0.0
    solved = torch.where(level, 0.0, spectrum / torch.where(level, 1.0, eigen))
    return from_modes(from_modes(solved, along_x).transpose(1, 2), along_y)


class FoldedCosines(NamedTuple):
    """The even and the odd rows of `cosines` on the first half of the places, which the second half mirrors. The other
    fields are indices: modes of either kind, places and their mirror images, and where in both halves side by side each
    mode and place is. `once`: the middle of an odd count has no mirror image."""

    even: Tensor
    odd: Tensor
    once: Tensor
    even_modes: Tensor
    odd_modes: Tensor
    first: Tensor
    mirrored: Tensor
    modes: Tensor
    places: Tensor


def folded_cosines(count: int) -> FoldedCosines:
    """For `to_modes` and `from_modes`. Indices, not slices: ONNX's exporter cannot see that half of a size is less."""
    half = (count + 1) // 2
    all_of, first = torch.arange(count), torch.arange(half)
    even_modes, odd_modes = 2 * first, 2 * torch.arange(count // 2) + 1
    return FoldedCosines(
        even=_waves(even_modes, first, count),
        odd=_waves(odd_modes, first, count),
        once=torch.where(2 * first + 1 == count, 0.5, 1.0),
        even_modes=even_modes,
        odd_modes=odd_modes,
        first=first,
        mirrored=count - 1 - first,
        modes=all_of // 2 + torch.remainder(all_of, 2) * half,
        places=torch.where(all_of < half, all_of, half + count - 1 - all_of),
    )


def to_modes(maps: Tensor, along: FoldedCosines) -> Tensor:
    """`cosines` @ maps (B, H, W), with half the multiplications."""
    first, mirrored = maps.index_select(1, along.first), maps.index_select(1, along.mirrored)
    modes = torch.cat([along.even @ (along.once[:, None] * (first + mirrored)), along.odd @ (first - mirrored)], dim=1)
    return modes.index_select(1, along.modes)


def from_modes(modes: Tensor, along: FoldedCosines) -> Tensor:
    """What `to_modes` came from."""
    even = along.even.T @ modes.index_select(1, along.even_modes)
    odd = along.odd.T @ modes.index_select(1, along.odd_modes)
    return torch.cat([even + odd, even - odd], dim=1).index_select(1, along.places)


def slopes_of(height: Tensor, aspect: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Forward differences of (B, H, W), on the staggered grid."""
    return height[:, :, 1:] - height[:, :, :-1], aspect * (height[:, 1:] - height[:, :-1])


def cosines(count: int) -> Tensor:
    """The orthonormal DCT-II matrix [k, i]."""
    return _waves(torch.arange(count), torch.arange(count), count)


def eigenvalues(count: int) -> Tensor:
    """Of the negative second difference with Neumann ends, in the form that keeps small ones."""
    half = torch.sin(torch.arange(count).to(torch.float32) * (0.5 * torch.pi / count))
    return 4.0 * half * half


def _waves(modes: Tensor, places: Tensor, count: int) -> Tensor:
    """Rows and columns of `cosines`. Angles are reduced in integers, so float32 holds them at any size."""
    full_turn = 4 * count * torch.ones_like(modes[:1])  # a tensor, as the exporter knows no remainder by a dynamic size
    turns = torch.remainder((2 * places[None, :] + 1) * modes[:, None], full_turn)
    waves = torch.cos(turns.to(torch.float32) * (0.5 * torch.pi / count))
    scale = torch.where(modes == 0, (1.0 / count) ** 0.5, (2.0 / count) ** 0.5)
    return waves * scale[:, None]
