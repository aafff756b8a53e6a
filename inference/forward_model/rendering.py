"""Rendering: heights to expected electrons to digitised counts, segment by segment."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.forward_model.emission import emitted_fractions
from inference.forward_model.optics import ELEMENTARY_CHARGE_C, linear_response
from inference.forward_model.probe import blurred
from inference.forward_model.scan import lagged, moved

FULL_SCALE = np.iinfo(np.uint16).max

Floats = NDArray[np.float32]


def expected_electrons(
    heights_m: NDArray[np.floating],
    instrument: Instrument,
    dose: float | None = None,
    relative_yield: NDArray[np.floating] | None = None,
) -> Floats:
    """(S, H, W) float32: mean number of electrons that each segment detects per pixel.

    Primaries are `current * dwell / e`, of which `backscatter_yield` are emitted; `dose` instead fixes the electrons
    per pixel summed over the segments on a flat, level specimen. `relative_yield` (H, W) is the material's against
    that. Beam width, tail and gas skirt blur the result. Raises `BadInput` as `captured_fractions` does, for a dose
    that is not a positive number and for a yield that does not fit.
    """
    emitted = emitted_per_pixel(instrument, dose)
    electrons = emitted_fractions(heights_m, instrument) * np.float32(emitted)
    if relative_yield is not None:
        if relative_yield.shape != electrons.shape[1:] or not (relative_yield >= 0).all():
            raise BadInput(f"a relative yield of shape {relative_yield.shape} must have the heights' and none below 0")
        electrons = electrons * relative_yield.astype(np.float32)
    return blurred(electrons, instrument)


def expected_counts(
    heights_m: NDArray[np.floating],
    instrument: Instrument,
    dose: float | None = None,
    relative_yield: NDArray[np.floating] | None = None,
) -> Floats:
    """(S, H, W) float32: mean counts, `gain * electrons + dark` and the heater's glow, neither rounded nor saturated.

    Raises `BadInput` as `expected_electrons` does, and for segments without gain or dark level.
    """
    gain, dark = _digitiser(instrument)
    return expected_electrons(heights_m, instrument, dose, relative_yield) * gain + dark


def render(
    heights_m: NDArray[np.floating],
    instrument: Instrument,
    rng: np.random.Generator,
    dose: float | None = None,
    relative_yield: NDArray[np.floating] | None = None,
) -> NDArray[np.uint16]:
    """(S, H, W) uint16: one frame, `gain * Poisson(electrons) + dark`, rounded and saturated at 65535.

    `heights_m`: (H, W) metres. What the scan, the preamplifier and the digitiser add is in `instrument.effects`. Raises
    `BadInput` as `expected_counts` does.
    """
    gain, dark = _digitiser(instrument)
    expected = moved(expected_electrons(heights_m, instrument, dose, relative_yield), instrument, rng)
    counts = lagged(rng.poisson(expected), instrument) * gain + dark
    if instrument.effects.read_noise_counts > 0:
        counts = counts + rng.normal(0.0, instrument.effects.read_noise_counts, counts.shape)
    frame: NDArray[np.uint16] = np.clip(np.rint(counts), 0, FULL_SCALE).astype(np.uint16)
    return frame


def emitted_per_pixel(instrument: Instrument, dose: float | None) -> float:
    if dose is None:
        beam = instrument.beam
        return beam.current_a * beam.dwell_time_s / ELEMENTARY_CHARGE_C * instrument.specimen.backscatter_yield
    if not (math.isfinite(dose) and dose > 0):
        raise BadInput(f"dose {dose:g} electrons per pixel must be a number above 0")
    return dose / float(linear_response(instrument)[:, 2].sum())


def _digitiser(instrument: Instrument) -> tuple[Floats, Floats]:
    """Gain in counts per electron and level without electrons in counts, each (S, 1, 1) float32."""
    gains: list[float] = []
    darks: list[float] = []
    for segment in instrument.detector.segments:
        if segment.gain_counts_per_electron is None or segment.dark_counts is None:
            raise BadInput(f"segment {segment.name} cannot be rendered: give gain_counts_per_electron and dark_counts")
        gains.append(segment.gain_counts_per_electron)
        darks.append(segment.dark_counts + instrument.effects.glow_counts)
    gain, dark = np.array([gains, darks], np.float32)[:, :, None, None]
    return gain, dark
