"""The filter takes noise from slopes, leaves the surface, and needs to be told nothing about it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from inference.networks.poisson import integrate, slopes_of
from inference.networks.slopes import staggered
from inference.networks.wiener import filtered
from inference.training.surface_errors import surface_errors
from service.benchmarks.theory import wiener_filtered

SIZE_PX = 96
CORRELATION_PX, DEVIATION_PX = 8.0, 0.4
SHARP = torch.zeros(1)


def rough(seed: int) -> Tensor:
    """(1, H, W) a surface of Gaussian correlation, and room around it."""
    rng = np.random.default_rng(seed)
    wide = gaussian_filter(rng.normal(size=(SIZE_PX + 64, SIZE_PX + 64)), 0.5 * CORRELATION_PX)
    return torch.from_numpy((DEVIATION_PX * wide / wide.std())[None, 32:-32, 32:-32].astype(np.float32))


def measured(height: Tensor, sigma: float, seed: int = 0, aspect: float = 1.0) -> tuple[Tensor, Tensor]:
    """Slopes of pixels with noise, as means between them."""
    torch.manual_seed(seed)
    q, p = torch.gradient(height, dim=(1, 2))
    both = torch.stack([p, aspect * q], dim=1)
    return staggered(both + sigma * torch.randn_like(both))


def error_deg(p: Tensor, q: Tensor, truth: Tensor) -> float:
    return math.degrees(float(surface_errors(integrate(p, q), truth)[1]))


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
def test_on_a_flat_hardly_any_noise_is_left(sigma: float) -> None:
    flat = torch.zeros(1, SIZE_PX, SIZE_PX)
    p, q = measured(flat, sigma)
    found = filtered(p, q, torch.tensor([sigma**2]), SHARP)
    assert error_deg(found.p, found.q, flat) < 0.2 * error_deg(p, q, flat)
    assert float(found.left) < 0.05


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.3])
def test_it_comes_near_the_filter_that_knows_the_spectrum(sigma: float) -> None:
    ours, best = [], []
    known = {"deviation_px": DEVIATION_PX, "correlation_px": CORRELATION_PX}
    for seed in range(4):
        truth = rough(seed)
        p, q = measured(truth, sigma, seed)
        found = filtered(p, q, torch.tensor([sigma**2]), SHARP)
        told = wiener_filtered(integrate(p, q)[0].double().numpy(), known, sigma**2)
        ours.append(error_deg(found.p, found.q, truth))
        best.append(error_deg(*slopes_of(torch.from_numpy(told[None].astype(np.float32))), truth))
        assert ours[-1] < error_deg(p, q, truth)
    assert np.mean(ours) < 1.35 * np.mean(best)


def test_without_noise_it_undoes_what_pixels_and_beam_have_weakened() -> None:
    columns = torch.arange(SIZE_PX) + 0.5
    wave = 0.1 * torch.cos(2.0 * math.pi * columns / 6.0).expand(1, SIZE_PX, SIZE_PX)
    blur = math.exp(-0.5 * (2.0 * math.pi / 6.0) ** 2)
    slope = -0.1 * 2.0 * math.pi / 6.0 * blur * torch.sin(2.0 * math.pi * columns / 6.0)
    p, q = staggered(torch.stack([slope.expand_as(wave), torch.zeros_like(wave)], dim=1))
    sharp = filtered(p, q, torch.tensor([1e-8]), torch.ones(1))
    assert error_deg(sharp.p, sharp.q, wave) < 0.2 * error_deg(p, q, wave)


def test_pixels_need_not_be_square() -> None:
    truth, aspect, sigma = rough(1), 0.7, 0.1
    p, q = measured(truth, sigma, aspect=aspect)
    found = filtered(p, q, torch.tensor([sigma**2]), SHARP, aspect)
    true_p, true_q = slopes_of(truth, aspect)
    for before, after, true in ((p, found.p, true_p), (q, found.q, true_q)):
        assert float((after - true).square().mean()) < 0.5 * float((before - true).square().mean())


def test_a_direction_is_kept() -> None:
    """A fine grating in strong noise stays, as no smoothing alike in all directions would let it."""
    columns = torch.arange(SIZE_PX) + 0.5
    grating = 0.25 * torch.cos(2.0 * math.pi * columns / 5.0).expand(1, SIZE_PX, SIZE_PX)
    p, q = measured(grating, 0.2)
    found = filtered(p, q, torch.tensor([0.04]), SHARP)
    assert error_deg(found.p, found.q, grating) < 0.6 * error_deg(p, q, grating)
