"""The DSM: slopes back to the images of any detector's segments, shadows included, in one pass over the frame."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.networks.moments import mixed, summed_up
from inference.networks.poisson import integrate
from inference.networks.unet import UNet, inside

ORDERS = 4
RINGS = 2
HARMONICS = 2 * ORDERS - 1
AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
NEAR_PX, FAR_PX = (1, 2, 3), (4, 6, 8, 12, 16, 24, 32)
STEEPEST = 4.0
MOST_POLAR = 1.3
FEATURES = 5 + len(AROUND)
SEGMENT_FEATURES = 4
SIZE_OF_HIDDEN = 0.1
TRUST_GROWS = 10.0
BEAM_REACH_PX = 6
LEAST_SIGMA_PX = 0.05
LEAST_SHARE = 1e-6


class Dsm(nn.Module):
    """Slopes to what each segment sees, as BSESM would render the surface, for any number and placement of segments.

    Without shadows a segment's share is linear in the normal, and the beam's width blurs the normal. What the surface
    hides from the detector is a function of azimuth at each pixel: it is estimated in eight directions from how steeply
    the integrated surface rises there, a U-Net corrects its lowest harmonics (twice, for up to two rings), and each
    segment takes them at its own azimuth, weakened by its width. So the net runs once for all segments. Which polar
    angles the detector accepts is not in a calibration: a guess is learned. Untrained, and with a sharp beam, the DSM
    is the `classical` re-rendering.
    """

    def __init__(self, width: int = 16, depth: int = 3, blocks: int = 2) -> None:
        super().__init__()
        self.net = UNet(FEATURES, RINGS * HARMONICS, width, depth, blocks)
        self.trust = nn.Parameter(torch.zeros(()))
        quarter = torch.sinc(torch.arange(ORDERS) / 4.0)  # how a segment of a quarter of a ring weakens each order
        self.accepts = _guesses(2, 16, torch.zeros(2))
        self.weaken = _guesses(SEGMENT_FEATURES, 32, quarter.repeat(RINGS))

    def forward(
        self,
        images: Tensor,
        response: Tensor,
        gain_counts_per_electron: Tensor,
        dark_counts: Tensor,
        flat_share: Tensor,
        beam_sigma_px: Tensor,
        frames_held: Tensor,
        p: Tensor,
        q: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(B, S, H, W) counts that the slopes explain and the (B, H, W) rms of what they don't, in units of noise.

        The tensors of the slot `rerender` with a leading batch axis. A pixel's brightness is its likeliest one: all
        electrons measured over all that a unit of brightness would give.
        """
        gain, dark = gain_counts_per_electron[..., None, None], dark_counts[..., None, None]
        measured = (images - dark) / gain
        electrons = of_sum(self.shares(p, q, response, flat_share, beam_sigma_px), summed_up(measured)[:, None])
        off = measured - electrons
        squares = summed_up(off * off / electrons.clamp_min(1.0))
        residual = (frames_held * squares / images.shape[1]).sqrt()
        return electrons * gain + dark, residual

    def shares(self, p: Tensor, q: Tensor, response: Tensor, flat_share: Tensor, beam_sigma_px: Tensor) -> Tensor:
        """(B, S, H, W) electrons per unit of brightness, from p (B, H, W - 1) and q (B, H - 1, W)."""
        across, down = centred(p, q)
        normal = _unit(across, down)
        lost = self._lost(horizons(integrate(p, q)), torch.stack([across, down], dim=1), normal, response)
        numbers = torch.stack([beam_sigma_px, swing(response)], dim=1)[:, :, None, None].expand(
            -1, -1, *across.shape[1:]
        )
        corrected = self.net.body([normal, lost, numbers])[0]

        # All that is left is linear, so what segments make of it is worked out once and not at every pixel.
        counted, bias = self._harmonics(response), self.net.leave.bias
        assert bias is not None
        guess = -TRUST_GROWS * self.trust * (counted[:, :, ::RINGS] @ harmonics_of_directions())
        share, of_level = flat_share[:, None], response[:, :, 2]
        of_normal = torch.cat([response[:, :, :2], (share * of_level)[:, :, None]], dim=2)
        always = (1.0 - share) * of_level + SIZE_OF_HIDDEN * (counted @ bias)
        seen = mixed(torch.cat([of_normal, guess], dim=2), torch.cat([normal, lost], dim=1))
        seen = seen + self._leave(corrected, counted, always, seen)
        return blurred(seen, beam_sigma_px)

    def _leave(self, found: Tensor, counted: Tensor, always: Tensor, like: Tensor) -> Tensor:
        """The U-Net's last layer, its outputs weighed as they are `counted` in each segment: (B, S, H, W)."""
        leave, batch = self.net.leave, len(found)
        assert isinstance(leave.padding, tuple)
        weights = SIZE_OF_HIDDEN * torch.einsum("bsc,nchw->bnshw", counted, leave.weight)
        finer = functional.conv_transpose2d(  # a group is a frame
            found.flatten(0, 1)[None], weights.flatten(0, 1), always.flatten(), leave.stride, leave.padding, 0, batch
        )
        return inside(finer.reshape(batch, -1, *finer.shape[2:]), like)

    def _lost(self, horizon: Tensor, slopes: Tensor, normal: Tensor, response: Tensor) -> Tensor:
        """(B, 8, H, W) about what part of the flat signal each direction would have, and is hidden."""
        flat = response[:, :, 2]
        count = (flat > 0).to(flat.dtype).sum(dim=1)
        of_all = swing(response)
        # For small polar angles a segment's swing is two thirds of them, and weaker the wider the segment.
        swing_of_narrow = of_all / torch.sinc(1.0 / count)
        inner, outer = self.accepts(torch.stack([swing_of_narrow, 4.0 / count], dim=1)).unbind(1)
        outer = (1.4 * swing_of_narrow * torch.exp(outer)).clamp(0.05, MOST_POLAR)
        low, high = torch.sin(0.3 * outer * torch.exp(inner.clamp_max(1.0))) ** 2, torch.sin(outer) ** 2
        steep = (high / (1.0 - high)).sqrt()
        turns = torch.arange(len(AROUND)) * (2.0 * math.pi / len(AROUND))
        aside = torch.stack([torch.cos(turns), -torch.sin(turns)], dim=1).expand(len(flat), -1, -1)
        tilted = torch.cat([steep[:, None, None] * aside, torch.ones_like(aside[:, :, :1])], dim=2)
        steepest = torch.maximum(horizon, mixed(aside, slopes))
        above, range_of = (high / (high - low))[:, None, None, None], (high - low)[:, None, None, None]
        hidden = (above - 1.0 / (range_of * (1.0 + steepest * steepest))).clamp(0.0, 1.0)
        return hidden * torch.relu(mixed(tilted, normal))

    def _harmonics(self, response: Tensor) -> Tensor:
        """(B, S, RINGS * HARMONICS): by how much each harmonic of what is hidden counts in each segment."""
        flat = response[:, :, 2]
        aside = torch.linalg.vector_norm(response[:, :, :2], dim=2)
        ratio = aside / flat.clamp_min(LEAST_SHARE)
        of_all = swing(response)[:, None].expand_as(ratio)
        given = torch.stack([ratio, 4.0 * flat, of_all, ratio / of_all], dim=2)
        weaken = self.weaken(given).unflatten(2, (RINGS, ORDERS))
        # As seen in the image, 90 degrees at its top. Powers of one unit number, so that no angle is needed.
        cosine, sine = (sign * response[:, :, axis] / aside.clamp_min(1e-9) for axis, sign in ((0, 1.0), (1, -1.0)))
        turned = [(torch.ones_like(cosine), torch.zeros_like(sine))]
        for _ in range(ORDERS - 1):
            last_cosine, last_sine = turned[-1]
            turned.append((last_cosine * cosine - last_sine * sine, last_sine * cosine + last_cosine * sine))
        parts = [weaken[..., 0]]
        for order in range(1, ORDERS):
            for turn in turned[order]:
                parts.append(weaken[..., order] * turn[..., None])
        return flat[..., None] * torch.cat(parts, dim=2)


def of_sum(shares: Tensor, total: Tensor) -> Tensor:
    """(B, S, H, W) electrons in proportion to `shares` that add up to `total` (B, 1, H, W)."""
    shares = shares.clamp_min(0.0)
    return shares * (total.clamp_min(0.0) / summed_up(shares)[:, None].clamp_min(LEAST_SHARE))


def centred(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes at the pixels' centres, each (B, H, W); one-sided at the border."""
    p = torch.cat([p[:, :, :1], p, p[:, :, -1:]], dim=2)
    q = torch.cat([q[:, :1], q, q[:, -1:]], dim=1)
    return 0.5 * (p[:, :, :-1] + p[:, :, 1:]), 0.5 * (q[:, :-1] + q[:, 1:])


def normals(p: Tensor, q: Tensor) -> Tensor:
    """(B, 3, H, W) unit normals at the pixels' centres."""
    return _unit(*centred(p, q))


def _unit(across: Tensor, down: Tensor) -> Tensor:
    upright = (1.0 + across * across + down * down).rsqrt()
    return torch.stack([-across * upright, -down * upright, upright], dim=1)


def that_counts(normal: Tensor, flat_share: Tensor) -> Tensor:
    """(B, 3, H, W) what `response` is multiplied with: of n_z only the part that `flat_share` says."""
    share = flat_share[:, None, None, None]
    return torch.cat([normal[:, :2], share * normal[:, 2:] + (1.0 - share)], dim=1)


def linear_shares(p: Tensor, q: Tensor, response: Tensor, flat_share: Tensor, beam_sigma_px: Tensor) -> Tensor:
    """(B, S, H, W) as `Dsm.shares`, of a surface that hides nothing."""
    seen = blurred(that_counts(normals(p, q), flat_share), beam_sigma_px)
    return torch.einsum("bsc,bchw->bshw", response, seen)


def swing(response: Tensor) -> Tensor:
    """(B,) by how much segments answer to a tilt: it tells where the detector stands, and so where shadows begin."""
    tilt, level = (torch.linalg.vector_norm(part.flatten(1), dim=1) for part in (response[:, :, :2], response[:, :, 2]))
    found: Tensor = tilt / level
    return found


def blurred(maps: Tensor, sigma_px: Tensor) -> Tensor:
    """(B, C, H, W) under a Gaussian of `sigma_px` (B,), nothing where it is 0."""
    batch, reach = maps.shape[0], BEAM_REACH_PX
    places = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    weights = torch.exp(-0.5 * (places / sigma_px.clamp_min(LEAST_SIGMA_PX)[:, None]) ** 2)
    kernels = (weights / weights.sum(dim=1, keepdim=True))[:, None, None]
    # A group is a frame, as a graph knows how many of those there are, and not how many channels.
    columns = functional.pad(maps.transpose(0, 1), (reach, reach, 0, 0), mode="replicate")
    rows = functional.pad(functional.conv2d(columns, kernels, groups=batch), (0, 0, reach, reach), mode="replicate")
    return functional.conv2d(rows, kernels.transpose(2, 3), groups=batch).transpose(0, 1)


def harmonics_of_directions() -> Tensor:
    """(HARMONICS, 8) that take values around the horizon to the harmonics of `Dsm`."""
    turns = torch.arange(len(AROUND)) * (2.0 * math.pi / len(AROUND))
    parts = [torch.ones_like(turns)]
    for order in range(1, ORDERS):
        parts += [2.0 * torch.cos(order * turns), 2.0 * torch.sin(order * turns)]
    return torch.stack(parts) / len(AROUND)


def horizons(height: Tensor) -> Tensor:
    """(B, 8, H, W) how steeply the surface (B, H, W) rises, from 0 to `STEEPEST`, to the right, top right and so on."""
    rows, columns = height.shape[1:]
    padded = functional.pad(height[:, None], (0, 1, 0, 1), mode="replicate")
    far = rises(functional.avg_pool2d(padded, 2)[:, 0] * 0.5, [step // 2 for step in FAR_PX])
    wide = functional.interpolate(far, size=(rows, columns), mode="nearest")
    return torch.maximum(rises(height, NEAR_PX), wide).clamp(0.0, STEEPEST)


def rises(height: Tensor, steps: Sequence[int]) -> Tensor:
    """(B, 8, H, W) the steepest of the rises to what stands so many pixels away; beyond the frame it goes on level."""
    across = torch.tensor([_rise_to(down, right) for down, right in AROUND], dtype=height.dtype)[:, None]
    found: list[Tensor] = []
    for step in steps:
        padded = functional.pad(height[:, None], (step, step, step, step), mode="replicate")
        found.append(functional.conv2d(padded, across / step, dilation=step))
    return functools.reduce(torch.maximum, found)


def _guesses(inputs: int, width: int, start: Tensor) -> nn.Sequential:
    """A few numbers to a few others, near `start` untrained."""
    last = nn.Linear(width, len(start))
    nn.init.normal_(last.weight, std=0.02)
    last.bias = nn.Parameter(start)
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), last)


def _rise_to(down: int, right: int) -> list[list[float]]:
    """What a neighbour stands higher, for each pixel of the way to it."""
    kernel = [[0.0] * 3 for _ in range(3)]
    kernel[1 + down][1 + right] = 1.0 / math.hypot(down, right)
    kernel[1][1] = -1.0 / math.hypot(down, right)
    return kernel
