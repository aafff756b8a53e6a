"""What every network sees: any detector's segments as slopes, brightness and their expected noise, in torch.

The same mathematics as the `classical` set's graph (inference.training.classical), for batches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEAST_ELECTRONS = 1.0
LEAST_N_Z = 0.2588190451025207  # 75 degrees
REJECTED_VARIANCE = 100.0
FEATURES, LIT, BEAM = 10, 6, 7


class Moments(NamedTuple):
    """Per pixel: classical `slopes` p and q (B, 2, H, W) and the `variances` that photon noise gives them; `rejected`
    (B, H, W) where they mean little. `features` (B, 10, H, W) are the network's input, all of order one; number `LIT`
    is 0 where rejected, else 1, `BEAM` the beam's sigma in pixels."""

    slopes: Tensor
    variances: Tensor
    rejected: Tensor
    features: Tensor


def moments(
    images: Tensor,
    response: Tensor,
    inversion: Tensor,
    gain_counts_per_electron: Tensor,
    dark_counts: Tensor,
    flat_share: Tensor,
    saturation_counts: Tensor,
    beam_sigma_px: Tensor,
    frames_held: Tensor,
) -> Moments:
    """`images` (B, S, H, W) counts as float32, the mean of `frames_held` (B, H, W) frames; `response` (B, S, 3),
    `inversion` (B, 3, S), gains and darks (B, S), the rest (B,): fields of `inference.calibration.Calibration`, which
    says what they mean."""
    electrons = (images - _wide(dark_counts)) / _wide(gain_counts_per_electron)
    variance = electrons.clamp_min(1.0) / frames_held.unsqueeze(1)
    inverted = mixed(inversion, electrons)
    x, y, brightness = inverted.unbind(1)
    dim = brightness < LEAST_ELECTRONS
    saturated = summed_up((images >= _wide(saturation_counts)[:, None]).to(images.dtype)) > 0.5
    safe = torch.where(dim, 1.0, brightness)
    a, b = (torch.where(dim, 0.0, part / safe) for part in (x, y))

    share = _wide(flat_share)
    offset = 1.0 - share
    steepness2 = a * a + b * b
    root = (1.0 + steepness2 * (share**2 - offset**2)).clamp_min(1e-6).sqrt()
    n_z = (root - steepness2 * share * offset) / (1.0 + steepness2 * share**2)
    cut = n_z.clamp_min(LEAST_N_Z)
    rejected = dim | saturated | (n_z < cut)
    scale = (share * cut + offset) / cut

    of_x, of_y, of_z = inversion.unbind(1)
    products = torch.stack([of_x * of_x, of_y * of_y, of_z * of_z, of_x * of_z, of_y * of_z], dim=1)
    xx, yy, zz, xz, yz = mixed(products, variance).unbind(1)
    variance_a = (xx - 2 * a * xz + a * a * zz) / safe**2
    variance_b = (yy - 2 * b * yz + b * b * zz) / safe**2
    found = mixed(response, inverted)
    residual = (summed_up((electrons - found) ** 2 / variance) / images.shape[1]).sqrt()
    level = torch.log(safe) - torch.log(safe).mean(dim=(1, 2), keepdim=True)
    lit = (~rejected).to(images.dtype)
    steady = torch.ones_like(a)
    # How far a segment swings with the normal tells where the detector stands, and so where shadows begin.
    swing = torch.linalg.vector_norm(response[:, :, :2], dim=(1, 2)) / torch.linalg.vector_norm(
        response[:, :, 2], dim=1
    )
    features = torch.stack(
        [
            a.clamp(-3.0, 3.0) * lit,
            b.clamp(-3.0, 3.0) * lit,
            level.clamp(-4.0, 4.0),
            torch.log(variance_a.clamp(1e-9, 10.0)) * 0.2,
            torch.log(variance_b.clamp(1e-9, 10.0)) * 0.2,
            torch.log1p(residual.clamp(0.0, 1e3)),
            lit,
            steady * _wide(beam_sigma_px),
            steady * _wide(swing),
            steady * share,
        ],
        dim=1,
    )
    variances = (scale**2).unsqueeze(1) * torch.stack([variance_a, variance_b], dim=1)
    unknown = torch.where(rejected.unsqueeze(1), REJECTED_VARIANCE, variances.clamp(0.0, REJECTED_VARIANCE))
    return Moments(-scale.unsqueeze(1) * torch.stack([a, b], dim=1), unknown, rejected, features)


def _wide(values: Tensor) -> Tensor:
    """(B,) to (B, 1, 1), (B, S) to (B, S, 1, 1)."""
    return values[..., None, None]


def mixed(weights: Tensor, maps: Tensor) -> Tensor:
    """(B, K, S) times (B, S, H, W); as a matrix product, which runs four times as fast in ONNX as an einsum."""
    return (weights @ maps.flatten(2)).reshape(maps.shape[0], weights.shape[1], *maps.shape[2:])


def summed_up(maps: Tensor) -> Tensor:
    """(B, H, W) sum of (B, S, H, W) over segments; as a matrix product too, for the same reason."""
    ones = torch.ones_like(maps[:, :, 0, 0])[:, None]
    return mixed(ones, maps)[:, 0]
