"""The uncertainty of what is fitted to heights whose noise is correlated from one point to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import matmul_toeplitz
from scipy.optimize import least_squares

from acquisition.errors import BadInput

LAGS = 3
LENGTHS_TRIED = 20
SHORTEST_PX = 0.3
HUBER = 1.345
ROUNDS = 4
MAD_TO_SIGMA = 1.4826

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scatter:
    """Noise of `variance` whose correlation with the point k points on is `correlation[k]` (n,)."""

    variance: float
    correlation: Floats

    def sigma_of(self, weights: Floats) -> float:
        """Standard deviation of the sum of the n neighbouring heights times `weights` (n,)."""
        spread = weights @ matmul_toeplitz(self.correlation[: len(weights)], weights)
        return math.sqrt(max(0.0, self.variance * float(spread)))


def scatter_of(residuals: Floats, design: Floats) -> Scatter:
    """Of residuals (m, n), m series of n neighbouring points each, which a least-squares fit of `design` (n, k) left.

    A fit takes noise away and leaves what remains less correlated than it was. So mean squares and mean products with
    the next and the second next are set against what noise of a known correlation would leave after the same fit:
    white, falling exponentially (as integrated slopes have it) or like a Gaussian (as smoothing has it), over lengths
    of up to the series itself. The one that comes nearest is the answer; longer correlations cannot be seen.
    """
    series, count = np.atleast_2d(residuals), len(design)
    base, _ = np.linalg.qr(design)
    lags = min(LAGS, count)
    products = np.array([np.mean(np.sum(series[:, : count - k] * series[:, k:], axis=1)) for k in range(lags)])
    if products[0] <= 0.0 or count <= base.shape[1]:
        return Scatter(0.0, np.eye(1, count)[0])
    models = _models(count)
    left = _left_by_fit(base, models, lags)
    misfit = np.sum((left / left[:, :1] - products / products[0]) ** 2, axis=1)
    best = int(np.argmin(misfit))
    return Scatter(float(products[0] / left[best, 0]), models[best])


def sigma_of_mean(values: Floats) -> float:
    """Of the mean of 4 or more neighbours' values (n,), correlated with each other; a trend over them is no scatter."""
    count = len(values)
    design = np.vander(np.arange(count, dtype=np.float64), 2)
    residuals = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return scatter_of(residuals, design).sigma_of(np.full(count, 1.0 / count))


@dataclass(frozen=True, slots=True, eq=False)
class StraightLine:
    """`y = at_middle + slope (x - middle)` with standard uncertainties; `slope_weights` (n,) give the slope as their
    product with y, so that the same can be asked of other series. `residual` is the rms left."""

    slope: float
    sigma_slope: float
    at_middle: float
    sigma_at_middle: float
    middle: float
    residual: float
    slope_weights: Floats

    def at(self, x: float) -> float:
        return self.at_middle + self.slope * (x - self.middle)

    def sigma_at(self, x: float) -> float:
        return math.hypot(self.sigma_at_middle, self.sigma_slope * (x - self.middle))


def robust_line(x: Floats, y: Floats, sigma: Floats | None = None) -> StraightLine:
    """A line by Huber's M-estimator (scipy's `least_squares`), outliers beyond 1.345 sigma held back; `sigma` (n,)
    weighs points. Raises `BadInput` below 3 points."""
    if len(x) < 3:
        raise BadInput(f"a line through {len(x)} points has no uncertainty: it takes at least 3")
    trusted = (
        np.ones(len(x)) if sigma is None else np.median(sigma) / np.maximum(sigma, 1e-3 * np.median(sigma) + 1e-300)
    )
    middle, span = float(np.average(x, weights=trusted)), float(np.ptp(x))
    design = np.column_stack([np.ones(len(x)), (x - middle) / span])
    found: Floats = np.linalg.lstsq(design * trusted[:, None], y * trusted, rcond=None)[0].astype(np.float64)
    floor = 1e-9 * float(np.ptp(y)) or 1.0
    for _ in range(ROUNDS):  # outliers tilt the first line, and so widen the scale by which they are told
        unit = max(MAD_TO_SIGMA * float(np.median(np.abs(trusted * (y - design @ found)))), floor)
        found = _huber(design * trusted[:, None], y * trusted, unit, found)
    residuals = trusted * (y - design @ found)
    held = trusted * np.sqrt(np.minimum(1.0, HUBER * unit / np.maximum(np.abs(residuals), floor)))
    estimator = np.linalg.pinv(design * held[:, None]) * held
    weights, at_middle = estimator[1] / span, estimator[0]
    scatter = scatter_of(residuals, design)
    return StraightLine(
        float(found[1]) / span,
        scatter.sigma_of(weights / trusted),
        float(found[0]),
        scatter.sigma_of(at_middle / trusted),
        middle,
        float(np.sqrt(np.mean(residuals**2))),
        weights,
    )


def _huber(design: Floats, y: Floats, unit: float, start: Floats) -> Floats:
    def misfit(at: Floats) -> Floats:
        return np.asarray((y - design @ at) / unit, np.float64)

    return np.asarray(least_squares(misfit, start, loss="huber", f_scale=HUBER, x_scale=np.full(2, unit)).x)


def _models(count: int) -> Floats:
    """Correlations (models, n) by lag that are tried."""
    lag = np.arange(count, dtype=np.float64)
    lengths = np.geomspace(SHORTEST_PX, count, LENGTHS_TRIED)[:, None]
    return np.concatenate([np.exp(-lag / lengths), np.exp(-0.5 * (lag / lengths[lengths[:, 0] < count / 3]) ** 2)])


def _left_by_fit(base: Floats, models: Floats, lags: int) -> Floats:
    """(models, lags) expected sums of squares and of products with neighbours that unit noise leaves after a fit of
    orthonormal `base` (n, k): `M R M` with `M = 1 - base base'`, summed along its diagonals."""
    count = len(base)
    around = np.concatenate([models, np.zeros((len(models), 1)), models[:, :0:-1]], axis=1)
    spectra = np.fft.rfft(around)[:, None, :] * np.fft.rfft(base.T, 2 * count)
    reached = np.moveaxis(np.fft.irfft(spectra, 2 * count)[:, :, :count], 1, 2)  # R base: (models, n, k)
    taken = base.T @ reached
    left = np.empty((len(models), lags))
    for k in range(lags):
        ahead, behind = base[: count - k], base[k:]
        crossed = np.sum(ahead * reached[:, k:], axis=(1, 2)) + np.sum(reached[:, : count - k] * behind, axis=(1, 2))
        left[:, k] = (count - k) * models[:, k] - crossed + np.sum((ahead @ taken) * behind, axis=(1, 2))
    return left
