"""What an integrator could take off at most, by being told what no integrator knows: the truth, in one place each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference.accuracy import compare
from inference.training.frames import expected_frame
from service.benchmarks.judged import Seen
from service.benchmarks.model_sets import Slopes
from service.benchmarks.peers import poisson, weighted
from service.benchmarks.theory import without_shadows

BOUND_DOSE = 10_000.0
SHADOWED_SHARE = 0.03
WEIGHTS, SHADOWED, LIT = "weights from true errors", "true slopes in shadow", "true slopes in light"

Bools = NDArray[np.bool_]


def bounds(seen: Seen, slopes: Slopes, shadowed: Bools) -> Mapping[str, float]:
    """Height errors over those of the exact solver on the same slopes: each slope weighted by its own true error (the
    most that any weights know), slopes replaced by true ones where pixels are `shadowed` (the most that a correction
    of shadows does), and everywhere else (what noise and sampling leave)."""
    true_p, true_q = np.diff(seen.truth, axis=1), np.diff(seen.truth, axis=0)
    off_p, off_q = slopes.p - true_p, slopes.q - true_q
    typical = float(np.median(np.abs(np.concatenate([off_p.ravel(), off_q.ravel()]))))
    on_p, on_q = shadowed[:, 1:] | shadowed[:, :-1], shadowed[1:] | shadowed[:-1]
    heights = {
        WEIGHTS: weighted(slopes._replace(sigma_p=np.hypot(off_p, typical), sigma_q=np.hypot(off_q, typical))),
        SHADOWED: poisson(slopes._replace(p=np.where(on_p, true_p, slopes.p), q=np.where(on_q, true_q, slopes.q))),
        LIT: poisson(slopes._replace(p=np.where(on_p, slopes.p, true_p), q=np.where(on_q, slopes.q, true_q))),
    }
    exact = compare(poisson(slopes), seen.truth, 1.0).height_error_m
    return {name: compare(height, seen.truth, 1.0).height_error_m / exact for name, height in heights.items()}


def shadowed_pixels(seen: Seen) -> Bools:
    """(H, W) where what stands in the way changes a segment by more than a share of its mean, without noise."""
    lit = without_shadows(seen.scene)
    changed = np.abs(expected_frame(seen.scene.surface, seen.scene.geometry, 1.0, seen.scene.beam_px) - lit)
    return np.asarray((changed > SHADOWED_SHARE * lit.mean()).any(axis=0), np.bool_)
