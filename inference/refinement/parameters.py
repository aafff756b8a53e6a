"""The numbers of an instrument that frames can pin: as one vector, with what is known of each beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, parse_instrument
from inference.refinement.photon_transfer import DarkLevels, PhotonTransfer

Floats = NDArray[np.float64]

PER_SEGMENT = ("gain_counts_per_electron", "dark_counts")
GEOMETRY = ("rotation_deg", "offset_x_m", "offset_y_m", "working_distance_m")
EFFECTS = ("tilt_yield_exponent", "second_scattering", "emission_exponent")
BEAM = ("sigma_px",)
PLACES: Mapping[str, str] = (
    dict.fromkeys(PER_SEGMENT, "detector.segments")
    | dict.fromkeys(GEOMETRY, "detector")
    | dict.fromkeys(EFFECTS, "effects")
    | dict.fromkeys(BEAM, "beam")
)
BOUNDS: Mapping[str, tuple[float, float]] = {
    "gain_counts_per_electron": (1e-3, 1e6),
    "dark_counts": (0.0, 65535.0),
    "rotation_deg": (-360.0, 720.0),
    "offset_x_m": (-0.1, 0.1),
    "offset_y_m": (-0.1, 0.1),
    "working_distance_m": (1e-4, 0.2),
    "tilt_yield_exponent": (0.0, 4.0),
    "second_scattering": (0.0, 0.95),
    "emission_exponent": (0.5, 4.0),
    "sigma_px": (0.0, 20.0),
}
# Of the value where it says so; the others in their own unit. What a service sheet and a careful user leave open.
STATED_SIGMA: Mapping[str, float] = {
    "gain_counts_per_electron": 0.2,
    "dark_counts": 100.0,
    "rotation_deg": 10.0,
    "offset_x_m": 0.5e-3,
    "offset_y_m": 0.5e-3,
    "working_distance_m": 0.05,
    "tilt_yield_exponent": 1.0,
    "second_scattering": 0.2,
    "emission_exponent": 0.0,
    "sigma_px": 0.0,
}
RELATIVE = ("gain_counts_per_electron", "working_distance_m")
UNKNOWN_GAIN_SIGMA = 1.0


@dataclass(frozen=True, slots=True)
class Parameter:
    """`name` as in the instrument file; `segment` its number for what every segment has of its own. `prior` and
    `prior_sigma`: what is known without the frames."""

    name: str
    segment: int | None
    prior: float
    prior_sigma: float

    @property
    def label(self) -> str:
        return self.name if self.segment is None else f"{self.name}[{self.segment}]"


@dataclass(frozen=True, slots=True)
class Priors:
    """Standard deviations by name, relative for gains and the working distance, that replace `STATED_SIGMA`; 0 holds a
    number as the file has it. Measured gains and dark levels replace those of the file."""

    sigma: Mapping[str, float] = field(default_factory=dict)
    gains: PhotonTransfer | None = None
    darks: DarkLevels | None = None


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """The free parameters of `base`; every vector has their order."""

    base: Instrument
    free: tuple[Parameter, ...]

    @property
    def prior(self) -> Floats:
        return np.array([one.prior for one in self.free])

    @property
    def prior_sigma(self) -> Floats:
        return np.array([one.prior_sigma for one in self.free])

    def bounded(self, values: Floats) -> Floats:
        low, high = np.array([BOUNDS[one.name] for one in self.free]).T
        return np.clip(values, low, high)

    def instrument(self, values: Floats) -> Instrument:
        """`base` with these values, checked as an instrument file is."""
        tree: dict[str, Any] = self.base.model_dump()
        for one, value in zip(self.free, values, strict=True):
            if one.segment is None:
                tree[PLACES[one.name]][one.name] = float(value)
            else:
                tree["detector"]["segments"][one.segment][one.name] = float(value)
        return parse_instrument(tree, "the calibrated instrument")


def parameter_set(instrument: Instrument, priors: Priors, with_sample: bool) -> ParameterSet:
    """What is free, from `STATED_SIGMA` and `priors`. The beam's width is fitted on known samples alone: of an ordinary
    frame the surface is found as the beam shows it. Raises `BadInput` for unknown names and for what has no value."""
    unknown = [name for name in priors.sigma if name not in BOUNDS]
    if unknown:
        raise BadInput(f"no parameter is called {', '.join(unknown)}; known: {', '.join(BOUNDS)}")
    stated = dict(STATED_SIGMA) | ({"sigma_px": 0.5} if with_sample else {}) | dict(priors.sigma)
    if not with_sample:
        stated["sigma_px"] = 0.0
    base = _with_measured(instrument, priors)
    free: list[Parameter] = []
    for name in BOUNDS:
        sigma = stated[name]
        if name in PER_SEGMENT:
            free += _of_segments(instrument, base, name, sigma, priors)
        elif sigma > 0:
            value = float(getattr(_part(base, name), name))
            free.append(Parameter(name, None, value, sigma * abs(value) if name in RELATIVE else sigma))
    return ParameterSet(base, tuple(free))


def _of_segments(file: Instrument, base: Instrument, name: str, sigma: float, priors: Priors) -> list[Parameter]:
    measured: Floats | None = None
    if name == "gain_counts_per_electron" and priors.gains is not None:
        measured = priors.gains.gain_sigma
    if name == "dark_counts" and priors.darks is not None:
        measured = priors.darks.dark_sigma_counts
    found = []
    for number, segment in enumerate(base.detector.segments):
        value = float(getattr(segment, name))
        unknown = getattr(file.detector.segments[number], name) is None
        if measured is not None:
            spread = float(measured[number])
        elif unknown and name == "gain_counts_per_electron":
            spread = UNKNOWN_GAIN_SIGMA * value
        else:
            spread = sigma * abs(value) if name in RELATIVE else sigma
        if spread > 0:
            found.append(Parameter(name, number, value, spread))
    return found


def _with_measured(instrument: Instrument, priors: Priors) -> Instrument:
    """Gains and dark levels as measured, else as the file has them, else 1 and 0. No tilt: poses carry it."""
    tree: dict[str, Any] = instrument.model_dump()
    for number, segment in enumerate(tree["detector"]["segments"]):
        if priors.gains is not None:
            segment["gain_counts_per_electron"] = float(priors.gains.gain_counts_per_electron[number])
        if priors.darks is not None:
            segment["dark_counts"] = max(float(priors.darks.dark_counts[number]), 0.0)
        segment["gain_counts_per_electron"] = segment["gain_counts_per_electron"] or 1.0
        segment["dark_counts"] = segment["dark_counts"] or 0.0
    if priors.darks is not None:
        tree["effects"]["read_noise_counts"] = float(np.mean(priors.darks.read_noise_counts))
    tree["specimen"].update(tilt_x_deg=0.0, tilt_y_deg=0.0)
    return parse_instrument(tree, "the instrument to calibrate")


def _part(instrument: Instrument, name: str) -> Any:
    return getattr(instrument, PLACES[name])
