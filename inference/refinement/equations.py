"""The normal equations of one view: what parameters, brightness, pose and heights do to its counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from acquisition.instrument import Instrument
from inference.refinement.local_law import slope_operators
from inference.refinement.parameters import GEOMETRY, ParameterSet
from inference.refinement.views import FINER, Shown, Surface, View, by_beam, digitiser

# Slopes may bend by so much from pixel to pixel without being held back: the prior of an ordinary surface.
FREE_BENDING = 1.0
BLUR_STEP_PX, LEAST_WIDTH_PX = 0.05, 0.5
TILES = 6

Floats = NDArray[np.float64]


class Normal(NamedTuple):
    """Half the misfit's second and first derivatives by (parameters, dense unknowns), heights taken out (Schur).

    `solved` (M, 1 + P) brings heights along, with the step `solved[:, 0] - solved[:, 1:] @ step`. `scores` (T, P): the
    first derivatives by tiles of the frame.
    """

    matrix: Floats
    vector: Floats
    solved: Floats | None
    scores: Floats


def columns_of(view: View, at: Shown, instrument: Instrument, free: ParameterSet, brightness: float) -> Floats:
    """(P + 1, S, M): what each free parameter and the logarithm of the brightness do to the expected counts."""
    gain, _ = digitiser(instrument)
    per_fraction, width = np.exp(brightness), instrument.beam.sigma_px
    seen = per_fraction * by_beam(at.fractions, view, width)
    columns = np.zeros((len(free.free) + 1, *at.expected.shape))
    for number, one in enumerate(free.free):
        if one.name == "gain_counts_per_electron":
            columns[number, one.segment] = seen[one.segment]
        elif one.name == "dark_counts":
            columns[number, one.segment] = 1.0
        elif one.name == "sigma_px":
            # a beam of no width hides its own derivative, for the blur goes with the square
            step = max(BLUR_STEP_PX, LEAST_WIDTH_PX - width)
            wider = per_fraction * by_beam(at.fractions, view, width + step)
            columns[number] = gain[:, None] * (wider - seen) / step
        else:
            change = _fractions_by(one.name, at)
            columns[number] = gain[:, None] * per_fraction * by_beam(change, view, width)
    columns[-1] = gain[:, None] * seen
    return columns


def normal_of(
    view: View, at: Shown, columns: Floats, surface: Surface, instrument: Instrument, brightness: float
) -> Normal:
    """The normal equations of one view, its heights marginalised exactly in the linear neighbourhood."""
    gain, _ = digitiser(instrument)
    scaled = gain[:, None] * np.exp(brightness)
    by_p, by_q = scaled * at.law.by_p, scaled * at.law.by_q
    along_x, along_y, laplacian = slope_operators(*view.counts.shape[1:])
    if view.sample is not None:
        columns = np.concatenate([columns, _by_pose(view, by_p, by_q, surface.pose, instrument.beam.sigma_px)])
    weighted = columns * at.weight
    matrix = np.einsum("asm,bsm->ab", weighted, columns)
    vector = np.einsum("asm,sm->a", weighted, at.misfit)
    if view.sample is not None:
        return Normal(matrix, vector, None, _by_tile(view, weighted, at.misfit))
    weight_p, weight_q = at.weight * by_p, at.weight * by_q
    bending = (laplacian.T @ laplacian) / FREE_BENDING**2
    crossed = along_x.T @ _diagonal(weight_p * by_q) @ along_y
    inner = along_x.T @ _diagonal(weight_p * by_p) @ along_x + along_y.T @ _diagonal(weight_q * by_q) @ along_y
    inner = inner + crossed + crossed.T + bending
    inner = inner + sparse.eye(inner.shape[0]) * 1e-9 * inner.diagonal().mean()
    right = np.stack(
        [
            along_x.T @ (weight_p * one).sum(axis=0) + along_y.T @ (weight_q * one).sum(axis=0)
            for one in (at.misfit, *columns)
        ],
        axis=1,
    )
    right[:, 0] -= bending @ (surface.heights_m.ravel() / view.pixel_m)
    solved = splu(inner.tocsc()).solve(right)
    heights = solved[:, 1:]
    free = columns - np.einsum("sm,ma->asm", by_p, along_x @ heights) - np.einsum("sm,ma->asm", by_q, along_y @ heights)
    scores = _by_tile(view, free * at.weight, at.misfit)
    return Normal(matrix - right[:, 1:].T @ solved[:, 1:], vector - right[:, 1:].T @ solved[:, 0], solved, scores)


def _fractions_by(name: str, at: Shown) -> Floats:
    if name == "tilt_yield_exponent":
        return np.asarray(at.fractions * at.law.log_yield)
    if name == "second_scattering":
        return np.asarray(at.walls.again * at.law.relative_yield)
    if name == "emission_exponent":
        return at.by_exponent
    return np.asarray(at.law.by_geometry[GEOMETRY.index(name)])


def _by_pose(view: View, by_p: Floats, by_q: Floats, pose: Mapping[str, float], sigma_px: float) -> Floats:
    assert view.sample is not None
    shape, pixel_m = (FINER * view.counts.shape[1], FINER * view.counts.shape[2]), view.pixel_m / FINER
    along_x, along_y, _ = slope_operators(*shape)
    found = []
    for one in view.poses:
        ends = [
            view.sample.heights_m({**pose, one.name: pose[one.name] + side * one.step}, shape, pixel_m)
            for side in (-0.5, 0.5)
        ]
        change = (ends[1] - ends[0]).ravel() / (pixel_m * one.step)
        found.append(by_beam(by_p * (along_x @ change) + by_q * (along_y @ change), view, sigma_px))
    return np.stack(found)


def _by_tile(view: View, weighted: Floats, misfit: Floats) -> Floats:
    """(T, P) sums over tiles of the frame."""
    rows, columns = view.counts.shape[1:]
    tile = (np.arange(rows) * TILES // rows)[:, None] * TILES + np.arange(columns) * TILES // columns
    scores = np.einsum("asm,sm->am", weighted, misfit)
    return np.stack([np.bincount(tile.ravel(), one, TILES**2) for one in scores], axis=1)


def _diagonal(values: Floats) -> sparse.dia_matrix:
    return sparse.diags(values.sum(axis=0))
