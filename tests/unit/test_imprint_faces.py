"""The faces of an imprint tell by their noise how much of a level is signal, and with the dose their inclination."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant
from service.benchmarks.imprint_faces import FaceSignals, face_signals
from service.benchmarks.imprint_prior import posterior, quantiles

BINNED, SIDE, PIXEL_M = 4, 160, 0.26e-6
TILT = np.radians(22.0)
GAIN, SIGNAL, MODULATION = 12.0, 24_000.0, 0.58


def pyramid_px() -> NDArray[np.float64]:
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2.0
    return np.asarray(-np.tan(TILT) * np.maximum(26.0 - np.maximum(np.abs(x + 0.4 * y), np.abs(y - 0.4 * x)), 0.0))


def seen(dark_counts: float, scale: float = 1.0, amplifier: float = 0.0) -> NDArray[np.uint16]:
    """Three segments with a dark level of `dark_counts`, which may lie below zero; `amplifier` is the part of
    the flat's noise that isn't the electrons'."""
    height, rng = pyramid_px(), np.random.default_rng(3)
    q, p = (np.kron(one, np.ones((BINNED, BINNED))) for one in np.gradient(height))
    upright = 1.0 / np.sqrt(1.0 + p**2 + q**2)
    brighter = (2.0 / (1.0 + upright)) ** 2
    images = []
    for azimuth in np.radians([20.0, 140.0, 260.0]):
        normal = upright + MODULATION * upright * (-p * np.cos(azimuth) + q * np.sin(azimuth))
        constant = np.sqrt(GAIN * SIGNAL * amplifier / (1.0 - amplifier)) * rng.normal(size=p.shape)
        images.append(rng.poisson(SIGNAL / GAIN * brighter * normal) * GAIN + dark_counts + constant)
    return np.clip(np.rint(np.array(images) * scale), 0, 65535).astype(np.uint16)


def signals(*about: float) -> FaceSignals:
    return face_signals(seen(*about), pyramid_px(), BINNED, PIXEL_M)


@pytest.mark.parametrize("dark_counts", [-9_000.0, 0.0, 9_000.0])
def test_noise_against_signal_tells_the_share_of_the_level_that_is_signal(dark_counts: float) -> None:
    found = signals(dark_counts)
    truth = SIGNAL / (SIGNAL + dark_counts)
    assert found.shot_limit == pytest.approx(np.full(3, truth), rel=0.25)
    assert found.growth == pytest.approx(np.full(3, GAIN), rel=0.25)
    assert found.swing.mean() == pytest.approx(
        truth * MODULATION * np.sin(TILT) * (2 / (1 + np.cos(TILT))) ** 2, rel=0.1
    )


def test_the_inclination_lies_inside_what_is_told_of_it() -> None:
    beam = {"current_a": 0.5e-9, "dwell_time_s": 20e-6}
    file: Instrument = four_quadrant().with_scan(working_distance_m=5e-3, **beam)
    found = posterior(np.random.default_rng(1), signals(-9_000.0, 1.0, 0.3), file)
    low, _, high = np.degrees(quantiles(found.tilt_rad, found.weights))
    assert low < 22.0 < high and high - low < 25.0
    # without the number of electrons amplifier noise may be nearly all of it: only a lower bound is sharp
    wide = np.degrees(quantiles(found.tilt_rad, found.by_noise))
    assert wide[2] - wide[0] > high - low and found.effective > 1000.0


def test_saturated_faces_do_not_count_for_noise_and_too_few_others_are_refused() -> None:
    with pytest.raises(BadInput, match="noise against signal needs three"):
        face_signals(np.full((3, SIDE * BINNED, SIDE * BINNED), 65535, np.uint16), pyramid_px(), BINNED, PIXEL_M)
    assert (signals(5_000.0, 1.8).growth > 0).all()
