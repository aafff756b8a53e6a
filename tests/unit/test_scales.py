"""Slopes taken apart by scale come together again, and what was not measured says nothing about what was."""

from __future__ import annotations

import pytest
import torch

from inference.networks.scales import coarser, finer, take_apart


@pytest.mark.parametrize("shape", [(64, 64), (33, 50), (17, 16)])
def test_all_bands_together_are_the_slopes(shape: tuple[int, int]) -> None:
    slopes, variances = torch.randn(1, 2, *shape), torch.rand(1, 2, *shape)
    bands, _ = take_apart(slopes, slopes, variances, torch.ones(1, 1, *shape), 4)
    whole = bands[-1]
    for band in reversed(bands[:-1]):
        whole = finer(whole, band) + band
    torch.testing.assert_close(whole, slopes)


@pytest.mark.parametrize("shape", [(64, 64), (33, 50)])
def test_steady_slopes_are_steady_at_every_scale_up_to_the_border(shape: tuple[int, int]) -> None:
    slopes = torch.full((1, 2, *shape), 0.3)
    bands, _ = take_apart(slopes, slopes, slopes, torch.ones(1, 1, *shape), 4)
    for band in bands[:-1]:
        torch.testing.assert_close(band, torch.zeros_like(band), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(bands[-1], torch.full_like(bands[-1], 0.3))


def test_a_slope_that_means_nothing_hardly_moves_the_coarser_ones() -> None:
    slopes, lit = torch.full((1, 2, 64, 64), 0.1), torch.ones(1, 1, 64, 64)
    slopes[..., 30, 30], lit[..., 30, 30] = 3.0, 0.0
    coarse = take_apart(slopes, slopes, slopes, lit, 3).bands[-1]
    believed = take_apart(slopes, slopes, slopes, torch.ones_like(lit), 3).bands[-1]
    assert float((coarse - 0.1).abs().max()) < 0.02 * float((believed - 0.1).abs().max())


def test_noise_is_told_to_be_about_its_own_size_at_every_scale() -> None:
    torch.manual_seed(1)
    slopes = 0.2 * torch.randn(1, 2, 256, 256)
    bands, told = take_apart(slopes, slopes, torch.full_like(slopes, 0.04), torch.ones(1, 1, 256, 256), 4)
    assert [of_it.shape[1] for of_it in told] == [4, 8, 8, 8, 8] and len(bands) == len(told)
    for of_it in told:
        outstanding_squared = torch.exp(2.0 * of_it[:, 2:4]) - 1.0
        assert 0.3 < float(outstanding_squared.mean().sqrt()) < 3.0
    for band, of_it in zip(bands[1:], told[1:], strict=True):
        sigma = torch.exp(0.5 * of_it[:, 6:] / 0.2)
        assert 0.3 < float((band / sigma).std()) < 3.0


def test_halving_counts_every_pixel_equally_inside() -> None:
    weights = torch.zeros(1, 1, 32, 32)
    totals = []
    for place in range(12, 20):
        weights.zero_()[..., place, place + 1] = 1.0
        totals.append(float(coarser(weights).sum()))
    assert max(totals) == pytest.approx(min(totals))
