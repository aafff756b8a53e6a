"""Where a profile has an edge: the best break by least squares, and its place between two points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import erf

from acquisition.errors import BadInput

FEWEST_BESIDE = 4
MOST_TRIED = 600
NARROWEST_PX = 0.25
MOST_TRIALS = 200
TOLERANCE = 1e-5

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Edge:
    """A rise of `rise_m` (negative: a fall) around `at_m`, blurred by a Gaussian of `blur_m`, on a sloping ground.
    `residual_m`: rms of what that model leaves."""

    at_m: float
    rise_m: float
    blur_m: float
    residual_m: float


def best_edge(x_m: Floats, z_m: Floats) -> float:
    """Where one jump on two lines of the same slope leaves the least. Raises `BadInput` below 8 points or where all
    heights lie on a line."""
    return _between(x_m, _best_jump(x_m, z_m)[0])


def best_groove(x_m: Floats, z_m: Floats) -> tuple[float, float, float]:
    """The two edges of the best groove or ridge on a line, and what share of the squares it leaves of those that the
    best single jump leaves."""
    thinned = max(1, math.ceil(len(x_m) / MOST_TRIED))
    x, z = x_m[::thinned], z_m[::thinned]
    left, total, suffix, moment = _prepared(x, z)
    single = total - _best_jump(x, z)[1]
    first, last = np.triu_indices(len(x), FEWEST_BESIDE)
    inside = (first >= FEWEST_BESIDE) & (last <= len(x) - FEWEST_BESIDE)
    first, last = first[inside], last[inside]
    count = (last - first).astype(np.float64)
    own = count - count**2 / len(x) - (moment[first] - moment[last]) ** 2 / left
    gain = (suffix[first] - suffix[last]) ** 2 / np.maximum(own, 1e-9 * len(x))
    best = int(np.argmax(gain))
    share = float((total - gain[best]) / max(single, 1e-300))
    return _between(x, int(first[best])), _between(x, int(last[best])), share


def fit_edge(x_m: Floats, z_m: Floats, start_m: float | None = None) -> Edge:
    """An error-function step on a straight ground, by least squares, from `start_m` or the best jump. Raises
    `BadInput` where it does not end between the first and the last point."""
    pixel_m = float(x_m[-1] - x_m[0]) / max(1, len(x_m) - 1)
    start_px = (best_edge(x_m, z_m) if start_m is None else start_m) / pixel_m
    if len(x_m) < 2 * FEWEST_BESIDE:
        raise BadInput(f"an edge within {len(x_m)} points: it takes at least {2 * FEWEST_BESIDE}")
    x, unit = x_m / pixel_m, float(np.std(z_m)) + 1e-300
    design = np.column_stack([np.ones(len(x)), x - x.mean(), np.zeros(len(x))])

    def fitted(at: Floats) -> Floats:
        design[:, 2] = 0.5 * (1.0 + erf((x - at[0]) / (math.sqrt(2.0) * _width(at[1]))))
        return np.asarray(np.linalg.lstsq(design, z_m, rcond=None)[0], np.float64)

    def misfit(at: Floats) -> Floats:
        return np.asarray((z_m - design @ fitted(at)) / unit if math.isfinite(at[0]) else z_m / unit)

    found = least_squares(misfit, [start_px, 1.0], method="lm", xtol=TOLERANCE, max_nfev=MOST_TRIALS)
    place, blur = float(found.x[0]), _width(float(found.x[1]))
    if not (x[0] + 1 < place < x[-1] - 1 and blur < 0.25 * len(x)):
        raise BadInput("no edge was found between the ends of the profile: draw it across one edge")
    rise_m = float(fitted(found.x)[2])
    return Edge(place * pixel_m, rise_m, blur * pixel_m, unit * math.sqrt(float(np.mean(found.fun**2))))


def _width(wanted: float) -> float:
    return math.hypot(wanted, NARROWEST_PX)


def _best_jump(x_m: Floats, z_m: Floats) -> tuple[int, float]:
    """Index of the first point after the jump, and by how much the jump lowers the squares."""
    if len(x_m) < 2 * FEWEST_BESIDE:
        raise BadInput(f"a profile of {len(x_m)} points has no two flanks: it takes at least {2 * FEWEST_BESIDE}")
    left, total, suffix, moment = _prepared(x_m, z_m)
    count = len(x_m) - np.arange(len(x_m), dtype=np.float64)
    own = count - count**2 / len(x_m) - moment**2 / left
    gain = suffix**2 / np.maximum(own, 1e-9 * len(x_m))
    gain[:FEWEST_BESIDE] = gain[len(x_m) - FEWEST_BESIDE + 1 :] = -1.0
    if total <= 1e-24 * float(np.sum(z_m**2)):
        raise BadInput("all heights of the profile lie on one line: there is no edge to measure")
    best = int(np.argmax(gain))
    return best, float(gain[best])


def _prepared(x_m: Floats, z_m: Floats) -> tuple[float, float, Floats, Floats]:
    """Squares of x and of what a line leaves of z, then sums of that and of x from each point to the end."""
    x = x_m - x_m.mean()
    squares = float(x @ x)
    rest = z_m - z_m.mean()
    rest = rest - x * (x @ rest) / squares
    return squares, float(rest @ rest), np.cumsum(rest[::-1])[::-1], np.cumsum(x[::-1])[::-1]


def _between(x_m: Floats, index: int) -> float:
    return float(0.5 * (x_m[index - 1] + x_m[index]))
