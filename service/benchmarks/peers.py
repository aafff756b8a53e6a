"""Whom the networks are compared with: the integrators and filters of the trade, each in its best form. Free of torch.

All work in pixels: `Slopes` per pixel in, heights (H, W) float64 of zero mean out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from inference.calibration import Calibration
from service.benchmarks.model_sets import Images, ModelSet, Slopes

SMOOTHING_PX = (0.0, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0)
REWEIGHTINGS = 8
HUBER_SIGMAS = 1.345
LEAST_SCALE, LEAST_SHARE = 1e-5, 1e-3
SOLVED_TO, MOST_STEPS = 1e-5, 200
REWEIGHTED_TO, REWEIGHTED_STEPS = 1e-3, 30

Floats = NDArray[np.float64]


def poisson(slopes: Slopes) -> Floats:
    """Least squares with natural borders by cosine transform: what commercial four-quadrant software does."""
    return _poisson(_divergence(slopes.p, slopes.q))


def frankot_chellappa(slopes: Slopes) -> Floats:
    """Projection onto Fourier modes with the exact derivative, mirror-extended so that borders need not match (Frankot
    and Chellappa, IEEE TPAMI 10 (1988) 439); slopes count as those of the middle between two pixels."""
    p, q = _mirrored_odd(slopes.p), _mirrored_odd(slopes.q.T).T
    rows, columns = p.shape
    over_x, over_y = 2.0 * np.pi * np.fft.rfftfreq(columns), 2.0 * np.pi * np.fft.fftfreq(rows)[:, None]
    along_x = np.fft.rfft2(p) * (-1j * over_x * np.exp(-0.5j * over_x))
    along_y = np.fft.rfft2(q) * (-1j * over_y * np.exp(-0.5j * over_y))
    squares = over_x**2 + over_y**2
    squares[0, 0] = 1.0
    height = np.fft.irfft2((along_x + along_y) / squares, s=p.shape)[: rows // 2, : columns // 2]
    return np.asarray(height - height.mean(), np.float64)


def weighted(slopes: Slopes) -> Floats:
    """Least squares with every slope weighted by its stated variance, to convergence."""
    return _reweighted(slopes, slopes.sigma_p**-2.0, slopes.sigma_q**-2.0, poisson(slopes), SOLVED_TO, MOST_STEPS)


def irls(slopes: Slopes) -> Floats:
    """Iteratively reweighted least squares: a loss that grows linearly beyond 1.345 robust deviations of the misfit."""
    height = poisson(slopes)
    for _ in range(REWEIGHTINGS):
        off_x, off_y = np.diff(height, axis=1) - slopes.p, np.diff(height, axis=0) - slopes.q
        typical = 1.4826 * np.median(np.abs(np.concatenate([off_x.ravel(), off_y.ravel()])))
        scale = HUBER_SIGMAS * max(float(typical), LEAST_SCALE)
        weight_p, weight_q = (1.0 / np.sqrt(1.0 + (off / scale) ** 2) for off in (off_x, off_y))
        height = _reweighted(slopes, weight_p, weight_q, height, REWEIGHTED_TO, REWEIGHTED_STEPS)
    return height


INTEGRATORS: Mapping[str, Callable[[Slopes], Floats]] = {
    "DCT Poisson": poisson,
    "Frankot-Chellappa": frankot_chellappa,
    "IRLS": irls,
    "weighted": weighted,
}


def oracle_smoothed(
    images: Images, calibration: Calibration, classical: ModelSet, error_of: Callable[[Floats], float]
) -> tuple[Floats, str]:
    """The best of classical heights after Gaussian smoothing, judged with the truth, and how it was smoothed.

    Slopes are smoothed with every width of the ladder, the segment images with the best of those and its neighbours.
    `error_of` judges a height. Width 0 is among them: never worse than classical itself.
    """
    raw = classical.slopes(images, calibration)
    found: list[tuple[float, Floats, str]] = []
    for width in SMOOTHING_PX:
        p, q = (gaussian_filter(slope, width) if width else slope for slope in (raw.p, raw.q))
        height = poisson(raw._replace(p=p, q=q))
        found.append((error_of(height), height, f"slopes, {width:g} px"))
    best = min(range(len(found)), key=lambda place: found[place][0])
    for width in SMOOTHING_PX[max(best - 1, 1) : best + 2]:
        blurred = np.stack([gaussian_filter(image.astype(np.float32), width) for image in images])
        height = poisson(classical.slopes(np.rint(blurred).astype(np.uint16), calibration))
        found.append((error_of(height), height, f"images, {width:g} px"))
    _, height, told = min(found, key=lambda one: one[0])
    return height, told


def principal_components(
    images: Images, dark_counts: NDArray[np.floating], azimuths_rad: Floats, truth: Floats
) -> Floats:
    """Height of `principal_slopes`, by a cosine transform."""
    return poisson(principal_slopes(images, dark_counts, azimuths_rad, truth))


def principal_slopes(images: Images, dark_counts: NDArray[np.floating], azimuths_rad: Floats, truth: Floats) -> Slopes:
    """Slopes by self-calibration from the images alone, as published for segmented backscatter detectors (J. Neggers
    et al., Ultramicroscopy 184 (2018) 200).

    The two strongest principal components of the segments' shares of the pixel's sum, each segment taken relative to
    its mean above its dark level (S,), are what topography shows. The segments' nominal azimuths (S,) turn them into
    directions; the frame counts as level on average. The one scale left open is the best one for the true height.
    """
    relative = np.maximum(images.reshape(len(images), -1) - dark_counts[:, None].astype(np.float64), 0.0)
    relative /= np.maximum(relative.mean(axis=1, keepdims=True), 1.0)
    shares = relative / np.maximum(relative.sum(axis=0), LEAST_SHARE)
    shares -= shares.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(shares @ shares.T)
    kept = vectors[:, -2:] @ (vectors[:, -2:].T @ shares)
    directions = np.linalg.pinv(np.column_stack([np.cos(azimuths_rad), -np.sin(azimuths_rad)]))
    # A facet that leans towards a segment rises away from it.
    along_x, along_y = (-directions @ kept).reshape(2, *images.shape[1:])
    between_x, between_y = 0.5 * (along_x[:, 1:] + along_x[:, :-1]), 0.5 * (along_y[1:] + along_y[:-1])
    strength = float((between_x**2).sum() + (between_y**2).sum())
    fit = float((between_x * np.diff(truth, axis=1)).sum() + (between_y * np.diff(truth, axis=0)).sum())
    scale = fit / strength if strength > 0 else 0.0
    sure = (np.ones_like(between_x), np.ones_like(between_y), np.zeros(truth.shape, np.uint8))
    return Slopes(scale * between_x, scale * between_y, *sure)


def _divergence(p: Floats, q: Floats) -> Floats:
    """(H, W): the transpose of forward differences, so that borders are natural."""
    source = np.zeros((p.shape[0], q.shape[1]))
    source[:, 1:] += p
    source[:, :-1] -= p
    source[1:] += q
    source[:-1] -= q
    return source


def _poisson(source: Floats) -> Floats:
    rows, columns = ((2.0 * np.sin(0.5 * np.pi * np.arange(size) / size)) ** 2 for size in source.shape)
    eigenvalues = rows[:, None] + columns
    eigenvalues[0, 0] = np.inf
    return np.asarray(idctn(dctn(source, norm="ortho") / eigenvalues, norm="ortho"), np.float64)


def _reweighted(slopes: Slopes, weight_p: Floats, weight_q: Floats, start: Floats, to: float, steps: int) -> Floats:
    """Weighted least squares by conjugate gradients, the unweighted solver as preconditioner, until the preconditioned
    residual has fallen to the part `to` of the right side."""
    typical = 0.5 * (np.median(weight_p) + np.median(weight_q))
    weight_p, weight_q = weight_p / typical, weight_q / typical
    right = _divergence(weight_p * slopes.p, weight_q * slopes.q)
    height = start
    residual = right - _divergence(weight_p * np.diff(height, axis=1), weight_q * np.diff(height, axis=0))
    towards = _poisson(residual)
    direction, power = towards, float((residual * towards).sum())
    enough = to**2 * float((right * _poisson(right)).sum())
    for _ in range(steps):
        if power <= enough:
            break
        along = _divergence(weight_p * np.diff(direction, axis=1), weight_q * np.diff(direction, axis=0))
        step = power / float((direction * along).sum())
        height, residual = height + step * direction, residual - step * along
        towards = _poisson(residual)
        before, power = power, float((residual * towards).sum())
        direction = towards + (power / before) * direction
    return np.asarray(height - height.mean(), np.float64)


def _mirrored_odd(p: Floats) -> Floats:
    """(2 H, 2 W) of forward differences along x (H, W-1) of a height that goes on as its mirror image."""
    wall = np.zeros((p.shape[0], 1))
    row = np.hstack([p, wall, -p[:, ::-1], wall])
    return np.vstack([row, row[::-1]])
