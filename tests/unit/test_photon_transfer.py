"""Gain from noise, dark levels from blanked frames."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Effects, Instrument, four_quadrant
from inference.forward_model import render
from inference.refinement.photon_transfer import DarkLevels, dark_levels, photon_transfer

GAINS = np.array([6.0, 8.0, 9.5, 7.0])
DARKS = np.array([150.0, 220.0, 305.0, 180.0])
READ_COUNTS = 12.0


def _instrument(**effects: float) -> Instrument:
    base = four_quadrant()
    segments = tuple(
        segment.model_copy(update={"gain_counts_per_electron": gain, "dark_counts": dark})
        for segment, gain, dark in zip(base.detector.segments, GAINS, DARKS, strict=True)
    )
    detector = base.detector.model_copy(update={"segments": segments})
    return base.model_copy(update={"detector": detector, "effects": Effects(**effects)})


def _frames(count: int, drift_px: float = 0.0, **effects: float) -> list[NDArray[np.uint16]]:
    instrument, rng = _instrument(**effects), np.random.default_rng(3)
    y, x = np.mgrid[:128, :128].astype(float)
    pixel_m = instrument.scan.pixel_size_m

    def heights_m(shift: float) -> NDArray[np.float64]:
        return 3.0 * pixel_m * (np.sin((x - shift) / 6.0) + np.cos(y / 9.0 + x / 20.0))

    return [render(heights_m(n * drift_px), instrument, rng, dose=1000.0) for n in range(count)]


def _blanked(count: int) -> list[NDArray[np.uint16]]:
    rng = np.random.default_rng(5)
    level = DARKS[:, None, None]
    return [np.rint(level + rng.normal(0, READ_COUNTS, (4, 64, 64))).astype(np.uint16) for _ in range(count)]


def test_dark_levels_and_read_noise_are_found_within_their_errors() -> None:
    found = dark_levels(_blanked(4))
    assert np.all(np.abs(found.dark_counts - DARKS) < 4 * found.dark_sigma_counts)
    assert np.all(found.dark_sigma_counts < 0.4)
    assert found.read_noise_counts == pytest.approx(np.full(4, READ_COUNTS), rel=0.03)


@pytest.mark.parametrize("drift_px", [0.0, 0.3])
def test_gain_is_found_within_its_error_still_and_drifting(drift_px: float) -> None:
    frames = _frames(4, drift_px, read_noise_counts=READ_COUNTS)
    found = photon_transfer(frames, dark_levels(_blanked(4)))
    assert np.all(np.abs(found.gain_counts_per_electron - GAINS) < 3.5 * found.gain_sigma)
    assert np.all(found.gain_sigma < 0.03 * GAINS)


def test_gain_without_dark_frames_comes_from_the_slope_of_variance_over_mean() -> None:
    found = photon_transfer(_frames(6))
    assert np.all(np.abs(found.gain_counts_per_electron - GAINS) < 3.5 * found.gain_sigma)
    assert np.all(found.gain_sigma < 0.1 * GAINS)


def test_lag_of_the_preamplifier_does_not_pass_for_a_lower_gain() -> None:
    dark = DarkLevels(DARKS, np.full(4, 0.1), np.zeros(4))
    found = photon_transfer(_frames(4, lag_s=0.6e-6), dark)
    assert np.all(found.noise_correlation > 0.1)
    assert np.all(np.abs(found.gain_counts_per_electron - GAINS) < 3.5 * found.gain_sigma)


def test_what_cannot_give_a_gain_is_refused() -> None:
    flat = np.full((4, 64, 64), 900, np.uint16)
    with pytest.raises(BadInput, match="two frames"):
        photon_transfer([flat])
    with pytest.raises(BadInput, match="too little to tell gain from dark level"):
        photon_transfer([flat, flat])


def test_a_beam_that_was_not_blanked_is_told() -> None:
    with pytest.raises(BadInput, match="blank the beam"):
        dark_levels(_frames(2))


def test_the_fit_of_a_drift_keeps_no_noise_to_itself() -> None:
    """On small frames four fitted numbers take 2 % of the gain of every segment alike, which no average takes out."""
    rng, size = np.random.default_rng(6), 24
    y, x = np.mgrid[:size, :size] / size
    electrons = 3000.0 * np.stack([1.0 + 0.3 * np.sin(5.0 * x + n) * np.cos(4.0 * y) for n in range(4)])
    still = DarkLevels(np.full(4, 200.0), np.full(4, 0.1), np.zeros(4))
    found = []
    for _ in range(120):
        frames = [np.rint(4.0 * rng.poisson(electrons) + 200.0).astype(np.uint16) for _ in range(4)]
        found.append(photon_transfer(frames, still).gain_counts_per_electron)
    assert np.mean(found) == pytest.approx(4.0, rel=0.008)
