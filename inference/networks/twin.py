"""The differentiable twin of BSESM: the same images, with gradients to heights and to the instrument's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.forward_model import Acceptance
from inference.forward_model.adjoint import march_gradients
from inference.forward_model.exposure import search_limits
from inference.forward_model.intensity import ONE_AT_A_TIME, Scene, directions, march
from inference.forward_model.rendering import emitted_per_pixel
from inference.networks.twin_tables import Geometry, Tables


class Twin(nn.Module):
    """Heights to expected counts, as `inference.forward_model.expected_counts` renders them.

    Parameters (float64) carry the names of the instrument file: those of `Geometry`, `tilt_x_deg`, `tilt_y_deg`,
    `gain_counts_per_electron` and `dark_counts` (S,), `sigma_px`, and `emitted`, the electrons emitted per pixel.
    Freeze what isn't fitted with `requires_grad_(False)`. Runs on the CPU, in numba's kernels.
    """

    def __init__(self, instrument: Instrument, dose: float | None = None) -> None:
        super().__init__()
        self.geometry = Geometry(instrument)
        self.instrument = instrument
        segments = instrument.detector.segments
        self.tilt_x_deg = _parameter(instrument.specimen.tilt_x_deg)
        self.tilt_y_deg = _parameter(instrument.specimen.tilt_y_deg)
        self.gain_counts_per_electron = _parameter([s.gain_counts_per_electron or 1.0 for s in segments])
        self.dark_counts = _parameter([s.dark_counts or 0.0 for s in segments])
        self.sigma_px = _parameter(instrument.beam.sigma_px)
        self.emitted = _parameter(emitted_per_pixel(instrument, dose))
        if instrument.beam.tail_fraction:
            raise BadInput("the twin has no wide beam tail: set beam.tail_fraction to 0")

    def forward(self, heights_m: Tensor, tables: Tables | None = None) -> Tensor:
        """(S, H, W) expected counts of `heights_m` (H, W)."""
        counts = self.electrons(heights_m, tables) * self.gain_counts_per_electron[:, None, None]
        return counts + self.dark_counts[:, None, None]

    def electrons(self, heights_m: Tensor, tables: Tables | None = None) -> Tensor:
        """(S, H, W) expected electrons. `tables` of an unchanged geometry save their making (half a second)."""
        electrons = self.fractions(heights_m, tables) * self.emitted
        return _blurred(electrons, self.sigma_px) if float(self.sigma_px.detach()) > 0 else electrons

    def fractions(self, heights_m: Tensor, tables: Tables | None = None) -> Tensor:
        """(S, H, W) float64. Raises `BadInput` for heights that are not (H, W) with 2 x 2 pixels or more."""
        if heights_m.ndim != 2 or min(heights_m.shape) < 2:
            raise BadInput(f"heights of shape {tuple(heights_m.shape)}: expected (H, W) with at least 2 x 2 pixels")
        scan = self.instrument.scan
        width_m, height_m = scan.pixel_size_m, scan.pixel_size_y_m or scan.pixel_size_m
        unit_m = min(width_m, height_m)
        rows, columns = heights_m.shape
        x = (torch.arange(columns, dtype=torch.float64) - 0.5 * columns) * (width_m / unit_m)
        y = (torch.arange(rows, dtype=torch.float64) - 0.5 * rows) * (height_m / unit_m)
        surface = (heights_m.double() - heights_m.double().mean()) / unit_m
        surface = surface + torch.tan(torch.deg2rad(self.tilt_x_deg)) * x
        surface = surface - torch.tan(torch.deg2rad(self.tilt_y_deg)) * y[:, None]
        found = self.geometry.tables() if tables is None else tables
        per_length = np.array([unit_m / width_m, unit_m / height_m])
        fractions: Tensor = _Capture.apply(surface, *found, per_length, found.occluding_slope)  # type: ignore[no-untyped-call]
        return fractions


class _Capture(torch.autograd.Function):
    """The intensity kernel and its adjoint as one differentiable operation."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        surface, azimuth_rad, response, blocked, low, step, per_length, occluding_slope = inputs
        azimuths = azimuth_rad.detach().numpy()
        table = Acceptance(
            azimuth_rad=azimuths,
            response=response.detach().numpy(),
            blocked=blocked.detach().numpy(),
            sin2_low=float(low),
            sin2_step=float(step),
            occluding_slope=occluding_slope,
        )
        scene = Scene(np.ascontiguousarray(surface.detach().numpy()), per_length, directions(azimuths), table)
        with ONE_AT_A_TIME:
            radius, ceiling = search_limits(scene.surface, occluding_slope)
            fractions = march(scene, radius, ceiling)
        ctx.kept = (scene, radius, ceiling)
        return torch.from_numpy(fractions)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        scene, radius, ceiling = ctx.kept
        found = march_gradients(scene, radius, ceiling, np.ascontiguousarray(upstream[0].numpy()))
        return *(torch.as_tensor(gradient) for gradient in found), None, None


def _blurred(electrons: Tensor, sigma_px: Tensor) -> Tensor:
    """The Gaussian probe, mirrored at the border; `inference.forward_model.rendering` blurs the same way."""
    margin = int(np.ceil(4 * float(sigma_px.detach())))
    rows, columns = electrons.shape[1:]
    mirrored = [torch.from_numpy(np.pad(np.arange(size), margin, mode="symmetric")) for size in (rows, columns)]
    padded = electrons[:, mirrored[0]][:, :, mirrored[1]]
    along_y = torch.fft.fftfreq(padded.shape[1], dtype=torch.float64)[:, None]
    along_x = torch.fft.rfftfreq(padded.shape[2], dtype=torch.float64)
    transfer = torch.exp(-2.0 * np.pi**2 * (along_x**2 + along_y**2) * sigma_px**2)
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=tuple(padded.shape[1:]))
    inside: Tensor = blurred[:, margin : margin + rows, margin : margin + columns]
    return inside


def _parameter(value: float | list[float]) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(np.asarray(value, np.float64)))
