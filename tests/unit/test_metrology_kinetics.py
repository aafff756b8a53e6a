"""Rate laws, rings and descriptors give back what their data were made with."""

from __future__ import annotations

import math

import numpy as np
import pytest

from acquisition.errors import BadInput
from inference.metrology.descriptors import KINDS, features, look_around, parse_model, shipped, zernike
from inference.metrology.height_map import HeightMap
from inference.metrology.kinetics import Series, fit_rate_law
from inference.metrology.patches import confusion, height_noise, patches, train
from inference.metrology.resolution import ring_correlation, transfer
from inference.metrology.steps import find_steps
from surfaces_of_steps import PIXEL_M, as_map, straight_m

KELVIN = np.repeat([1000.0, 1040.0, 1080.0, 1120.0], 6)
PASCAL = np.tile([5.0, 10.0, 20.0], 8)


def rates(noise: float, order: float = 0.0, seed: int = 1) -> np.ndarray:
    law = 12e-9 * np.exp(-1.1 / 8.617333262e-5 * (1 / KELVIN - 1 / 1100)) * (PASCAL / 20.0) ** order
    return law * (1 + noise * np.random.default_rng(seed).normal(size=len(KELVIN)))


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.05])
def test_activation_energy_comes_back_within_its_error(noise: float) -> None:
    found = fit_rate_law(KELVIN, rates(noise), noise * rates(0.0))
    assert abs(found.energy_ev - 1.1) < 4 * found.energy_error_ev
    assert found.energy_error_ev < 3 * noise


def test_order_in_a_gas_is_told_apart_from_the_energy() -> None:
    found = fit_rate_law(KELVIN, rates(0.01, 0.5), pressure_pa=PASCAL)
    assert found.order == pytest.approx(0.5, abs=0.03)
    assert found.energy_ev == pytest.approx(1.1, abs=0.05)


def test_the_band_holds_the_true_law_as_often_as_it_says() -> None:
    truth = float(rates(0.0)[0])
    held = []
    for seed in range(200):
        low, high = fit_rate_law(KELVIN, rates(0.05, seed=seed), rates(0.0)).band(KELVIN[:1])
        held.append(low[0] < truth < high[0])
    assert 0.9 < np.mean(held) < 0.99


def test_one_temperature_gives_no_activation_energy() -> None:
    with pytest.raises(BadInput, match=r"from 1000\.0 to 1000\.0 K"):
        fit_rate_law(np.full(24, 1000.0), rates(0.01))


def test_two_rates_are_too_few() -> None:
    with pytest.raises(BadInput, match="2 rates are too few for 2 unknowns"):
        fit_rate_law([1000.0, 1100.0], [1.0, 2.0])


def test_partial_pressure_is_the_gas_share_of_the_flow() -> None:
    state = {"gauge.pressure_pa": 120.0, "oxygen.flow_mol_per_s": 1.0, "hydrogen.flow_mol_per_s": 5.0}
    one = np.zeros(1)
    series = Series("velocity", "m/s", one, one, one, (state,))
    assert series.partial_pressure_pa("oxygen") == pytest.approx([20.0])
    assert math.isnan(series.partial_pressure_pa("argon")[0])


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.3])
def test_rings_show_where_noise_takes_over(noise: float) -> None:
    """Power of the scene falls with the fourth power of frequency: it meets the noise where it can be told."""
    rng = np.random.default_rng(1)
    frequency = np.maximum(np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)), 1 / 256)
    scene = np.real(np.fft.ifft2(np.fft.fft2(rng.normal(size=(256, 256))) * 0.001 / frequency**2))
    found = ring_correlation(*(scene + noise * rng.normal(size=scene.shape) for _ in range(2)), 2e-9)
    # A correlation of 0.143 is a power of the scene of 1/6 of the noise's.
    expected_m = 2e-9 * math.sqrt(noise / math.sqrt(6.0) / 0.001)
    assert found.fixed_m == pytest.approx(expected_m, rel=0.2)
    assert found.half_bit_m > found.fixed_m


def test_unlike_pictures_are_refused() -> None:
    with pytest.raises(BadInput, match="two of the same size"):
        ring_correlation(np.zeros((64, 64)), np.zeros((64, 32)), 1e-9)


def test_transfer_of_a_blurred_height_is_that_of_the_blur() -> None:
    from scipy.ndimage import gaussian_filter

    truth = np.random.default_rng(1).normal(size=(256, 256))
    found = transfer(
        HeightMap(gaussian_filter(truth, 2.0, mode="wrap"), PIXEL_M, PIXEL_M), HeightMap(truth, PIXEL_M, PIXEL_M)
    )
    assert found.half_m == pytest.approx(PIXEL_M * 2 * math.pi * 2.0 / math.sqrt(2 * math.log(2)), rel=0.05)


@pytest.mark.parametrize("dose", [100.0, 600.0, 10000.0])
def test_every_kind_of_place_is_told_at_every_dose(dose: float) -> None:
    right = np.diag(confusion(shipped(), dose, 60, 5))
    assert dict(zip(KINDS, right, strict=True)) == pytest.approx(dict.fromkeys(KINDS, 1.0), abs=0.15)


def test_moments_do_not_change_their_size_when_the_patch_is_turned() -> None:
    made = patches("core", 20, np.random.default_rng(1), 10000.0)
    turned = np.abs(zernike(np.rot90(made, axes=(1, 2))))
    assert turned == pytest.approx(np.abs(zernike(made)), rel=1e-6, abs=1e-9)


def test_training_makes_a_model_that_tells_kinds_apart() -> None:
    assert np.diag(confusion(train(60), 600.0, 40, 3)).mean() > 0.9


def test_the_stored_model_is_as_wide_as_the_features() -> None:
    width = features(np.zeros((1, 21, 21)) + height_noise((21, 21), 600.0, np.random.default_rng(1))).shape[1]
    assert shipped().weights.shape == (2 * width, len(KINDS))
    with pytest.raises(KeyError):
        parse_model("{}")


def test_a_step_looks_like_a_step_and_a_terrace_like_a_terrace() -> None:
    map = as_map(straight_m(160, 25.0), 600.0)
    lines = find_steps(map).lines
    long = [line for line in lines if line.length_m > 300e-9]
    assert {look_around(map, line.places_px[::8]).together()[0] for line in long} == {"step"}
    flat = as_map(np.zeros((64, 64)), 600.0)
    assert look_around(flat, np.array([[32.0, 32.0], [2.0, 32.0]])).kinds == ["terrace"]
