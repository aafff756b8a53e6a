"""What truth and theory say of a case: occlusion, facets, transfer, the Wiener bound, honest sigmas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from acquisition.instrument import Instrument
from inference.accuracy import compare, without_plane
from inference.calibration import Calibration
from inference.forward_model import linear_response
from inference.pixel_noise import pixel_signal, slope_covariance
from inference.training.frames import SUBPIXELS, expected_frame, pixel_means
from inference.training.held_out import Scene
from service.benchmarks.model_sets import ModelSet
from service.benchmarks.peers import poisson

OCCLUDED_DEG = 2.0
DRIFT_CYCLES = 3.0
PROFILE_ROWS = 128
MIDDLE_PX = 4.0
LEAST_COMPLETE = 0.9
HALF_NYQUIST = 0.25
WINDOW_PX = 8.0
NOISELESS_COUNTS, NOISELESS_GAIN = 40_000.0, 0.05
FREQUENCIES = 512
INNER_FROM_PX = 16
PIXELS_OF_NOISE = 4096

Floats = NDArray[np.float64]


class Coverage(NamedTuple):
    """`inside`: share of the true slope errors within one stated sigma; `gain_nats`: log-likelihood per slope above
    that of the best constant sigma."""

    inside: float
    gain_nats: float


def coverage(errors: Floats, sigmas: Floats) -> Coverage:
    """Of errors and their stated standard deviations, of one shape; 68.27 % of honest Gaussian ones are inside."""
    inside = float((np.abs(errors) < sigmas).mean())
    likelihood = -np.log(sigmas) - 0.5 * (errors / sigmas) ** 2
    constant = -0.5 * math.log(float((errors**2).mean())) - 0.5
    return Coverage(inside, float(likelihood.mean()) - constant)


def drift(error_px: Floats) -> float:
    """Power of a height error (H, W) in cosine modes of at most 3 cycles per frame, its plane taken off."""
    modes = dctn(without_plane(error_px), norm="ortho")
    down, right = (0.5 * np.arange(size) for size in modes.shape)
    return float((modes[np.hypot(down[:, None], right) <= DRIFT_CYCLES] ** 2).sum()) / modes.size


def occlusion_deg(scene: Scene, classical: ModelSet, calibration: Calibration) -> float:
    """What shadows alone do to the classical answer without noise: the rms angle between its normals and those of the
    same surface lit as if nothing stood in the way, the surface's own tangent plane included. What falls between the
    pixels is wrong in both alike."""
    seen = expected_frame(scene.surface, scene.geometry, 1.0, scene.beam_px)
    lit = without_shadows(scene)
    shadowed, plain = (_noiseless_height(electrons, classical, calibration) for electrons in (seen, lit))
    return compare(shadowed, plain, 1.0).slope_error_deg


def facet_angles_deg(height_px: Floats, known: Mapping[str, float]) -> Floats:
    """(K,) angles of every facet of a `facet` case, in pieces of 128 rows along its ridge, averaged along it.

    The line is fitted to the middle half of the facet's width, clear of what a beam of 1 pixel blurs. Pieces that the
    frame cuts are left out.
    """
    rows, columns = height_px.shape
    x, y = np.meshgrid(np.arange(columns) + 0.5 - 0.5 * columns, np.arange(rows) + 0.5 - 0.5 * rows)
    azimuth = math.radians(known["azimuth_deg"])
    across = x * math.cos(azimuth) - y * math.sin(azimuth) - known["start_px"]
    along = x * math.sin(azimuth) + y * math.cos(azimuth)
    piece = np.floor(along / PROFILE_ROWS).astype(int)
    angles = []
    for sign, offset in ((1.0, 0.0), (-1.0, 0.5 * known["pitch_px"])):
        ridge = np.floor((across - offset) / known["pitch_px"]).astype(int)
        from_middle = across - offset - ridge * known["pitch_px"] - 0.5 * known["width_px"]
        middle = np.abs(from_middle) <= 0.5 * MIDDLE_PX
        for key in np.unique(np.stack([ridge[middle], piece[middle]]), axis=1).T:
            one = middle & (ridge == key[0]) & (piece == key[1])
            if one.sum() < LEAST_COMPLETE * MIDDLE_PX * PROFILE_ROWS:
                continue
            design = np.column_stack([np.ones(one.sum()), from_middle[one], along[one] - along[one].mean()])
            fitted, *_ = np.linalg.lstsq(design, height_px[one], rcond=None)
            angles.append(math.degrees(math.atan(sign * fitted[1])))
    return np.array(angles)


def transfer(height_px: Floats, truth_px: Floats, known: Mapping[str, float]) -> complex:
    """Complex amplitude of a chirp's found wave against the true one where it has half the Nyquist frequency."""
    columns = height_px.shape[1]
    x = np.arange(columns) + 0.5
    low, rise = known["left_frequency"], (known["right_frequency"] - known["left_frequency"]) / columns
    phase = 2.0 * math.pi * x * (low + 0.5 * rise * x)
    window = np.exp(-0.5 * ((x - (HALF_NYQUIST - low) / rise) / WINDOW_PX) ** 2 - 1j * phase)
    found, true = (complex((window * wave.mean(axis=0)).sum()) for wave in (height_px, truth_px))
    return found / true


def wiener_bound_deg(known: Mapping[str, float], variance: float) -> float:
    """Least rms angle error of any linear estimate on a large frame of known spectrum (gentle slopes).

    `known`: `deviation_px`, `correlation_px` of the covariance; `variance`: of one component of a pixel's measured
    slope, white. With S the spectrum of the pixels' mean height and N / (2 pi f)² that of its measurement, the error
    left has the spectrum S N' / (S + N') (N. Wiener, Extrapolation, Interpolation, and Smoothing (1949)), and
    forward differences see `4 sin²(pi f)` of it.
    """
    f = (np.arange(FREQUENCIES) + 0.5) / FREQUENCIES - 0.5
    fx, fy = f, f[:, None]
    spectrum = _spectrum(known, fx, fy)
    noise = variance / ((2.0 * math.pi) ** 2 * (fx**2 + fy**2))
    left = spectrum * noise / (spectrum + noise)
    seen = 4.0 * (np.sin(math.pi * fx) ** 2 + np.sin(math.pi * fy) ** 2)
    return math.degrees(math.sqrt(float((left * seen).mean())))


def wiener_filtered(height_px: Floats, known: Mapping[str, float], variance: float) -> Floats:
    """A DCT Poisson height of classical slopes, each cosine mode weighed as the known spectrum asks; right where the
    border is far. Slopes between two pixels are means of both, which dims and quietens fine modes."""
    fy, fx = (0.5 * np.arange(size) / size for size in height_px.shape)
    fy = fy[:, None]
    spectrum = _spectrum(known, fx, fy)
    steps = [2.0 * np.sin(math.pi * f) for f in (fx, fy)]
    means = [step * np.cos(math.pi * f) for step, f in zip(steps, (fx, fy), strict=True)]
    squares = steps[0] ** 2 + steps[1] ** 2
    squares[0, 0] = np.inf
    kept = 2.0 * math.pi * (means[0] * fx + means[1] * fy) / squares
    noise = variance * (means[0] ** 2 + means[1] ** 2) / squares**2
    weight = np.divide(spectrum * kept, spectrum * kept**2 + noise, out=np.zeros_like(spectrum), where=squares < np.inf)
    return np.asarray(idctn(dctn(height_px, norm="ortho") * weight, norm="ortho"), np.float64)


def inner_slope_deg(height_px: Floats, truth_px: Floats) -> float:
    """Slope error 16 pixels and more from the border, where the bound of an unbounded frame can be reached."""
    inner = slice(INNER_FROM_PX, -INNER_FROM_PX)
    return compare(height_px[inner, inner], truth_px[inner, inner], 1.0).slope_error_deg


def slope_variance(truth_px: Floats, instrument: Instrument) -> float:
    """Mean over both components and the surface of the Cramér-Rao bound of a pixel's slope: what difference over sum
    reaches where nothing is occluded (`inference.pixel_noise`)."""
    q, p = np.gradient(truth_px)
    step = max(truth_px.size // PIXELS_OF_NOISE, 1)
    covariances = slope_covariance(pixel_signal(instrument), p.ravel()[::step], q.ravel()[::step])
    return 0.5 * float(np.trace(covariances, axis1=1, axis2=2).mean())


def _spectrum(known: Mapping[str, float], fx: Floats, fy: Floats) -> Floats:
    """Of the pixels' mean height."""
    deviation, length = known["deviation_px"], known["correlation_px"]
    spectrum = deviation**2 * math.pi * length**2 * np.exp(-((math.pi * length) ** 2) * (fx**2 + fy**2))
    return np.asarray(spectrum * (np.sinc(fx) * np.sinc(fy)) ** 2, np.float64)


def without_shadows(scene: Scene) -> NDArray[np.float32]:
    """(S, H, W) electrons per unit of dose if every pixel's whole emission reached the detector's plane."""
    response = linear_response(scene.geometry)
    q, p = np.gradient(np.asarray(scene.surface, np.float64), 1.0 / SUBPIXELS)
    normals = np.stack([-p, -q, np.ones_like(p)]) / np.sqrt(1.0 + p**2 + q**2)
    captured = np.maximum(np.tensordot(response / response[:, 2].sum(), normals, axes=1), 0.0)
    return pixel_means(captured.astype(np.float32))


def _noiseless_height(electrons: NDArray[np.float32], classical: ModelSet, calibration: Calibration) -> Floats:
    """Classical height of a frame whose counts are as expected."""
    scale = NOISELESS_COUNTS / float(electrons.max())
    images = np.rint(electrons * scale + calibration.dark_counts[:, None, None]).astype(np.uint16)
    gains = np.full_like(calibration.gain_counts_per_electron, NOISELESS_GAIN)
    return poisson(classical.slopes(images, replace(calibration, gain_counts_per_electron=gains)))
