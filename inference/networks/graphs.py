"""The networks as the slots of a model set take them: one frame, counts as they come; names are the slots' own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference.networks.dsm import Dsm
from inference.networks.finetune import FinetuneNet
from inference.networks.integrator import IntegratorNet
from inference.networks.slopes import SlopeNet
from inference.networks.twin_tables import Tables
from inference.networks.vft import Vft


class SlopeGraph(nn.Module):
    """The slot `slopes` around a `SlopeNet`: one frame, counts as they come, rejected pixels as bytes."""

    def __init__(self, net: SlopeNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        images: Tensor,
        response: Tensor,
        inversion: Tensor,
        gain_counts_per_electron: Tensor,
        dark_counts: Tensor,
        flat_share: Tensor,
        saturation_counts: Tensor,
        pixel_size_m: Tensor,
        pixel_size_y_m: Tensor,
        beam_sigma_px: Tensor,
        frames_held: Tensor,
    ) -> tuple[Tensor, ...]:
        numbers = (response, inversion, gain_counts_per_electron, dark_counts, flat_share, saturation_counts)
        batched = (values.unsqueeze(0) for values in (images.to(torch.float32), *numbers, beam_sigma_px, frames_held))
        found = self.net(*batched, pixel_size_m / pixel_size_y_m)
        maps = (found.p, found.q, found.sigma_p, found.sigma_q)
        return *(values.squeeze(0) for values in maps), found.rejected.squeeze(0).to(torch.uint8)


class RerenderGraph(nn.Module):
    """The slot `rerender` around a `Dsm`, one frame."""

    def __init__(self, net: Dsm) -> None:
        super().__init__()
        self.net = net

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
    ) -> tuple[Tensor, ...]:
        numbers = (response, gain_counts_per_electron, dark_counts, flat_share, beam_sigma_px, frames_held, p, q)
        found = self.net(*(values.unsqueeze(0) for values in (images.to(torch.float32), *numbers)))
        return tuple(values.squeeze(0) for values in found)


class IntegratorGraph(nn.Module):
    """The slot `integrate` around an `IntegratorNet`: heights in metres."""

    def __init__(self, net: IntegratorNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        pixel_size_m: Tensor,
        pixel_size_y_m: Tensor,
        p: Tensor,
        q: Tensor,
        sigma_p: Tensor,
        sigma_q: Tensor,
        rejected: Tensor,
        residual: Tensor,
    ) -> tuple[Tensor, Tensor]:
        maps = (p, q, sigma_p, sigma_q, rejected.to(torch.float32), residual)
        found = self.net(*(values.unsqueeze(0) for values in maps), pixel_size_m / pixel_size_y_m)
        return found.height.squeeze(0) * pixel_size_m, found.misfit.squeeze(0)


class VftGraph(nn.Module):
    """A `Vft` with the detector's `Tables`: fractions (S, P) that its segments capture of what `places` (P, 2) emit."""

    def __init__(self, net: Vft) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        height_px: Tensor,
        places: Tensor,
        azimuth_rad: Tensor,
        response: Tensor,
        blocked: Tensor,
        sin2_low: Tensor,
        sin2_step: Tensor,
    ) -> Tensor:
        tables = Tables(azimuth_rad, response, blocked, sin2_low, sin2_step)
        found: Tensor = self.net.at(height_px[None], places[None], tables)
        return found[0].T


class FinetuneGraph(nn.Module):
    """A `FinetuneNet`, one frame: simulated `shares` (S, H, W) to those that its instrument shows."""

    def __init__(self, net: FinetuneNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, shares: Tensor, p: Tensor, q: Tensor, response: Tensor) -> Tensor:
        found: Tensor = self.net(*(values.unsqueeze(0) for values in (shares, p, q, response)))
        return found.squeeze(0)
