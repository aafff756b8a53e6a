"""Curved paths under a specimen bias, against mechanics and potential theory that can be done by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import roots_legendre

from acquisition.errors import BadInput
from acquisition.instrument import Beam, Instrument, Specimen, four_quadrant, parse_instrument
from inference.forward_model import acceptance, captured_fractions
from inference.forward_model.field import solve_potential
from inference.forward_model.paths import (
    capture_checks,
    emission_sin2,
    parabola_landing_radii,
    traced_landing_radii,
    uniform_landing_radii,
)

DISTANCE_M = 8e-3
ANNULUS_M = np.array([1.5e-3, 6e-3])
DETECTOR = four_quadrant().detector

biases = st.floats(-5000.0, -1.0)
energies = st.floats(500.0, 30_000.0)
angles = st.floats(0.01, 0.5 * math.pi)


def biased(bias_v: float, energy_ev: float = 10e3, radius_m: float | None = None, **detector: object) -> Instrument:
    instrument = four_quadrant()
    specimen = instrument.specimen.model_copy(update={"bias_v": bias_v, "radius_m": radius_m})
    beam = instrument.beam.model_copy(update={"energy_ev": energy_ev})
    turned = instrument.detector.model_copy(update=detector)
    return instrument.model_copy(update={"specimen": specimen, "beam": beam, "detector": turned})


def captured(instrument: Instrument) -> float:
    """Share of a flat specimen's emission between the radii of the annulus."""
    inner, outer = emission_sin2(ANNULUS_M, instrument.detector, instrument.specimen, instrument.beam)
    return float(outer - inner)


@given(angles, biases, energies)
def test_landing_and_emission_undo_each_other(theta: float, bias_v: float, energy_ev: float) -> None:
    instrument = biased(bias_v, energy_ev)
    radius_m = uniform_landing_radii(np.array([theta]), DISTANCE_M, bias_v, energy_ev)
    sin2 = emission_sin2(radius_m, DETECTOR, instrument.specimen, instrument.beam)
    assert float(sin2[0]) == pytest.approx(math.sin(theta) ** 2, abs=2e-6)


@given(st.floats(0.0, 20e-3), biases, energies)
def test_bias_gathers_what_is_emitted_flatter(radius_m: float, bias_v: float, energy_ev: float) -> None:
    instrument = biased(bias_v, energy_ev)
    sin2 = float(emission_sin2(np.array(radius_m), DETECTOR, instrument.specimen, instrument.beam))
    assert radius_m**2 / (radius_m**2 + DISTANCE_M**2) - 1e-9 <= sin2 <= 1.0


@given(st.floats(0.0, 1.5), energies)
def test_faint_bias_leaves_paths_straight(theta: float, energy_ev: float) -> None:
    radius_m = uniform_landing_radii(np.array(theta), DISTANCE_M, -1e-9, energy_ev)
    assert float(radius_m) == pytest.approx(DISTANCE_M * math.tan(theta), rel=1e-9, abs=1e-18)


@pytest.mark.parametrize(
    ("bias_v", "energy_ev", "theta"), [(-5000.0, 2e3, 1.2), (-20e3, 10e3, 0.6), (-500.0, 20e3, 1.4)]
)
def test_closed_form_is_what_the_equation_of_motion_gives(bias_v: float, energy_ev: float, theta: float) -> None:
    """dp/dt = F in time, lengths in working distances, c = 1, energies in rest energies."""
    force = -bias_v / 510_998.95
    momentum = math.sqrt((1 + energy_ev / 510_998.95) ** 2 - 1)

    def motion(_: float, state: NDArray[np.float64]) -> list[float]:
        _, _, sideways, upwards = state
        total = math.sqrt(1 + sideways**2 + upwards**2)
        return [sideways / total, upwards / total, 0.0, force]

    def arrival(_: float, state: NDArray[np.float64]) -> float:
        return float(state[1]) - 1.0

    arrival.terminal = True  # type: ignore[attr-defined]
    start = [0.0, 0.0, momentum * math.sin(theta), momentum * math.cos(theta)]
    flight = solve_ivp(motion, (0.0, 1e3), start, events=arrival, rtol=1e-11, atol=1e-13)
    assert flight.y_events is not None
    expected = flight.y_events[0][0][0] * DISTANCE_M
    assert float(uniform_landing_radii(np.array(theta), DISTANCE_M, bias_v, energy_ev)) == pytest.approx(expected)


def test_parabola_is_the_slow_limit_of_the_closed_form() -> None:
    theta = np.linspace(0.0, 0.5 * math.pi, 20)
    relativistic = uniform_landing_radii(theta, DISTANCE_M, -10.0, 20.0)
    np.testing.assert_allclose(parabola_landing_radii(theta, DISTANCE_M, -10.0, 20.0), relativistic, rtol=1e-4)
    fast = uniform_landing_radii(theta, DISTANCE_M, -10e3, 20e3)[1:]
    assert np.abs(parabola_landing_radii(theta[1:], DISTANCE_M, -10e3, 20e3) / fast - 1).max() > 1e-3


def test_traced_captures_agree_with_the_closed_forms() -> None:
    """With relativity to the solver's tolerance, without it to 0.23 %; the parabola captures too little."""
    checks = capture_checks(DISTANCE_M, *ANNULUS_M)
    assert {check.bias_v for check in checks} == {0.0, -500.0, -1000.0, -2000.0, -5000.0} and len(checks) == 20
    for check in checks:
        assert check.traced == pytest.approx(check.uniform, rel=1e-6)
        assert check.parabola == pytest.approx(check.traced, rel=2.3e-3)
        assert check.bias_v == 0 or check.parabola < check.traced


@pytest.mark.parametrize(("bias_v", "tilt_deg"), [(0.0, 53.1), (-1000.0, 52.1), (-5000.0, 48.2)])
def test_bias_lowers_the_shadow_free_tilt(bias_v: float, tilt_deg: float) -> None:
    assert math.degrees(math.atan(acceptance(biased(bias_v)).occluding_slope)) == pytest.approx(tilt_deg, abs=0.05)


def test_six_millimetre_disc_captures_less_than_the_parabola_by_under_a_percent() -> None:
    plane = np.array([float(parabola_landing_radii(np.array(t), DISTANCE_M, -5000.0, 10e3)) for t in (0.2, 0.7)])
    disc = emission_sin2(plane, DETECTOR, Specimen(bias_v=-5000.0, radius_m=3e-3), Beam())
    assert 0.990 < float(np.diff(disc)[0]) / (math.sin(0.7) ** 2 - math.sin(0.2) ** 2) < 0.995


def test_wider_specimens_approach_the_plane_without_end() -> None:
    plane = captured(biased(-5000.0))
    shortfalls = [1 - captured(biased(-5000.0, radius_m=radius)) / plane for radius in (3e-3, 6e-3, 12e-3, 24e-3)]
    assert all(wide < narrow for narrow, wide in pairwise(shortfalls))
    assert shortfalls[0] == pytest.approx(9.7e-3, abs=5e-4)
    assert abs(shortfalls[-1]) < 1e-3


def test_bore_matters_little_beyond_its_rim() -> None:
    closed, open_ = captured(biased(-5000.0)), captured(biased(-5000.0, bore_radius_m=1.5e-3))
    assert 1e-5 < abs(open_ / closed - 1) < 3e-4


@pytest.mark.parametrize(("radius_m", "bore_radius_m"), [(3e-3, None), (None, 1.5e-3), (4e-3, 1e-3)])
def test_solved_potential_is_harmonic(radius_m: float | None, bore_radius_m: float | None) -> None:
    """Its value on the axis is its mean over any sphere around there that touches no electrode."""
    potential = solve_potential(DISTANCE_M, -1000.0, radius_m, bore_radius_m)
    cosine, weight = roots_legendre(32)
    for centre_m, sphere_m in ((2e-3, 1.5e-3), (4e-3, 3.5e-3), (6e-3, 1.8e-3)):
        mean = 0.5 * weight @ potential.volts(sphere_m * np.sqrt(1 - cosine**2), centre_m + sphere_m * cosine)
        assert float(potential.volts(np.zeros(1), np.array([centre_m]))[0]) == pytest.approx(mean, abs=0.1)


def test_solved_potential_meets_its_electrodes_and_stays_between_them() -> None:
    potential = solve_potential(DISTANCE_M, -1000.0, 4e-3, 1e-3)
    on_specimen, on_plane = np.linspace(0, 3.5e-3, 50), np.linspace(1.5e-3, 20e-3, 50)
    np.testing.assert_allclose(potential.volts(on_specimen, np.zeros(50)), -1000.0, atol=0.5)
    np.testing.assert_allclose(potential.volts(on_plane, np.full(50, DISTANCE_M)), 0.0, atol=0.5)
    r, z = np.meshgrid(np.linspace(0, 20e-3, 60), np.linspace(0, DISTANCE_M, 60))
    assert potential.volts(r, z).min() > -1003.0 and potential.volts(r, z).max() < 3.0
    assert (potential.gradient(r, z)[1] > -1000.0 / DISTANCE_M * 1e-3).all()
    assert (potential.gradient(np.full(20, 4e-3), np.linspace(1e-3, 6e-3, 20))[0] > 0).all()


def test_gradient_is_that_of_the_potential() -> None:
    potential = solve_potential(DISTANCE_M, -1000.0, 4e-3, 1e-3)
    r, z, step = np.array([1e-3, 3e-3, 6e-3]), np.array([2e-3, 6e-3, 4e-3]), 1e-6
    along_r, along_z = potential.gradient(r, z)
    np.testing.assert_allclose(
        along_r, (potential.volts(r + step, z) - potential.volts(r - step, z)) / (2 * step), rtol=1e-4
    )
    np.testing.assert_allclose(
        along_z, (potential.volts(r, z + step) - potential.volts(r, z - step)) / (2 * step), rtol=1e-4
    )


def test_paths_run_apart_beside_a_small_specimen() -> None:
    """Its field pushes outwards, so that what would land at the detector's rim lands beyond."""
    theta = np.linspace(0.1, 1.5, 15)
    potential = solve_potential(DISTANCE_M, -5000.0, 3e-3)
    free = uniform_landing_radii(theta, DISTANCE_M, -5000.0, 10e3)
    assert (traced_landing_radii(theta, potential, 10e3) > free).all()


def test_electrons_that_leave_a_small_specimen_sideways_go_on_straight() -> None:
    """Beyond the solved region nothing pushes; what starts along the surface still lands the farthest."""
    theta = np.linspace(0.0, 0.5 * math.pi, 65)
    landed = traced_landing_radii(theta, solve_potential(DISTANCE_M, -1000.0, 3e-3), 10e3)
    assert (np.diff(landed) > 0).all() and landed[-1] < 100 * DISTANCE_M


def test_bias_that_lands_everything_on_the_detector_makes_any_rise_a_shadow() -> None:
    """At -5 kV 500 eV electrons land within 5 mm of the beam, whatever their angle."""
    instrument = biased(-5000.0, 500.0)
    assert acceptance(instrument).occluding_slope == 0.0
    inner = emission_sin2(ANNULUS_M[:1], DETECTOR, instrument.specimen, instrument.beam)[0]
    gapless = tuple(segment.model_copy(update={"gap_m": 0.0}) for segment in DETECTOR.segments)
    whole = biased(-5000.0, 500.0, segments=gapless)
    np.testing.assert_allclose(captured_fractions(np.zeros((8, 8)), whole).sum(axis=0), 1 - inner, rtol=1e-5)

    heights = np.zeros((24, 60))
    heights[:, 40:] = 20e-9
    right, _, left, _ = captured_fractions(heights, whole)[:, 12]
    assert right[5] < right[0] + 1e-6 < left[5] and right[38] < 0.6 * right[5]
    assert np.isfinite(captured_fractions(heights, whole)).all()


@settings(max_examples=8, deadline=None)
@given(st.floats(-5000.0, 0.0), st.floats(-5000.0, 0.0))
def test_stronger_bias_captures_more(one_v: float, other_v: float) -> None:
    weak, strong = (float(acceptance(biased(bias_v)).response[:, 2].sum()) for bias_v in sorted((one_v, other_v))[::-1])
    assert strong >= weak - 1e-7


def test_tables_are_shared_by_all_that_bend_paths_alike() -> None:
    assert acceptance(biased(0.0, 5e3)) is acceptance(biased(0.0, 10e3, radius_m=3e-3))
    assert acceptance(biased(-1000.0, 5e3)) is acceptance(biased(-1000.0, 5e3))
    responses = [
        float(acceptance(instrument).response[:, 2].sum())
        for instrument in (
            biased(-1000.0, 5e3),
            biased(-1000.0, 10e3),
            biased(-1000.0, 10e3, radius_m=3e-3),
            biased(-1000.0, 10e3, bore_radius_m=1.5e-3),
        )
    ]
    assert len(set(responses)) == len(responses)


@pytest.mark.parametrize(
    ("instrument", "named"),
    [
        (biased(50.0), "bias 50 V must lie between -30000 V and 0 V"),
        (biased(-40e3), "bias -40000 V"),
        (biased(math.nan), "bias nan V"),
        (biased(-1000.0, 0.0), "landing energy 0 eV"),
        (biased(-1000.0, radius_m=1e-4), "too small to solve its field: give at least 0.0008 m"),
        (biased(-1000.0, radius_m=-1.0), "specimen.radius_m -1 m must be above 0 m"),
        (biased(-1000.0, bore_radius_m=0.1), "wider than 8 working distances"),
        (biased(-1000.0, working_distance_m=0.0), "working distance 0 m"),
        (biased(-20e3, 20.0), "collects nothing"),
    ],
)
def test_what_cannot_be_flown_is_refused(instrument: Instrument, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        acceptance(instrument)


@pytest.mark.parametrize("bias_v", [1.0, -30_001.0])
def test_instrument_files_with_an_impossible_bias_are_refused(bias_v: float) -> None:
    tree = four_quadrant().model_dump()
    tree["specimen"]["bias_v"] = bias_v
    with pytest.raises(BadInput, match=f"bias_v {bias_v:g} V must lie between -30000 V"):
        parse_instrument(tree, "test")


def test_instrument_file_keeps_bore_and_specimen_radius() -> None:
    instrument = biased(-1000.0, radius_m=3e-3, bore_radius_m=1e-3)
    assert parse_instrument(instrument.model_dump(), "test") == instrument
