"""What an instrument file leaves open, and what it does to a measured slope: calibrations one standard error away."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, parse_instrument
from inference.calibration import Calibration, calibrate
from inference.plain_inversion import slopes_of

STATED: dict[str, float] = {
    "gain_counts_per_electron": 0.2,
    "dark_counts": 100.0,
    "rotation_deg": 10.0,
    "offset_x_m": 0.5e-3,
    "offset_y_m": 0.5e-3,
    "working_distance_m": 0.05,
    "modulation": 0.1,
    "emission_exponent": 0.0,
}
"""What is taken for a number that no calibration has found, as `eclips calibrate` begins: gains, working distance and
modulation relative, the others in their own unit."""
RELATIVE = ("gain_counts_per_electron", "working_distance_m", "modulation")
NAMES = {
    "working_distance_m": "working distance",
    "rotation_deg": "detector rotation",
    "offset_x_m": "detector offset",
    "offset_y_m": "detector offset",
    "gain_counts_per_electron": "gains",
    "dark_counts": "dark levels",
    "modulation": "modulation",
    "emission_exponent": "emission law",
}
GEOMETRY = ("working_distance_m", "rotation_deg", "offset_x_m", "offset_y_m")
STATED_PIXEL_SHARE = 0.02
LEVEL_SLOPE = math.tan(math.radians(1.0))
"""A specimen lies level to this on its holder, or tilted by as much as is stated."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unknown:
    """One number of the instrument with a standard error: its calibration one of these away. `told`: where it is
    from."""

    name: str
    told: str
    calibration: Calibration


@dataclass(frozen=True, slots=True, eq=False)
class InstrumentError:
    """The calibration in use, and M others of which each differs from it by the standard error of one number.

    `covariance` (M, M) of these numbers in units of their standard errors. They are independent of each other but for
    what the frame shows: a wrong gain or a detector off its centre tilts all of it, and the specimen is known to lie
    level to a degree, so that they are as far off together as the frame looks tilted, or a degree. `brightness`:
    electrons of a level pixel, summed over the segments.
    """

    calibration: Calibration
    unknowns: tuple[Unknown, ...]
    covariance: Floats
    brightness: float

    def along(self, slopes: Floats, direction: tuple[float, float]) -> Floats:
        """(M, N): by how much slopes (N,) along a `direction` (x and y in the image, of unit length) would be measured
        otherwise with each of the others."""
        right, down = direction
        off = self.of(np.stack([right * slopes, down * slopes]))
        return np.asarray(right * off[:, 0] + down * off[:, 1])

    def of(self, slopes: Floats) -> Floats:
        """(M, 2, N): the same of slopes (2, N) to the right and down."""
        return _changes(self.calibration, self.unknowns, self.brightness, slopes)

    def shares(self, changes: Floats) -> list[tuple[str, float, str]]:
        """What `changes` (M,) of a figure make its standard uncertainty: by name, with where each is from. Where terms
        belong together, each has its part of their common variance."""
        parts = changes * (self.covariance @ changes)
        names = dict.fromkeys(unknown.name for unknown in self.unknowns)
        own = {
            name: sum(part for one, part in zip(self.unknowns, parts, strict=True) if one.name == name)
            for name in names
        }
        kept = {name: max(float(part), 0.0) for name, part in own.items()}
        scale = max(float(parts.sum()), 0.0) / max(sum(kept.values()), 1e-300)
        told = {unknown.name: unknown.told for unknown in self.unknowns}
        return [(name, math.sqrt(scale * part), told[name]) for name, part in kept.items()]


def instrument_error(instrument: Instrument, images: NDArray[np.uint16]) -> InstrumentError:
    """For a frame (S, H, W). Standard errors come from the file's calibration record; what it doesn't hold is taken
    from `STATED`. Raises `BadInput` as `calibrate` does."""
    base = calibrate(instrument, images)
    gain, dark = _digitiser(base)
    sample = images.reshape(len(images), -1)[:, ::97]
    brightness = float(np.median(((sample - dark) / gain).sum(axis=0)))
    unknowns = tuple(one for one in _unknowns(instrument, images, base) if one is not None)
    tilts = _changes(base, unknowns, max(brightness, 1.0), np.zeros((2, 1)))[:, :, 0]
    shown = slopes_of(base.inversion.astype(np.float64) @ ((sample - dark) / gain), float(base.flat_share))
    level = LEVEL_SLOPE**2 + float(np.sum(shown.mean(axis=1) ** 2))
    seen = np.linalg.inv(tilts.T @ tilts + level * np.eye(2))
    covariance = np.eye(len(unknowns)) - tilts @ seen @ tilts.T
    return InstrumentError(base, unknowns, covariance, max(brightness, 1.0))


def pixel_error(instrument: Instrument) -> tuple[float, str]:
    """The pixel's relative standard error and where it is from: no calibration finds it yet."""
    return STATED_PIXEL_SHARE, f"taken as {100 * STATED_PIXEL_SHARE:g} %, not calibrated"


def _unknowns(instrument: Instrument, images: NDArray[np.uint16], base: Calibration) -> Iterator[Unknown | None]:
    by_radii = all(segment.outer_radius_m is not None for segment in instrument.detector.segments)
    if by_radii:
        for name in GEOMETRY:
            value = float(getattr(instrument.detector, name))
            sigma, told = _sigma(instrument, name, None, value)
            yield _moved(instrument, images, name, value + sigma, told) if sigma > 0.0 else None
    else:
        sigma, told = _sigma(instrument, "modulation", None, 1.0)
        scaled = base.response * np.array([1.0 + sigma, 1.0 + sigma, 1.0], np.float32)
        yield Unknown(NAMES["modulation"], told, replace(base, response=scaled))
    sigma, told = _sigma(instrument, "emission_exponent", None, 1.0)
    if sigma > 0.0:
        # Emission as cos^e shows a slope e times as strongly, to first order.
        scaled = base.response * np.array([1.0 + sigma, 1.0 + sigma, 1.0], np.float32)
        yield Unknown(NAMES["emission_exponent"], told, replace(base, response=scaled))
    for number in range(len(instrument.detector.segments)):
        gains, darks = base.gain_counts_per_electron.copy(), base.dark_counts.copy()
        sigma, told = _sigma(instrument, "gain_counts_per_electron", number, float(gains[number]))
        gains[number] += sigma
        if by_radii:
            yield Unknown(NAMES["gain_counts_per_electron"], told, replace(base, gain_counts_per_electron=gains))
            sigma, told = _sigma(instrument, "dark_counts", number, float(darks[number]))
            darks[number] += sigma
            yield Unknown(NAMES["dark_counts"], told, replace(base, dark_counts=darks))


def _sigma(instrument: Instrument, name: str, segment: int | None, value: float) -> tuple[float, str]:
    record = instrument.calibration
    label = name if segment is None else f"{name}[{segment}]"
    if record is not None and label in record.parameters:
        return record.parameters[label].sigma, f"calibration {record.version}"
    sigma = STATED[name]
    unit = name.rpartition("_")[2] if name not in RELATIVE else ""
    told = f"{100 * sigma:g} %" if name in RELATIVE else f"{sigma:g} {unit}"
    return sigma * (abs(value) if name in RELATIVE else 1.0), f"taken as {told}, not calibrated"


def _moved(instrument: Instrument, images: NDArray[np.uint16], name: str, value: float, told: str) -> Unknown | None:
    tree = instrument.model_dump()
    tree["detector"][name] = value
    try:
        moved = calibrate(parse_instrument(tree, "the changed instrument"), images)
    except BadInput:
        return None
    return Unknown(NAMES[name], told, moved)


def _digitiser(calibration: Calibration) -> tuple[Floats, Floats]:
    gain, dark = calibration.gain_counts_per_electron, calibration.dark_counts
    return gain.astype(np.float64)[:, None], dark.astype(np.float64)[:, None]


def _changes(base: Calibration, unknowns: Sequence[Unknown], brightness: float, slopes: Floats) -> Floats:
    """(M, 2, N): slopes (2, N) seen with `base`, taken for those of each other calibration, minus themselves."""
    upright = 1.0 / np.sqrt(1.0 + (slopes**2).sum(axis=0))
    share = float(base.flat_share)
    normals = np.stack([-slopes[0] * upright, -slopes[1] * upright, share * upright + 1.0 - share])
    gain, dark = _digitiser(base)
    counts = gain * brightness * (base.response.astype(np.float64) @ normals) + dark
    found = np.zeros((len(unknowns), *slopes.shape))
    for number, unknown in enumerate(unknowns):
        other = unknown.calibration
        gain, dark = _digitiser(other)
        moments = np.linalg.pinv(other.response.astype(np.float64)) @ ((counts - dark) / gain)
        found[number] = slopes_of(moments, share) - slopes
    return found
