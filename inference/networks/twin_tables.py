"""The acceptance tables in torch, differentiable by every number of the detector's geometry."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from acquisition.errors import BadInput
from acquisition.instrument import Detector, Instrument
from inference.forward_model.optics import HORIZON_STEPS, RAYS_PER_BIN, bin_edges, emission_energy_ev
from inference.forward_model.paths import sin2_over_straight


class Tables(NamedTuple):
    """`inference.forward_model.Acceptance` as tensors: azimuth_rad (K,), response (S, 3), blocked (K, U + 1, S, 3)."""

    azimuth_rad: Tensor
    response: Tensor
    blocked: Tensor
    sin2_low: Tensor
    sin2_step: Tensor

    @property
    def occluding_slope(self) -> float:
        high = (self.sin2_low + (self.blocked.shape[1] - 1) * self.sin2_step).item()
        return math.sqrt((1.0 - high) / high)


class Geometry(nn.Module):
    """A detector's numbers as float64 parameters, under the names of the instrument file; radii and gaps are (S,).

    Segment azimuths stay as the file has them: `rotation_deg` turns them together. With a biased specimen the paths'
    curvature stays that of the file's working distance. Raises `BadInput` for segments without radii.
    """

    def __init__(self, instrument: Instrument) -> None:
        super().__init__()
        detector = instrument.detector
        if any(segment.outer_radius_m is None for segment in detector.segments):
            raise BadInput("the twin needs inner_radius_m and outer_radius_m of every segment")
        self.detector: Detector = detector
        emitted = instrument.beam.model_copy(update={"energy_ev": emission_energy_ev(instrument)})
        self.curved = sin2_over_straight(detector, instrument.specimen, emitted)
        self.working_distance_m = _parameter(detector.working_distance_m)
        self.rotation_deg = _parameter(detector.rotation_deg)
        self.offset_x_m = _parameter(detector.offset_x_m)
        self.offset_y_m = _parameter(detector.offset_y_m)
        self.inner_radius_m = _parameter([segment.inner_radius_m or 0.0 for segment in detector.segments])
        self.outer_radius_m = _parameter([segment.outer_radius_m or 0.0 for segment in detector.segments])
        self.gap_m = _parameter([segment.gap_m for segment in detector.segments])

    def tables(self) -> Tables:
        """The same discretisation as `inference.forward_model.acceptance`: equal to rounding."""
        turned = torch.deg2rad(self.rotation_deg - self.detector.rotation_deg)
        edges = torch.from_numpy(bin_edges(self.detector)) + turned
        widths = torch.diff(edges)
        fraction = (torch.arange(RAYS_PER_BIN, dtype=torch.float64) + 0.5) / RAYS_PER_BIN
        rays = (edges[:-1, None] + widths[:, None] * fraction).reshape(-1)
        stretches = [self._stretches(segment, rays) for segment in range(len(self.detector.segments))]
        low = torch.stack([lows.min() for _, lows, _ in stretches]).min()
        high = torch.stack([highs.max() for _, _, highs in stretches]).max()
        steps = torch.arange(HORIZON_STEPS + 1, dtype=torch.float64) / HORIZON_STEPS
        horizon = low + (high - low) * steps
        weight = (widths / (RAYS_PER_BIN * math.pi)).repeat_interleave(RAYS_PER_BIN)
        captured = [_captured(rays, weight, len(widths), stretch, horizon) for stretch in stretches]
        by_horizon = torch.stack(captured, dim=2)  # (K, U + 2, S, 3), the last without any horizon
        by_horizon, full = by_horizon[:, :-1], by_horizon[:, -1:]
        return Tables(
            azimuth_rad=edges[:-1] + 0.5 * widths,
            response=full.sum(dim=(0, 1)),
            blocked=full - by_horizon,
            sin2_low=low,
            sin2_step=(high - low) / HORIZON_STEPS,
        )

    def response(self) -> Tensor:
        """(S, 3): `Tables.response` alone, without the horizons that make most of the tables' work."""
        turned = torch.deg2rad(self.rotation_deg - self.detector.rotation_deg)
        edges = torch.from_numpy(bin_edges(self.detector)) + turned
        widths = torch.diff(edges)
        fraction = (torch.arange(RAYS_PER_BIN, dtype=torch.float64) + 0.5) / RAYS_PER_BIN
        rays = (edges[:-1, None] + widths[:, None] * fraction).reshape(-1)
        weight = (widths / (RAYS_PER_BIN * math.pi)).repeat_interleave(RAYS_PER_BIN)
        nothing = torch.empty(0, dtype=torch.float64)
        stretches = (self._stretches(segment, rays) for segment in range(len(self.detector.segments)))
        captured = [_captured(rays, weight, len(widths), stretch, nothing) for stretch in stretches]
        return torch.stack([one.sum(dim=(0, 1)) for one in captured])

    def _stretches(self, index: int, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where rays meet a segment: ray number, lower and upper sin²(theta), each (M,)."""
        segment = self.detector.segments[index]
        inner, outer, half_gap = self.inner_radius_m[index], self.outer_radius_m[index], 0.5 * self.gap_m[index]
        along_x, along_y = torch.cos(rays), -torch.sin(rays)
        middle = along_x * self.offset_x_m + along_y * self.offset_y_m
        aside2 = (along_x * self.offset_y_m - along_y * self.offset_x_m) ** 2
        crossings = [torch.zeros_like(rays)]
        for radius in (inner, outer):
            reached = radius**2 - aside2
            root = torch.where(reached > 0, reached, torch.ones_like(reached)).sqrt() * (reached > 0)
            crossings += [middle - root, middle + root]
        edges = [torch.deg2rad(self.rotation_deg + edge) for edge in (segment.azimuth_from_deg, segment.azimuth_to_deg)]
        for edge, side in zip(edges, (1.0, -1.0), strict=True):
            inward_x, inward_y = -side * torch.sin(edge), -side * torch.cos(edge)
            approach = along_x * inward_x + along_y * inward_y
            distance = half_gap + self.offset_x_m * inward_x + self.offset_y_m * inward_y
            crosses = approach.abs() > 1e-12
            crossings.append(torch.where(crosses, distance / torch.where(crosses, approach, 1.0), 0.0))
        radii = torch.sort(torch.stack(crossings, dim=-1).clamp_min(0.0), dim=-1).values
        with torch.no_grad():
            met = self._on_segment(index, rays, 0.5 * (radii[:, 1:] + radii[:, :-1]), edges)
            met &= radii[:, 1:] > radii[:, :-1]
        if not met.any():
            raise BadInput(f"segment {segment.name} has no open area: its gap is wider than the segment")
        ray, stretch = met.nonzero(as_tuple=True)
        straight = radii**2 / (radii**2 + self.working_distance_m**2)
        sin2: Tensor = straight if self.curved is None else _Curved.apply(straight, self.curved)  # type: ignore[no-untyped-call]
        return ray, sin2[ray, stretch], sin2[ray, stretch + 1]

    def _on_segment(self, index: int, rays: Tensor, radius: Tensor, edges: list[Tensor]) -> Tensor:
        """(rays, stretches) bool: whether the point of each ray at `radius` lies on the segment's open area."""
        segment = self.detector.segments[index]
        x = radius * torch.cos(rays)[:, None] - self.offset_x_m
        y = -radius * torch.sin(rays)[:, None] - self.offset_y_m
        from_centre = torch.hypot(x, y)
        met = (from_centre > self.inner_radius_m[index]) & (from_centre < self.outer_radius_m[index])
        width = math.radians(segment.azimuth_to_deg - segment.azimuth_from_deg)
        met &= torch.remainder(torch.atan2(-y, x) - edges[0], 2.0 * math.pi) < width
        for edge in edges:
            ahead = x * torch.cos(edge) - y * torch.sin(edge)
            aside = (x * torch.sin(edge) + y * torch.cos(edge)).abs()
            met &= torch.where(ahead > 0, aside, from_centre) >= 0.5 * self.gap_m[index]
        return met


class _Curved(torch.autograd.Function):
    """Squared sines of curved paths over those of straight ones, by the forward model's own table."""

    @staticmethod
    def forward(ctx: Any, straight: Tensor, table: CubicSpline) -> Tensor:
        places = straight.detach().numpy()
        reached = places < table.x[-1]
        ctx.slope = np.where(reached, table(places, 1), 0.0)
        return torch.from_numpy(np.where(reached, np.clip(table(places), 0.0, 1.0), 1.0))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return upstream[0] * torch.from_numpy(ctx.slope), None


def _captured(
    rays: Tensor, weight: Tensor, bins: int, stretch: tuple[Tensor, Tensor, Tensor], horizon: Tensor
) -> Tensor:
    """(K, U + 2, 3): what one segment collects below each horizon, and in all, by bin, for n_x, n_y and n_z."""
    ray, low, high = stretch
    # Where a horizon stands right at a limit it is the horizon that stays: the limit may move beyond it.
    below = torch.where(
        horizon > low[:, None], torch.where(horizon <= high[:, None], horizon, high[:, None]), low[:, None]
    )
    top = torch.cat([below, high[:, None]], dim=1)  # (M, U + 2)
    upright = 0.5 * (top - low[:, None]) * weight[ray, None]
    sideways = (_sideways(top) - _sideways(low[:, None])) * weight[ray, None]
    parts = torch.stack(
        [torch.cos(rays[ray])[:, None] * sideways, -torch.sin(rays[ray])[:, None] * sideways, upright], dim=-1
    )
    return torch.zeros(bins, top.shape[1], 3, dtype=torch.float64).index_add(0, ray // RAYS_PER_BIN, parts)


def _sideways(sin2: Tensor) -> Tensor:
    """theta/2 - sin(2 theta)/4 as a function of sin²(theta)."""
    return 0.5 * (torch.asin(sin2.sqrt()) - (sin2 * (1.0 - sin2)).sqrt())


def _parameter(value: float | list[float]) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(np.asarray(value, np.float64)))
