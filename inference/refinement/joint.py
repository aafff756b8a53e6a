"""Physical parameters and a slope network refined together on frames of one surface, by automatic differentiation.

What one frame's slopes say of another frame's segments is compared with those: noise can't be learned, as it isn't the
same. An experiment: `eclips bench refinement` tells whether known truth comes back.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acquisition.instrument import Instrument
from inference.networks.dsm import linear_shares
from inference.networks.moments import moments
from inference.networks.poisson import integrate, slopes_of
from inference.networks.twin_tables import Geometry
from inference.networks.weights import read_slopes

ROTATION_SIGMA_DEG, GAIN_SIGMA = 10.0, 0.2
PHYSICS_RATE, NETWORK_RATE = 0.03, 1e-3
PULL = 0.02
LEARNING = ("net.heads", "net.leave")


class JointFit:
    """Rotation and logarithms of gains, each in units of its prior, and a copy of the network in the file `slopes`.

    The frame as a whole counts as level, which tells opposite gains from a tilt. Frames are (S, H, W) counts.
    """

    def __init__(self, stated: Instrument, slopes: Path, *, physics: bool, network: bool) -> None:
        self.stated, self.parent = stated, read_slopes(slopes).eval()
        self.net = deepcopy(self.parent).requires_grad_(False)
        self.geometry = Geometry(stated).requires_grad_(False)
        segments = stated.detector.segments
        self.gain = torch.tensor([one.gain_counts_per_electron or 1.0 for one in segments])
        self.dark = torch.tensor([one.dark_counts or 0.0 for one in segments])
        self.response = self.geometry.response().float()
        self.turn = torch.zeros((), requires_grad=physics)
        self.gains = torch.zeros(len(segments), requires_grad=physics)
        groups = [{"params": [self.turn, self.gains], "lr": PHYSICS_RATE}] if physics else []
        if network:
            learning = [one for name, one in self.net.named_parameters() if name.startswith(LEARNING)]
            groups.append({"params": [one.requires_grad_(True) for one in learning], "lr": NETWORK_RATE})
        self.rates = [float(str(group["lr"])) for group in groups]
        self.optimiser: torch.optim.Optimizer | None = torch.optim.Adam(groups) if groups else None

    def step(self, given: NDArray[np.uint16], asked: NDArray[np.uint16], rate: float) -> None:
        """One step, at the share `rate` of the usual lengths; none where nothing is free."""
        if self.optimiser is not None:
            self._step(self.optimiser, _tensor(given), _tensor(asked), rate)

    def found(self, frame: NDArray[np.uint16]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Rotation against the instrument file in degrees, gains (S) over those of the file, height (H, W) in m."""
        with torch.no_grad():
            response, gain = self._numbers()
            p, q, *_ = self._slopes(_tensor(frame), response, gain)
            height_m = self._level(p, q)[0].double().numpy() * self.stated.scan.pixel_size_m
            return float(self.turn) * ROTATION_SIGMA_DEG, (gain / self.gain).double().numpy(), height_m

    def _step(self, optimiser: torch.optim.Optimizer, given: Tensor, asked: Tensor, rate: float) -> None:
        for group, usual in zip(optimiser.param_groups, self.rates, strict=True):
            group["lr"] = usual * rate
        optimiser.zero_grad()
        response, gain = self._numbers()
        p, q, old_p, old_q, sigma_p, sigma_q = self._slopes(given, response, gain)
        expected = self._expected(p, q, response, gain, asked)
        gain_stated, dark = self.gain[:, None, None], self.dark[:, None, None]
        misfit = (asked - expected) ** 2 / (gain_stated * (expected.detach() - dark).clamp_min(gain_stated))
        pull = ((p - old_p) / sigma_p).square().mean() + ((q - old_q) / sigma_q).square().mean()
        prior = (self.turn.square() + self.gains.square().sum()) / asked.numel()
        torch.autograd.backward(misfit.mean() + PULL * pull + prior)
        optimiser.step()

    def _numbers(self) -> tuple[Tensor, Tensor]:
        """Response, its levels adding up to 1, and gains. A turned detector's response is the turned response."""
        angle = torch.deg2rad(self.turn * ROTATION_SIGMA_DEG)
        x, y, level = self.response.unbind(1)
        turned = torch.stack([x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin(), level], dim=1)
        gain = self.gain * torch.exp((self.gains - self.gains.mean()) * GAIN_SIGMA)
        return turned / level.sum(), gain

    def _slopes(self, frame: Tensor, response: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
        """p and q of the network, of its parent, and the parent's sigmas."""
        one = torch.ones(1)
        inversion = torch.linalg.pinv(response)
        numbers = (response[None], inversion[None], gain[None], self.dark[None], one, 65535.0 * one, 0.0 * one)
        seen = moments(frame[None], *numbers, frames_held=torch.ones(1, *frame.shape[1:]))
        taken = (seen.features, seen.slopes, seen.variances)
        p, q, _, _ = self.net.correct(*taken)
        with torch.no_grad():
            old = self.parent.correct(*taken)
        return p, q, *old

    def _level(self, p: Tensor, q: Tensor) -> Tensor:
        return integrate(p - p.mean(), q - q.mean())

    def _expected(self, p: Tensor, q: Tensor, response: Tensor, gain: Tensor, asked: Tensor) -> Tensor:
        """Counts (S, H, W) of the level surface, each pixel as bright as in `asked`; no slope here casts a shadow."""
        level_p, level_q = slopes_of(self._level(p, q))
        one = torch.ones(1)
        shown = linear_shares(level_p, level_q, response[None], one, 0.0 * one)[0].clamp_min(1e-6)
        scaled, above = shown * gain[:, None, None], asked - self.dark[:, None, None]
        return scaled * (above.sum(dim=0) / scaled.sum(dim=0)).clamp_min(0.0) + self.dark[:, None, None]


def _tensor(images: NDArray[np.uint16]) -> Tensor:
    return torch.from_numpy(images.astype(np.float32))
