"""An instrument as numbers for the graphs: how each segment answers to the surface normal, gain and dark level.

The model per pixel and segment, in electrons: `e_s = (c_s - dark_s) / gain_s = kappa (x_s n_x + y_s n_y
+ b_s (a n_z + 1 - a))` with the unit normal n, the pixel's brightness kappa and `flat_share` a, the share of a flat
specimen's signal that follows n_z. With known radii and dark levels a is 1 and the inversion is exactly the calibrated
difference over sum; where the dark level is unknown and only a modulation is known, a is 0 and n_z comes from the
unit length of the normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.forward_model import linear_response

FULL_SCALE_COUNTS = 65535.0
FLAT_PERCENTILES = (1.0, 99.0)
FLAT_ITERATIONS = 12
SPARSE_STEP = 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """All float32. `response`: (S, 3) columns x, y, b; `inversion`: (3, S), its pseudo-inverse;
    `gain_counts_per_electron`, `dark_counts`: (S,).

    `estimated` names what the instrument file left open and was taken from the frame itself.
    """

    response: NDArray[np.float32]
    inversion: NDArray[np.float32]
    gain_counts_per_electron: NDArray[np.float32]
    dark_counts: NDArray[np.float32]
    flat_share: np.float32
    saturation_counts: np.float32
    pixel_size_m: np.float32
    pixel_size_y_m: np.float32
    calibration_hash: str
    estimated: tuple[str, ...]


def calibrate(instrument: Instrument, images: NDArray[np.uint16]) -> Calibration:
    """The numbers for one frame (S, H, W). What the file gives is used; what it leaves open is estimated.

    Raises `BadInput` when the number of segments differs from the instrument's, or radii are given for some only.
    """
    segments = instrument.detector.segments
    if images.ndim != 3 or len(images) != len(segments):
        raise BadInput(f"a frame of shape {images.shape} does not fit an instrument with {len(segments)} segments")
    estimated: list[str] = []
    gain = _known([segment.gain_counts_per_electron for segment in segments])
    dark = _known([segment.dark_counts for segment in segments])
    if all(segment.outer_radius_m is not None for segment in segments):
        response, flat_share = linear_response(instrument), 1.0
        if dark is None:
            dark = np.zeros(len(segments))
            estimated.append("dark_counts: taken as 0")
    else:
        modulations = [segment.modulation for segment in segments]
        if any(modulation is None for modulation in modulations):
            raise BadInput("some segments have radii and others only a modulation: give one of them for all")
        dark = np.zeros(len(segments))
        flat_counts = flat_levels(images, _azimuths_rad(instrument), np.array(modulations, float))
        estimated.append("flat level of each segment: the brightness at which the frame's mean slope vanishes")
        response, flat_share = _modulation_response(instrument, flat_counts), 0.0
    if gain is None:
        gain = noise_gain(images, dark)
        estimated.append("gain_counts_per_electron: from the frame's own noise")
        if flat_share == 0.0:
            response = response / gain[:, np.newaxis]
    assert dark is not None
    if instrument.scan.mirrored:
        response = response * np.array([-1.0, 1.0, 1.0])
    return Calibration(
        response=np.asarray(response, np.float32),
        inversion=np.asarray(np.linalg.pinv(response), np.float32),
        gain_counts_per_electron=np.asarray(gain, np.float32),
        dark_counts=np.asarray(dark, np.float32),
        flat_share=np.float32(flat_share),
        saturation_counts=np.float32(FULL_SCALE_COUNTS),
        pixel_size_m=np.float32(instrument.scan.pixel_size_m),
        pixel_size_y_m=np.float32(instrument.scan.pixel_size_y_m or instrument.scan.pixel_size_m),
        calibration_hash=instrument.calibration_hash,
        estimated=tuple(estimated),
    )


def flat_levels(
    images: NDArray[np.uint16], azimuths_rad: NDArray[np.float64], modulations: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(S,) counts of a flat specimen, where neither dark level nor gain are known.

    Assumes that the frame as a whole lies flat: the levels are those for which the trimmed mean of the normal's x and
    y component, weighed equally over the frame, is zero. Started from the medians, so a flat majority settles it at
    once; a surface without one (blocks, facets) is levelled by its mean.
    """
    sparse = images[:, ::SPARSE_STEP, ::SPARSE_STEP].reshape(len(images), -1).astype(np.float64)
    levels = np.median(sparse, axis=1)
    directions = np.stack([np.cos(azimuths_rad), -np.sin(azimuths_rad)], axis=1)
    design = np.column_stack([modulations[:, np.newaxis] * directions, np.ones(len(images))])
    inverse = np.linalg.pinv(design)
    for _ in range(FLAT_ITERATIONS):
        components = inverse @ (sparse / levels[:, np.newaxis])
        normals = components[:2] / components[2]
        low, high = np.percentile(normals, FLAT_PERCENTILES, axis=1)
        inside = ((normals >= low[:, np.newaxis]) & (normals <= high[:, np.newaxis])).all(axis=0)
        tilt = normals[:, inside].mean(axis=1)
        levels = levels * (1.0 + modulations * (directions @ tilt))
    return levels


def noise_gain(images: NDArray[np.uint16], dark_counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S,) counts per electron from photon transfer within the frame: variance of second diagonal differences, which
    smooth surfaces leave alone, over the mean signal. Real texture raises it, so it is an upper bound."""
    gains = []
    for image, dark in zip(images, dark_counts, strict=True):
        values = image.astype(np.float32)
        mixed = values[1:, 1:] - values[1:, :-1] - values[:-1, 1:] + values[:-1, :-1]
        spread = 1.4826 * float(np.median(np.abs(mixed))) / 2.0
        mean = max(1.0, float(values.mean()) - float(dark))
        gains.append(max(1.0e-3, spread**2 / mean))
    return np.array(gains)


def _modulation_response(instrument: Instrument, flat_counts: NDArray[np.float64]) -> NDArray[np.float64]:
    azimuths = _azimuths_rad(instrument)
    modulations = np.array([segment.modulation for segment in instrument.detector.segments], float)
    columns = [modulations * np.cos(azimuths), -modulations * np.sin(azimuths), np.ones(len(azimuths))]
    return np.asarray(flat_counts[:, np.newaxis] * np.column_stack(columns), np.float64)


def _azimuths_rad(instrument: Instrument) -> NDArray[np.float64]:
    """Centre azimuths in the image, the detector's rotation added."""
    detector = instrument.detector
    degrees = np.array([segment.centre_azimuth_deg for segment in detector.segments], float) + detector.rotation_deg
    return np.asarray(np.radians(degrees), np.float64)


def _known(values: list[float | None]) -> NDArray[np.float64] | None:
    """None when any value is unknown."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return np.array(known, float) if len(known) == len(values) else None
