"""Electron paths from the specimen to the detector plane: which emission angle lands at which radius (stage 1).

The field is symmetric around the beam, so an electron keeps its azimuth and one monotone function says it all. SciPy
is imported where a specimen is biased: without bias paths are straight, and no program waits for it at its start.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import LOWEST_BIAS_V, Beam, Detector, Specimen

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

    from inference.forward_model.field import Potential

ELECTRON_REST_EV = 510_998.95
ANGLES = 257
CHECKED_BIASES_V = (0.0, -500.0, -1000.0, -2000.0, -5000.0)
CHECKED_ENERGIES_EV = (2e3, 5e3, 10e3, 20e3)

Floats = NDArray[np.float64]


def emission_sin2(radius_m: Floats, detector: Detector, specimen: Specimen, beam: Beam) -> Floats:
    """Squared sine of the polar angle of emission that lands at `radius_m` from the beam, in the detector plane.

    Any shape, float64. 1 beyond the radius that even electrons emitted along the surface reach. Without bias paths are
    straight and this is exact; for a large specimen under a closed plane it inverts `uniform_landing_radii`; else
    `traced_landing_radii` through the solved field. Electrons leave with the landing energy. Tabulated once per
    geometry over the straight line's sin², which it resembles. Raises `BadInput` for a bias above 0 or below -30 kV, an
    energy or distance that is not positive, and as `solve_potential` does.
    """
    if not detector.working_distance_m > 0:
        raise BadInput(f"working distance {detector.working_distance_m:g} m must be above 0 m")
    straight = _straight_sin2(radius_m, detector.working_distance_m)
    table = sin2_over_straight(detector, specimen, beam)
    if table is None:
        return straight
    farthest = table.x[-1]
    return np.where(straight < farthest, np.clip(table(np.minimum(straight, farthest)), 0.0, 1.0), 1.0)


def sin2_over_straight(detector: Detector, specimen: Specimen, beam: Beam) -> CubicSpline | None:
    """`emission_sin2` over the squared sine that a straight line to the same radius would have; None without bias.

    In the uniform field of a large specimen it doesn't depend on the working distance. Raises as `emission_sin2` does.
    """
    distance_m, bias_v, energy_ev = detector.working_distance_m, specimen.bias_v, beam.energy_ev
    if not LOWEST_BIAS_V <= bias_v <= 0:
        raise BadInput(
            f"specimen bias {bias_v:g} V must lie between {LOWEST_BIAS_V:g} V and 0 V: an attracting bias turns slow "
            "electrons back, which isn't modelled; give a retarding bias as a negative number"
        )
    if bias_v == 0:
        return None
    if not (math.isfinite(energy_ev) and energy_ev > 0):
        raise BadInput(f"landing energy {energy_ev:g} eV must be above 0 eV")
    return _sin2_table(distance_m, detector.bore_radius_m, bias_v, specimen.radius_m, energy_ev)


def uniform_landing_radii(theta_rad: Floats, working_distance_m: float, bias_v: float, energy_ev: float) -> Floats:
    """Radii in metres, relativistic, in the uniform field between two plates; any shape of polar angles.

    With the total energy E = mc² + T + w z/d (T the landing energy, w = -e bias) the sideways momentum p_r stays and
    `(c p_z)² = E² - (mc²)² - (c p_r)²`, so that `r = c p_r d/w [arcosh(E/a)] = c p_r d/w [ln(E + c p_z)]` from start
    to end, a² being (mc²)² + (c p_r)². The logarithm is taken of 1 plus what is gained, so that it holds for any bias
    down to none, where it is d tan(theta). Without bias a right angle never lands.
    """
    gain_ev = -bias_v
    sideways, upwards = _momenta(theta_rad, energy_ev)
    start = ELECTRON_REST_EV + energy_ev
    twice_mean = 2 * start + gain_ev
    faster = np.sqrt(upwards**2 + gain_ev * twice_mean)
    if gain_ev == 0:
        return working_distance_m * sideways / upwards
    grown = gain_ev * (1.0 + twice_mean / (upwards + faster)) / (start + upwards)
    return working_distance_m * sideways / gain_ev * np.log1p(grown)


def parabola_landing_radii(theta_rad: Floats, working_distance_m: float, bias_v: float, energy_ev: float) -> Floats:
    """Radii in metres in the uniform field without relativity: `2 d sin / (cos + sqrt(cos² + w/T))`, a parabola.

    Captures up to 0.23 % less than with relativity (`capture_checks`); for comparison only.
    """
    cosine = np.cos(theta_rad)
    slowness: Floats = 2 * np.sin(theta_rad) / (cosine + np.sqrt(cosine**2 - bias_v / energy_ev))
    return working_distance_m * slowness


def traced_landing_radii(theta_rad: Floats, potential: Potential, energy_ev: float) -> Floats:
    """Radii in metres by integrating the relativistic equations of motion through a solved field; (N,) polar angles.

    A retarding bias accelerates electrons towards the detector everywhere, so height is the independent variable and
    p_z follows from energy conservation: `dr/dz = p_r/p_z`, `dp_r/dz = e dU/dr E / (c² p_z)`. Steps are taken in the
    root of height, in which paths that start along the surface are smooth too. Lengths are integrated in working
    distances, momenta in units of the emitted one.
    """
    from scipy.integrate import solve_ivp

    distance_m = potential.working_distance_m
    count = len(theta_rad)
    unit_ev, _ = _momenta(np.array(0.5 * math.pi), energy_ev)
    start_ev = ELECTRON_REST_EV + energy_ev

    def slopes(root: float, state: Floats) -> Floats:
        radius_m, sideways = state[:count] * distance_m, state[count:]
        height_m = np.full(count, root**2 * distance_m)
        total_ev = start_ev + potential.volts(radius_m, height_m) - potential.bias_v
        upwards2 = (total_ev**2 - ELECTRON_REST_EV**2) / unit_ev**2 - sideways**2
        # Rounding of the spline next to the surface must not turn back what starts along it.
        upwards = np.sqrt(np.maximum(upwards2, 1e-12))
        force_ev = potential.gradient(radius_m, height_m)[0] * distance_m
        per_height = np.concatenate([sideways, force_ev * total_ev / unit_ev**2]) / np.tile(upwards, 2)
        per_root: Floats = 2 * root * per_height
        return per_root

    # Right at the surface both root and p_z vanish for paths along it; this close to it any field is uniform.
    first = 1e-3
    gained_v = float(potential.gradient(np.zeros(1), np.zeros(1))[1][0]) * first**2 * distance_m
    left = uniform_landing_radii(theta_rad, first**2, -gained_v, energy_ev)
    solution = solve_ivp(
        slopes, (first, 1.0), np.concatenate([left, np.sin(theta_rad)]), method="DOP853", rtol=1e-7, atol=1e-9
    )
    if not solution.success:
        raise BadInput(f"electron paths at {potential.bias_v:g} V and {energy_ev:g} eV: {solution.message}")
    landed: Floats = solution.y[:count, -1] * distance_m
    return landed


class CaptureCheck(NamedTuple):
    """Shares of a flat specimen's emission that land between two radii, found in three ways."""

    bias_v: float
    energy_ev: float
    traced: float
    uniform: float
    parabola: float


def capture_checks(working_distance_m: float, inner_radius_m: float, outer_radius_m: float) -> list[CaptureCheck]:
    """The solver against closed forms for a large specimen under a closed plane, over biases and landing energies.

    `traced` follows electrons through the solved field, `uniform` is the relativistic closed form and `parabola` the
    classical one (forward_model.md, stage 1), all three for the annulus between the given radii.
    """
    from scipy.interpolate import CubicSpline

    from inference.forward_model.field import solve_potential

    theta_rad = np.linspace(0.0, 0.5 * math.pi, ANGLES)[:-1]
    ring_m = np.array([inner_radius_m, outer_radius_m])
    checks = []
    for bias_v in CHECKED_BIASES_V:
        potential = solve_potential(working_distance_m, bias_v)
        for energy_ev in CHECKED_ENERGIES_EV:
            ways = (
                traced_landing_radii(theta_rad, potential, energy_ev),
                uniform_landing_radii(theta_rad, working_distance_m, bias_v, energy_ev),
                parabola_landing_radii(theta_rad, working_distance_m, bias_v, energy_ev),
            )
            limits = (CubicSpline(_straight_sin2(radii, working_distance_m), np.sin(theta_rad) ** 2) for radii in ways)
            captured = (float(np.diff(sin2(_straight_sin2(ring_m, working_distance_m)))[0]) for sin2 in limits)
            checks.append(CaptureCheck(bias_v, energy_ev, *captured))
    return checks


def _straight_sin2(radius_m: Floats, working_distance_m: float) -> Floats:
    """sin²(theta) of the straight line to a radius."""
    return radius_m**2 / (radius_m**2 + working_distance_m**2)


@lru_cache(maxsize=64)
def _sin2_table(
    working_distance_m: float, bore_radius_m: float | None, bias_v: float, radius_m: float | None, energy_ev: float
) -> CubicSpline:
    """sin²(theta) over the straight line's: bounded, close to equal, and smooth up to emission along the surface."""
    from scipy.interpolate import CubicSpline

    from inference.forward_model.field import solve_potential

    theta_rad = np.linspace(0.0, 0.5 * math.pi, ANGLES)
    if radius_m is None and bore_radius_m is None:
        landed_m = uniform_landing_radii(theta_rad, working_distance_m, bias_v, energy_ev)
    else:
        potential = solve_potential(working_distance_m, bias_v, radius_m, bore_radius_m)
        landed_m = traced_landing_radii(theta_rad, potential, energy_ev)
    straight = _straight_sin2(landed_m, working_distance_m)
    if not (np.diff(straight) > 0).all():
        raise BadInput(
            f"paths at specimen.bias_v {bias_v:g} V and a landing energy of {energy_ev:g} eV cross before the detector "
            "plane, so that a radius has no one angle: lower the bias or widen specimen.radius_m"
        )
    return CubicSpline(straight, np.sin(theta_rad) ** 2)


def _momenta(theta_rad: Floats, energy_ev: float) -> tuple[Floats, Floats]:
    """c p_r and c p_z at emission, in eV."""
    momentum_ev = math.sqrt(energy_ev * (energy_ev + 2 * ELECTRON_REST_EV))
    # The cosine of a right angle rounds to 6e-17, and may round below zero.
    return momentum_ev * np.sin(theta_rad), momentum_ev * np.maximum(np.cos(theta_rad), 0.0)
