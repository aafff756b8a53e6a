"""An instrument as numbers for the graphs: how each segment answers to the surface normal, gain and dark level.

The model per pixel and segment, in electrons: `e_s = (c_s - dark_s) / gain_s = kappa (x_s n_x + y_s n_y
+ b_s (a n_z + 1 - a))` with the unit normal n, the pixel's brightness kappa and `flat_share` a, the share of a flat
specimen's signal that follows n_z. With known radii a is 1 and the inversion is exactly the calibrated difference over
sum; where only a modulation is known, the dark level is not, a is 0 and n_z comes from the normal's unit length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.forward_model import linear_response

FULL_SCALE_COUNTS = 65535.0
FLAT_ITERATIONS = 40
FLAT_TOLERANCE = 1.0e-5
FLAT_DAMPING = 0.7
STEEPEST_SINE = 0.95
SAMPLE_STEPS = (17, 19)
NOISE_BLOCK_STEP = 4
LEAST_GAIN = 1.0e-3
ROBUST_SIGMA = 1.4826
SMALL_FRAME = 4096
USUAL_BAND = (0.9, 1.15)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the graphs take beside the images; float32 throughout.

    `response`: (S, 3), columns x, y, b of the module's equation, scaled so that the b of all segments add up to 1:
    kappa then is the number of electrons, summed over the segments, that a level pixel as bright would give.
    `inversion`: (3, S), its pseudo-inverse. `gain_counts_per_electron`, `dark_counts`: (S,). `estimated` names what
    the instrument file leaves open, and how it was found instead. `residual_band`: between which multiples of the
    residual that noise alone leaves that of a frame lies.
    """

    response: NDArray[np.float32]
    inversion: NDArray[np.float32]
    gain_counts_per_electron: NDArray[np.float32]
    dark_counts: NDArray[np.float32]
    flat_share: np.float32
    saturation_counts: np.float32
    pixel_size_m: np.float32
    pixel_size_y_m: np.float32
    beam_sigma_px: np.float32
    calibration_hash: str
    estimated: tuple[str, ...]
    residual_band: tuple[float, float] = USUAL_BAND


def calibrate(instrument: Instrument, images: NDArray[np.uint16]) -> Calibration:
    """The numbers for one frame (S, H, W). What the file gives is used; what it leaves open is estimated.

    The detector lies in the image as `linear_response` has it, turned by `detector.rotation_deg`: simulation and
    inversion share one geometry. Raises `BadInput` when the shape does not fit the instrument, when radii
    are given for some segments only, or when the segments cannot tell the directions apart.
    """
    segments = instrument.detector.segments
    if images.ndim != 3 or len(images) != len(segments):
        raise BadInput(
            f"a frame of shape {images.shape} does not fit an instrument of {len(segments)} segments: "
            f"expected ({len(segments)}, height, width); choose the instrument file of this detector"
        )
    if min(images.shape[1:]) < 2:
        raise BadInput(f"a frame of shape {images.shape} has no slopes: it needs at least 2 x 2 pixels")
    estimated: list[str] = []
    gain = _known([segment.gain_counts_per_electron for segment in segments])
    dark = _known([segment.dark_counts for segment in segments])
    modulations = _known([segment.modulation for segment in segments])
    if all(segment.outer_radius_m is not None for segment in segments):
        in_counts, flat_share = linear_response(instrument), 1.0
        if dark is None:
            dark = np.zeros(len(segments))
            estimated.append("dark_counts: taken as 0")
    elif modulations is not None:
        dark = np.zeros(len(segments))
        azimuths_rad = _azimuths_rad(instrument)
        levels = flat_levels(images, azimuths_rad, modulations)
        in_counts, flat_share = levels[:, np.newaxis] * _relative_response(azimuths_rad, modulations), 0.0
        estimated.append("flat level of each segment: the one at which the mean slope of the frame vanishes")
    else:
        raise BadInput("some segments have radii and others only a modulation: give one of the two for all of them")
    if gain is None:
        gain = noise_gain(images, dark)
        estimated.append("gain_counts_per_electron: from the frame's own noise, an upper bound")
    response = in_counts if flat_share else in_counts / gain[:, np.newaxis]
    response = response / response[:, 2].sum()
    if np.linalg.matrix_rank(response, tol=1e-6) < 3:
        raise BadInput("the segments cannot tell x, y and brightness apart: spread their azimuths around the detector")
    return Calibration(
        response=np.asarray(response, np.float32),
        inversion=np.asarray(np.linalg.pinv(response), np.float32),
        gain_counts_per_electron=np.asarray(gain, np.float32),
        dark_counts=np.asarray(dark, np.float32),
        flat_share=np.float32(flat_share),
        saturation_counts=np.float32(FULL_SCALE_COUNTS),
        pixel_size_m=np.float32(instrument.scan.pixel_size_m),
        pixel_size_y_m=np.float32(instrument.scan.pixel_size_y_m or instrument.scan.pixel_size_m),
        beam_sigma_px=np.float32(instrument.beam.sigma_px),
        calibration_hash=instrument.calibration_hash,
        estimated=tuple(estimated),
        residual_band=_residual_band(instrument),
    )


def flat_levels(images: NDArray[np.uint16], azimuths_rad: Floats, modulations: Floats) -> Floats:
    """(S,) counts of a flat specimen (up to a common factor) in (S, H, W), where the dark level is unknown.

    Assumes that the frame as a whole is level: its mean slope, which is the height difference between opposite edges
    over their distance, is zero along x and y. That needs no flat majority, and holds for gratings and facets of any
    asymmetry; a specimen that is tilted as a whole is shown level. Starts from the medians. Sines of slopes above
    0.95, where noise alone can exceed 1, are cut to it.
    """
    sample = _sample(images)
    levels = np.maximum(np.median(sample, axis=1), 1.0)
    relative = _relative_response(azimuths_rad, modulations)
    inverse = np.linalg.pinv(relative)
    for _ in range(FLAT_ITERATIONS):
        x, y, brightness = inverse @ (sample / levels[:, np.newaxis])
        lit = brightness > 0
        if not lit.any():
            break
        normals = np.stack([x[lit], y[lit]]) / brightness[lit]
        sines = np.hypot(*normals)
        normals *= np.minimum(1.0, STEEPEST_SINE / np.maximum(sines, STEEPEST_SINE))
        mean_tilt = (normals / np.sqrt(1.0 - (normals**2).sum(axis=0))).mean(axis=1)
        step = FLAT_DAMPING * (relative[:, :2] @ mean_tilt)
        levels *= 1.0 + np.clip(step, -0.5, 0.5)
        if np.abs(mean_tilt).max() < FLAT_TOLERANCE:
            break
    return levels


def noise_gain(images: NDArray[np.uint16], dark_counts: Floats) -> Floats:
    """(S,) counts per electron from photon transfer within one frame (S, H, W): the variance of diagonal second
    differences, which smooth surfaces leave alone, over the mean signal. Texture of pixel size raises it."""
    step = NOISE_BLOCK_STEP
    above, below = images[:, :-1:step].astype(np.float32), images[:, 1::step].astype(np.float32)
    mixed = below[:, :, 1::step] - below[:, :, :-1:step] - above[:, :, 1::step] + above[:, :, :-1:step]
    spread = ROBUST_SIGMA * np.median(np.abs(mixed), axis=(1, 2)) / 2.0
    mean = np.maximum(above.mean(axis=(1, 2), dtype=np.float64) - dark_counts, 1.0)
    return np.asarray(np.maximum(spread**2 / mean, LEAST_GAIN), np.float64)


def _sample(images: NDArray[np.uint16]) -> Floats:
    """(S, N) every n-th pixel in reading order, by a prime step: a coarser grid would beat with gratings."""
    step = next((prime for prime in SAMPLE_STEPS if images.shape[2] % prime), 1)
    return images.reshape(len(images), -1)[:, :: step if images[0].size > SMALL_FRAME else 1].astype(np.float64)


def _relative_response(azimuths_rad: Floats, modulations: Floats) -> Floats:
    """(S, 3) per unit of flat level: `1 + m n.u` with u = (cos, -sin) of the segment's azimuth."""
    columns = [modulations * np.cos(azimuths_rad), -modulations * np.sin(azimuths_rad), np.ones(len(azimuths_rad))]
    return np.column_stack(columns)


def _azimuths_rad(instrument: Instrument) -> Floats:
    """(S,) centre azimuths as seen in the image, the detector's rotation added."""
    detector = instrument.detector
    degrees = np.array([segment.centre_azimuth_deg for segment in detector.segments]) + detector.rotation_deg
    return np.asarray(np.radians(degrees), np.float64)


def _residual_band(instrument: Instrument) -> tuple[float, float]:
    """That of the frames that the instrument was calibrated on, else what noise, slopes and gentle shadows leave."""
    record = instrument.calibration
    return USUAL_BAND if record is None or record.residual_band is None else record.residual_band


def _known(values: list[float | None]) -> Floats | None:
    """None when any value is unknown."""
    known = [value for value in values if value is not None]
    return np.array(known, np.float64) if len(known) == len(values) else None
