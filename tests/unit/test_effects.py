"""What is beyond the first-order model: off it changes nothing, on it does what its source says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import dblquad

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from inference.forward_model import acceptance, captured_fractions, expected_counts, expected_electrons, render
from inference.forward_model.emission import emitted_fractions
from inference.forward_model.probe import gas_skirt, kanaya_okayama_range_m

PIXEL_M = 5e-9
MIDDLE = (slice(None), 20, 20)
REACTION_GAS = [{"formula": "H2", "pressure_pa": 101.0}, {"formula": "O2", "pressure_pa": 20.0}]


def instrument_with(**parts: dict[str, Any]) -> Instrument:
    tree = four_quadrant().model_dump()
    for part, values in parts.items():
        tree[part].update(values)
    return parse_instrument(tree, "the test's instrument")


def without_gaps(**effects: Any) -> Instrument:
    instrument = instrument_with(effects=effects)
    segments = tuple(segment.model_copy(update={"gap_m": 0.0}) for segment in instrument.detector.segments)
    return instrument.model_copy(update={"detector": instrument.detector.model_copy(update={"segments": segments})})


def plane(p: float, q: float, size: int = 41) -> NDArray[np.float64]:
    row, column = np.mgrid[:size, :size] - size // 2
    return PIXEL_M * (p * column + q * row)


def trench(depth_px: int = 12, width_px: int = 11, size: int = 61) -> NDArray[np.float64]:
    heights = np.zeros((size, size))
    start = (size - width_px) // 2
    heights[:, start : start + width_px] = -depth_px * PIXEL_M
    return heights


def rough(seed: int = 1, size: int = 40) -> NDArray[np.float64]:
    return np.asarray(np.random.default_rng(seed).normal(size=(size, size)) * PIXEL_M)


def test_without_effects_emission_is_the_first_order_model() -> None:
    np.testing.assert_array_equal(
        emitted_fractions(rough(), four_quadrant()), captured_fractions(rough(), four_quadrant())
    )


def test_exponent_of_almost_one_gives_almost_the_closed_form() -> None:
    """The sum over cells of directions against the closed integral, on a surface that shadows itself."""
    found = emitted_fractions(rough(), instrument_with(effects={"emission_exponent": 1.0 + 1e-9}))
    level = float(acceptance(four_quadrant()).response[:, 2].mean())
    np.testing.assert_allclose(found, captured_fractions(rough(), four_quadrant()), atol=2e-3 * level)


@pytest.mark.parametrize("exponent", [1.3, 2.0])
def test_emission_exponent_gives_the_integral_over_the_sphere(exponent: float) -> None:
    p, q = 0.5, -0.3
    normal = np.array([-p, -q, 1.0]) / math.sqrt(1 + p * p + q * q)

    def density(theta: float, azimuth: float) -> float:
        direction = math.sin(theta) * math.cos(azimuth), -math.sin(theta) * math.sin(azimuth), math.cos(theta)
        return (exponent + 1) / (2 * math.pi) * max(float(np.dot(direction, normal)), 0.0) ** exponent * math.sin(theta)

    found = emitted_fractions(plane(p, q), without_gaps(emission_exponent=exponent))[MIDDLE]
    for quadrant in range(4):
        start = math.radians(90 * quadrant - 45)
        expected = dblquad(density, start, start + math.pi / 2, math.atan(1.5 / 8), math.atan(6 / 8))[0]
        assert found[quadrant] == pytest.approx(expected, rel=2e-3)


def test_forward_lobe_leaves_level_surfaces_alone_and_brightens_the_side_that_the_mirrored_beam_hits() -> None:
    lobed = instrument_with(effects={"forward_lobe": 0.8})
    level = captured_fractions(plane(0.0, 0.0), four_quadrant())[MIDDLE]
    np.testing.assert_allclose(emitted_fractions(plane(0.0, 0.0), lobed)[MIDDLE], level, rtol=1e-3)
    tilted, plain = (emitted_fractions(plane(-0.3, 0.0), used)[MIDDLE] for used in (lobed, four_quadrant()))
    right, left = 0, 2
    assert tilted[right] > 1.02 * plain[right]
    assert tilted[left] < plain[left]


def test_tilted_copper_emits_more_by_the_law_of_arnal() -> None:
    exponent = 9 / math.sqrt(29)
    instrument = instrument_with(effects={"tilt_yield_exponent": exponent})
    tilted = emitted_fractions(plane(math.tan(math.radians(40)), 0.0), instrument)[MIDDLE]
    plain = captured_fractions(plane(math.tan(math.radians(40)), 0.0), instrument)[MIDDLE]
    assert tilted / plain == pytest.approx((2 / (1 + math.cos(math.radians(40)))) ** exponent, rel=1e-4)


def test_only_what_stands_among_walls_scatters_twice() -> None:
    instrument = instrument_with(effects={"second_scattering": 0.5})
    heights = trench(depth_px=200, width_px=9, size=181)
    plain, with_second = captured_fractions(heights, instrument), emitted_fractions(heights, instrument)
    added = (with_second - plain) / 0.5
    floor, wall_top = (slice(None), 90, 90), (slice(None), 90, 40)
    assert added[floor].sum() > 0
    assert abs(added[wall_top].sum()) < 1e-6
    assert added.max() <= plain.max() + 1e-6


def test_second_scattering_brightens_a_trench_by_some_per_cent() -> None:
    instrument = instrument_with(effects={"second_scattering": 0.31})
    plain, with_second = captured_fractions(trench(), instrument), emitted_fractions(trench(), instrument)
    gained = with_second[:, 30, 30] / plain[:, 30, 30] - 1.0
    assert 0.01 < gained.mean() < 0.12
    np.testing.assert_allclose(with_second[:, 30, :5], plain[:, 30, :5], rtol=1e-3)


def test_reaction_gas_takes_a_quarter_to_half_of_the_beam_into_a_skirt_of_tens_of_micrometres() -> None:
    skirt = gas_skirt(instrument_with(effects={"gases": REACTION_GAS}).effects, 10e3)
    assert 0.25 < skirt.share < 0.5
    assert 5e-6 < skirt.sigma_m < 100e-6
    assert gas_skirt(four_quadrant().effects, 10e3) == (0.0, 0.0)
    faster = gas_skirt(instrument_with(effects={"gases": REACTION_GAS}).effects, 20e3)
    assert faster.share < skirt.share


def test_gas_skirt_dilutes_contrast_by_its_share_and_keeps_the_sum() -> None:
    heights = trench(size=60)
    clear, gassy = four_quadrant(), instrument_with(effects={"gases": REACTION_GAS})
    share = gas_skirt(gassy.effects, gassy.beam.energy_ev).share
    before, after = expected_electrons(heights, clear, 1000.0), expected_electrons(heights, gassy, 1000.0)
    contrast = [np.ptp(electrons, axis=(1, 2)) for electrons in (before, after)]
    np.testing.assert_allclose(contrast[1], (1 - share) * contrast[0], rtol=1e-4)
    np.testing.assert_allclose(after.mean(axis=(1, 2)), before.mean(axis=(1, 2)), rtol=1e-5)


def test_kanaya_okayama_range_of_copper_at_ten_kilovolts_is_half_a_micrometre() -> None:
    assert kanaya_okayama_range_m(10e3, 63.55, 29, 8960.0) == pytest.approx(0.46e-6, rel=0.02)


def test_drift_moves_the_last_line_against_the_first() -> None:
    heights = np.tile(np.exp(-(((np.arange(60) - 30) / 4.0) ** 2)) * 8 * PIXEL_M, (60, 1))
    still = render(heights, instrument_with(), np.random.default_rng(0), 2e4)[0].astype(float)
    drifting = instrument_with(effects={"drift_x_px": 6.0})
    shown = render(heights, drifting, np.random.default_rng(0), 2e4)[0].astype(float)
    darkest = [int(np.argmin(line[10:50])) for line in (still[0], shown[0], shown[29], shown[59])]
    assert darkest[1] - darkest[0] == -3
    assert abs(darkest[2] - darkest[0]) <= 1
    assert darkest[3] - darkest[0] == 3


def test_line_jitter_shifts_whole_lines_alike_in_all_segments() -> None:
    heights = np.tile(np.sin(np.arange(80) / 4.0) * 2 * PIXEL_M, (40, 1))
    shown = render(heights, instrument_with(effects={"line_jitter_px": 1.0}), np.random.default_rng(4), 2e4)
    left, right = shown[2].astype(float), shown[0].astype(float)
    still = expected_counts(heights, instrument_with(), 2e4)
    rows_differ = (left - left.mean(axis=0)).std()
    assert rows_differ > 2 * (render(heights, instrument_with(), np.random.default_rng(4), 2e4)[2] - still[2]).std()
    between = np.corrcoef((left - left.mean(axis=0)).ravel(), (right - right.mean(axis=0)).ravel())[0, 1]
    assert between < -0.4


def test_preamplifier_lag_smears_to_the_right_and_keeps_the_level() -> None:
    heights = trench(size=60)
    dwell_s = four_quadrant().beam.dwell_time_s
    slow = render(heights, instrument_with(effects={"lag_s": 3 * dwell_s}), np.random.default_rng(0), 2e4)
    quick = render(heights, instrument_with(), np.random.default_rng(0), 2e4)
    np.testing.assert_allclose(slow[:, :, :3].mean(), quick[:, :, :3].mean(), rtol=2e-3)
    right_of_trench = (slice(None), slice(None), slice(37, 41))
    left_of_trench = (slice(None), slice(None), slice(18, 22))
    change = np.abs(slow.astype(float) - quick)
    assert change[right_of_trench].mean() > 3 * change[left_of_trench].mean()


def test_read_noise_glow_and_charging_reach_the_counts() -> None:
    flat = np.zeros((64, 64))
    plain = render(flat, instrument_with(), np.random.default_rng(0), 1e5).astype(float)
    effects = {"read_noise_counts": 5000.0, "glow_counts": 3000.0, "charging": 0.2}
    shown = render(flat, instrument_with(effects=effects), np.random.default_rng(0), 2e4).astype(float)
    quiet = render(flat, instrument_with(), np.random.default_rng(0), 2e4).astype(float)
    assert shown.std() == pytest.approx(5000.0, rel=0.2)
    assert shown[:, :8].mean() - quiet[:, :8].mean() == pytest.approx(3000.0 + 0.0125 * quiet.mean(), abs=600)
    assert shown[:, -8:].mean() > shown[:, :8].mean() + 0.1 * quiet.mean()
    assert plain.max() <= 65535


def test_material_of_twice_the_yield_is_twice_as_bright() -> None:
    flat = np.zeros((16, 16))
    yields = np.where(np.arange(16) < 8, 1.0, 2.0) * np.ones((16, 1))
    electrons = expected_electrons(flat, four_quadrant(), 1000.0, yields)
    np.testing.assert_allclose(electrons[:, :, 8:], 2 * electrons[:, :, :8], rtol=1e-5)
    with pytest.raises(BadInput, match="relative yield"):
        expected_electrons(flat, four_quadrant(), 1000.0, yields[:4])


def test_impossible_effects_are_refused() -> None:
    with pytest.raises(BadInput, match=r"effects\.forward_lobe"):
        instrument_with(effects={"forward_lobe": 1.5})
    with pytest.raises(BadInput, match=r"effects\.gases"):
        instrument_with(effects={"gases": [{"formula": "Xe", "pressure_pa": 1.0}]})
