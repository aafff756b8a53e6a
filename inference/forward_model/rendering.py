"""Rendering: heights to expected electrons to digitised counts, segment by segment."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.forward_model.intensity import captured_fractions
from inference.forward_model.optics import linear_response

ELEMENTARY_CHARGE_C = 1.602176634e-19
FULL_SCALE = np.iinfo(np.uint16).max

Floats = NDArray[np.float32]


def expected_electrons(heights_m: NDArray[np.floating], instrument: Instrument, dose: float | None = None) -> Floats:
    """(S, H, W) float32: mean number of electrons that each segment detects per pixel.

    Primaries are `current * dwell / e`, of which `backscatter_yield` are emitted; `dose` instead fixes the electrons
    per pixel summed over the segments on a flat, level specimen. The beam's width and tail blur the result. Raises
    `BadInput` as `captured_fractions` does, and for a dose that is not a positive number.
    """
    emitted = emitted_per_pixel(instrument, dose)
    return _beam_blurred(captured_fractions(heights_m, instrument) * np.float32(emitted), instrument)


def expected_counts(heights_m: NDArray[np.floating], instrument: Instrument, dose: float | None = None) -> Floats:
    """(S, H, W) float32: mean counts, `gain * electrons + dark`, neither rounded nor saturated.

    Raises `BadInput` as `expected_electrons` does, and for segments without gain or dark level.
    """
    gain, dark = _digitiser(instrument)
    return expected_electrons(heights_m, instrument, dose) * gain + dark


def render(
    heights_m: NDArray[np.floating], instrument: Instrument, rng: np.random.Generator, dose: float | None = None
) -> NDArray[np.uint16]:
    """(S, H, W) uint16: one frame, `gain * Poisson(electrons) + dark`, rounded and saturated at 65535.

    `heights_m`: (H, W) metres. Raises `BadInput` as `expected_counts` does.
    """
    gain, dark = _digitiser(instrument)
    electrons = rng.poisson(expected_electrons(heights_m, instrument, dose))
    counts = np.rint(electrons * gain + dark)
    frame: NDArray[np.uint16] = np.minimum(counts, FULL_SCALE).astype(np.uint16)
    return frame


def emitted_per_pixel(instrument: Instrument, dose: float | None) -> float:
    if dose is None:
        beam = instrument.beam
        return beam.current_a * beam.dwell_time_s / ELEMENTARY_CHARGE_C * instrument.specimen.backscatter_yield
    if not (math.isfinite(dose) and dose > 0):
        raise BadInput(f"dose {dose:g} electrons per pixel must be a number above 0")
    return dose / float(linear_response(instrument)[:, 2].sum())


def _digitiser(instrument: Instrument) -> tuple[Floats, Floats]:
    """Gain in counts per electron and dark level in counts, each (S, 1, 1) float32."""
    gains: list[float] = []
    darks: list[float] = []
    for segment in instrument.detector.segments:
        if segment.gain_counts_per_electron is None or segment.dark_counts is None:
            raise BadInput(f"segment {segment.name} cannot be rendered: give gain_counts_per_electron and dark_counts")
        gains.append(segment.gain_counts_per_electron)
        darks.append(segment.dark_counts)
    gain, dark = np.array([gains, darks], np.float32)[:, :, None, None]
    return gain, dark


def _beam_blurred(electrons: Floats, instrument: Instrument) -> Floats:
    """Convolution with the probe: a Gaussian core of `sigma_px` and a Gaussian tail of `tail_sigma_m`."""
    beam, scan = instrument.beam, instrument.scan
    tail_px = beam.tail_sigma_m / scan.pixel_size_m if beam.tail_fraction > 0 else 0.0
    widest = max(beam.sigma_px, tail_px)
    if widest == 0:
        return electrons
    rows, columns = electrons.shape[1:]
    aspect = scan.pixel_size_m / (scan.pixel_size_y_m or scan.pixel_size_m)
    margin = math.ceil(4 * widest * max(aspect, 1.0))
    padded = np.pad(electrons, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")
    along_y = np.fft.fftfreq(padded.shape[1])[:, None] * aspect
    along_x = np.fft.rfftfreq(padded.shape[2])
    spread = -2.0 * math.pi**2 * (along_x**2 + along_y**2)
    transfer = (1 - beam.tail_fraction) * np.exp(spread * beam.sigma_px**2)
    transfer += beam.tail_fraction * np.exp(spread * tail_px**2)
    blurred = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=padded.shape[1:])
    inside = blurred[:, margin : margin + rows, margin : margin + columns]
    return np.maximum(inside, 0.0).astype(np.float32)
