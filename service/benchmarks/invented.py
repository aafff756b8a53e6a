"""Where found relief stops being the surface's and starts being invented: against the truth, scale by scale."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from inference.accuracy import without_plane
from service.benchmarks.model_sets import Slopes

RESOLVED_FROM = 0.5

Floats = NDArray[np.float64]


class Detail(NamedTuple):
    """`resolved_px`: the finest period down to which found and true slopes correlate by 0.5 and more, ring by ring of
    frequencies. `invented`: the part of the found slopes' power that does not go along with the true ones. `stated`:
    what part of that power the sigmas claim to be error; at least `invented`, when they are honest."""

    resolved_px: float
    invented: float
    stated: float


def detail(slopes: Slopes, height_px: Floats, truth_px: Floats) -> Detail:
    """Heights (H, W) and the slopes that the first was integrated from."""
    found, true, rings = _slope_modes(height_px), _slope_modes(truth_px), _rings(truth_px.shape)
    own, theirs, cross = (np.bincount(rings.ravel(), part.ravel()) for part in (found**2, true**2, found * true))
    correlation = cross / np.sqrt(np.maximum(own * theirs, np.finfo(np.float64).tiny))
    poor = np.flatnonzero(correlation[1:] < RESOLVED_FROM) + 1
    last = int(poor[0]) - 1 if len(poor) else len(own) - 1
    alike = cross**2 / np.maximum(theirs, np.finfo(np.float64).tiny)
    power = float(np.mean(slopes.p**2)) + float(np.mean(slopes.q**2))
    stated = float(np.mean(slopes.sigma_p**2)) + float(np.mean(slopes.sigma_q**2))
    return Detail(
        max(truth_px.shape) / max(last, 0.5),
        float((own - alike)[1:].sum() / own[1:].sum()),
        stated / power,
    )


def _slope_modes(height_px: Floats) -> Floats:
    """Amplitudes of the cosine modes of a height's slopes."""
    level = without_plane(height_px)
    down, right = (np.sin(0.5 * np.pi * np.arange(size) / size) for size in level.shape)
    return np.asarray(dctn(level, norm="ortho") * np.hypot(down[:, None], right), np.float64)


def _rings(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Cycles per longer side of every mode, rounded; a mode has half as many cycles as its number."""
    down, right = (0.5 * max(shape) * np.arange(size) / size for size in shape)
    return np.rint(np.hypot(down[:, None], right)).astype(np.intp)
