"""Which numbers the frames have pinned and which they have left where the prior put them, and what would pin those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference.refinement.parameters import Parameter

NOT_PINNED = 0.7

WAY_OUT: Mapping[str, str] = {
    "gain_counts_per_electron": "two or more frames of a still scene (--pairs): brightness and gain are one factor, "
    "only the noise tells them apart",
    "dark_counts": "beam-blanked frames (--dark)",
    "rotation_deg": "a rougher place: the curl of the slopes, or a known sample, pins it",
    "offset_x_m": "beam-blanked frames (--dark) together with a known sample, or a rougher place",
    "offset_y_m": "beam-blanked frames (--dark) together with a known sample, or a rougher place",
    "working_distance_m": "a known sample: a flat tilted by a known angle, a grating, an imprint",
    "tilt_yield_exponent": "a known sample or a place with slopes above 20 degrees",
    "second_scattering": "trenches or pits: walls that face each other",
    "emission_exponent": "known samples of two different slopes",
    "sigma_px": "a known sample with edges of a few pixels",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One parameter after the fit. `share`: posterior over prior standard deviation."""

    label: str
    value: float
    sigma: float
    prior: float
    prior_sigma: float
    identifiable: bool
    way_out: str

    @property
    def share(self) -> float:
        return self.sigma / self.prior_sigma


def findings(free: Sequence[Parameter], values: Sequence[float], sigmas: Sequence[float]) -> tuple[Finding, ...]:
    """A parameter whose posterior spread stays above 0.7 of the prior's isn't identifiable from these data."""
    found = []
    for one, value, sigma in zip(free, values, sigmas, strict=True):
        pinned = sigma <= NOT_PINNED * one.prior_sigma
        way_out = "" if pinned else WAY_OUT[one.name]
        found.append(Finding(one.label, float(value), float(sigma), one.prior, one.prior_sigma, pinned, way_out))
    return tuple(found)


def in_words(finding: Finding) -> str:
    """One line; what the frames could not tell says what would make it so."""
    line = f"{finding.label:28s} {finding.value:.6g} ± {finding.sigma:.2g}"
    if finding.identifiable:
        return line
    return f"{line}   not identifiable from these data; give {finding.way_out}"
