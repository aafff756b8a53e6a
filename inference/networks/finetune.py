"""What a real instrument does beyond the model: simulated segment images to those that this instrument shows."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from acquisition.errors import ComponentFailed
from inference.networks.dsm import normals
from inference.networks.poisson import cosines

FEATURES = 6
FIRST_SIGMA_PX = (1.0, 12.0)
REACH_PX = 12
LEAST_SHARE = 1e-6


class FinetuneNet(nn.Module):
    """For one instrument of `segments`: narrow on purpose, so that it can't absorb errors of slopes.

    Four things, in the order in which they happen: emission that differs from the model's (a small function, the same
    for all segments and pixels, of the normal and of how much the model says is hidden), signal from around and from
    everywhere (two Gaussians and the frame's mean: interaction volume and skirt), the preamplifier's lag along the
    line, and each segment's own gain and offset. Untrained it changes nothing. It sees no neighbourhood of slopes: what
    isn't local, no blur and no lag stays the model's.
    """

    def __init__(self, segments: int, width: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(FEATURES, width, 1)
        self.more = nn.Conv2d(width, width, 1)
        self.change = nn.Conv2d(width, 2, 1)
        nn.init.zeros_(self.change.weight)
        assert self.change.bias is not None
        nn.init.zeros_(self.change.bias)
        self.log_sigma_px = nn.Parameter(torch.log(torch.tensor(FIRST_SIGMA_PX)))
        # Parts of the signal from either Gaussian and from the whole frame; the rest is the pixel's own.
        self.parts = nn.Parameter(torch.zeros(len(FIRST_SIGMA_PX) + 1))
        self.kept = nn.Parameter(torch.zeros(()))
        self.log_gain = nn.Parameter(torch.zeros(segments))
        self.offset = nn.Parameter(torch.zeros(segments))

    def forward(self, shares: Tensor, p: Tensor, q: Tensor, response: Tensor) -> Tensor:
        """(B, S, H, W) electrons over those of a flat specimen in all segments, as this instrument shows them.

        `shares` (B, S, H, W): as simulated. `p` (B, H, W - 1) and `q` (B, H - 1, W): slopes between neighbours.
        `response` (B, S, 3): of the segments to the normal, sum of the last column 1.
        """
        flat = response[:, :, 2, None, None].clamp_min(LEAST_SHARE)
        features = _features(shares / flat, normals(p, q), response)
        inner = functional.gelu(self.more(functional.gelu(self.hidden(features.flatten(0, 1)))))
        factor, addition = self.change(inner).unflatten(0, shares.shape[:2]).unbind(2)
        emitted = shares * torch.exp(factor) + flat * addition
        seen = self._lagged(self._spread(emitted))
        found: Tensor = seen * torch.exp(self.log_gain)[:, None, None] + self.offset[:, None, None]
        return found

    def _spread(self, values: Tensor) -> Tensor:
        """The frame is continued by mirroring: what a Gaussian does then is a factor for each of the cosines."""
        rows, columns = (cosines(side) for side in values.shape[2:])
        down, across = (torch.pi * torch.arange(side).to(values.dtype) / side for side in values.shape[2:])
        squared = down[:, None] ** 2 + across**2
        near, far, everywhere = self.parts
        sigmas = torch.exp(self.log_sigma_px)
        blurs = [torch.exp(-0.5 * (sigma * sigma) * squared) for sigma in sigmas]
        kept = 1.0 + near * (blurs[0] - 1.0) + far * (blurs[1] - 1.0) + everywhere * ((squared == 0.0) * 1.0 - 1.0)
        found: Tensor = rows.T @ ((rows @ values @ columns.T) * kept) @ columns
        return found

    def _lagged(self, values: Tensor) -> Tensor:
        """A low pass of first order along the line, cut off where nothing is left of it, at rest where lines begin."""
        taps = (1.0 - self.kept) * self.kept ** torch.arange(REACH_PX, -1, -1)
        taps = taps / taps.sum()
        lines = functional.pad(values.flatten(0, 1).unsqueeze(1), (REACH_PX, 0, 0, 0), mode="replicate")
        return functional.conv2d(lines, taps[None, None, None]).reshape(values.shape)


def save_finetune(net: FinetuneNet, path: Path) -> None:
    """Weights for `load_finetune`."""
    torch.save(net.state_dict(), path)


def load_finetune(path: Path) -> FinetuneNet:
    """The network whose weights `path` holds, whatever its size. Raises `ComponentFailed` when they cannot be read."""
    try:
        state = torch.load(path, weights_only=True)
        net = FinetuneNet(len(state["offset"]), len(state["hidden.bias"]))
        net.load_state_dict(state)
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise ComponentFailed(
            f"{path} holds no weights of finetune ({error}): build it with `eclips train finetune`"
        ) from error
    return net.eval()


def _features(level: Tensor, normal: Tensor, response: Tensor) -> Tensor:
    """(B, S, FEATURES, H, W): the normal as each segment sees it, its signal of a flat specimen's, and where from and
    how much all segments get, which tells what walls hide."""
    x, y = functional.normalize(response[:, :, :2], dim=2)[..., None, None].unbind(2)
    n_x, n_y, n_z = (part.unsqueeze(1) for part in normal.unbind(1))
    along, across = n_x * x + n_y * y, n_y * x - n_x * y
    sky = level.mean(dim=1, keepdim=True)
    lean = 2.0 * ((level * x).mean(dim=1, keepdim=True) * x + (level * y).mean(dim=1, keepdim=True) * y)
    upright, sky = n_z.expand_as(level), sky.expand_as(level)
    return torch.stack([along, across * across, upright, level, sky, lean], dim=2)
