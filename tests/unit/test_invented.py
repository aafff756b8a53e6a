"""What is the surface's and what is invented is told apart scale by scale."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from service.benchmarks.invented import detail
from service.benchmarks.model_sets import Slopes

RNG = np.random.default_rng(11)
TRUTH = gaussian_filter(RNG.normal(size=(128, 128)), 1.0) * 5.0


def slopes_of(height: np.ndarray, sigma: float) -> Slopes:
    p, q = np.diff(height, axis=1), np.diff(height, axis=0)
    return Slopes(p, q, np.full_like(p, sigma), np.full_like(q, sigma), np.zeros(height.shape, np.uint8))


def test_the_truth_is_resolved_to_the_last_and_nothing_is_invented() -> None:
    found = detail(slopes_of(TRUTH, 0.0), TRUTH, TRUTH)
    assert found.resolved_px < 2.0
    assert found.invented == pytest.approx(0.0, abs=1e-9)
    assert found.stated == 0.0


def test_a_smoothed_truth_invents_nothing() -> None:
    smooth = gaussian_filter(TRUTH, 3.0)
    assert detail(slopes_of(smooth, 0.1), smooth, TRUTH).invented < 0.05


def test_another_surface_is_invented_as_a_whole() -> None:
    other = gaussian_filter(RNG.normal(size=(128, 128)), 1.0) * 5.0
    found = detail(slopes_of(other, 0.1), other, TRUTH)
    assert found.invented > 0.95
    assert found.resolved_px > 10.0


def test_noise_on_top_is_the_part_that_is_invented_and_honest_sigmas_say_so() -> None:
    noise = RNG.normal(size=TRUTH.shape)
    given = TRUTH + noise
    found = detail(slopes_of(given, 2.0**0.5), given, TRUTH)
    p, q = np.diff(noise, axis=1), np.diff(noise, axis=0)
    expected = float((p**2).mean() + (q**2).mean())
    expected /= expected + float((np.diff(TRUTH, axis=1) ** 2).mean() + (np.diff(TRUTH, axis=0) ** 2).mean())
    assert found.invented == pytest.approx(expected, rel=0.1)
    assert found.stated == pytest.approx(expected, rel=0.1)


def test_a_scale_is_resolved_where_it_stands_out_of_the_noise() -> None:
    coarse = gaussian_filter(RNG.normal(size=(128, 128)), 6.0) * 200.0
    given = coarse + 0.3 * RNG.normal(size=coarse.shape)
    resolved = detail(slopes_of(given, 0.3), given, coarse).resolved_px
    assert 6.0 < resolved < 30.0
