"""Kinetics from films of steps: the law that they were made with comes back, and nothing else is taken for growth."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from acquisition.errors import BadInput
from hardware_drivers.simulated.scenes import find_scene
from service.benchmarks.kinetics import Film, find_advance, find_steps, fit
from service.benchmarks.lab import misread

PIXEL_M = 15e-9
TERRACE_M = 330e-9
LEVELS_K = (295.0, 1020.0, 1140.0, 940.0, 1100.0, 1180.0)


def heights_m(growth_m: float, drift_m: float = 0.0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    along_m = (np.arange(128) - 63.5) * PIXEL_M
    noise = np.random.default_rng(round(growth_m * 1e15)).normal(0.0, 0.3e-9, (128, 128))
    return find_scene("step-bunches", 1).heights_m(along_m + drift_m, along_m, 1e-6 + growth_m) + noise


def film(energy_ev: float = 1.1, drift_m_per_s: float = 0.0, expansion_m_per_k: float = 0.0) -> Film:
    """Levels of 20 s that are reached with a time constant of 4 s, and oxygen that falls to a quarter amid the last."""
    time_s = np.arange(0.0, 120.0, 0.6)
    temperature_k = np.empty_like(time_s)
    kelvin = LEVELS_K[0]
    for number, at_s in enumerate(time_s):
        kelvin += (LEVELS_K[min(int(at_s // 20), 5)] - kelvin) * (1 - np.exp(-0.6 / 4))
        temperature_k[number] = kelvin
    oxygen_pa = np.where(time_s < 70, 24.0, 6.0)
    growth = 12e-9 * np.sqrt(oxygen_pa / 20) * np.exp(-energy_ev / 8.617333262e-5 * (1 / temperature_k - 1 / 1100))
    seen_m = np.cumsum(growth + drift_m_per_s) * 0.6 + expansion_m_per_k * (temperature_k - 295)
    noise = np.random.default_rng(1).normal(0.0, 1e-3, len(time_s))
    heated = temperature_k > 296
    return Film(time_s, seen_m / TERRACE_M + noise, temperature_k, oxygen_pa, heated, TERRACE_M)


def test_steps_are_seen_to_advance_by_as_much_as_they_grew() -> None:
    """Uneven terraces: each step moves another distance, all the same share of a terrace."""
    steps = [find_steps(heights_m(growth_m), PIXEL_M) for growth_m in np.linspace(0, TERRACE_M, 23)]
    advance = sum(find_advance(one, other, "here")[0] for one, other in pairwise(steps))
    assert advance == pytest.approx(1.0, rel=0.06)


def test_a_surface_that_does_not_grow_does_not_advance() -> None:
    first, second = find_steps(heights_m(0.0), PIXEL_M), find_steps(heights_m(1e-18), PIXEL_M)
    assert find_advance(first, second, "here")[0] == pytest.approx(0.0, abs=2e-3)


def test_a_flat_surface_has_no_steps_to_follow() -> None:
    nothing = find_steps(np.zeros((64, 64)), PIXEL_M)
    with pytest.raises(BadInput, match="frame 3 shows 0 pieces of steps"):
        find_advance(nothing, nothing, "frame 3")


@pytest.mark.parametrize("energy_ev", [0.8, 1.1])
def test_activation_energy_and_order_come_back_with_their_errors(energy_ev: float) -> None:
    found = fit(film(energy_ev))
    assert found.energy_ev == pytest.approx(energy_ev, rel=0.03)
    assert abs(found.energy_ev - energy_ev) < 4 * found.energy_error_ev < 0.2
    assert found.order == pytest.approx(0.5, abs=0.05)
    assert found.velocity_m_per_s == pytest.approx(12e-9, rel=0.05)


def test_drift_and_thermal_expansion_are_told_apart_from_growth() -> None:
    """As large as growth at the coldest level, where what they leave in it would bend the energy by a tenth."""
    found = fit(film(drift_m_per_s=1e-9, expansion_m_per_k=0.2e-9))
    assert found.energy_ev == pytest.approx(1.1, rel=0.03)
    assert found.drift_m_per_s == pytest.approx(1e-9, abs=0.1e-9)
    assert found.expansion_m_per_k == pytest.approx(0.2e-9, rel=0.2)


def test_a_constant_wrong_emissivity_moves_temperatures_and_leaves_the_energy() -> None:
    """By Wien's law it shifts 1/T by a constant; the velocity at a temperature is wrong many times over instead."""
    right = film()
    wrong_k = misread(right, 0.7, 0.05)
    assert np.median((wrong_k - right.temperature_k)[right.temperature_k > 1000]) < -200
    found, mistaken = fit(right), fit(right, wrong_k)
    assert mistaken.energy_ev == pytest.approx(found.energy_ev, rel=0.02)
    assert mistaken.velocity_m_per_s > 10 * found.velocity_m_per_s


def test_an_emissivity_that_changes_meanwhile_does_not_leave_the_energy() -> None:
    right = film()
    oxidising = misread(right, 0.05, np.linspace(0.05, 0.2, len(right.time_s)))
    assert abs(fit(right, oxidising).energy_ev - 1.1) > 0.1


def test_a_short_film_is_refused() -> None:
    whole = film()
    parts = {name: getattr(whole, name)[:20] for name in ("time_s", "advance", "temperature_k", "oxygen_pa", "heated")}
    with pytest.raises(BadInput, match="too few for a fit, record longer"):
        fit(replace(whole, **parts))
