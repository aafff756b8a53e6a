"""What a pixel shows by its own slope alone, with derivatives: the unoccluded, linear part of BSESM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from acquisition.instrument import Instrument
from inference.forward_model.emission import emitted_fractions
from inference.networks.twin_tables import Geometry
from inference.refinement.parameters import GEOMETRY

PROBED_SHARE = 0.5
SAME_SLOPE = 0.05

Floats = NDArray[np.float64]


class Derived(NamedTuple):
    """`response` (S, 3) of an instrument's geometry, and what each number of GEOMETRY does to it: (4, S, 3)."""

    response: Floats
    by_geometry: Floats


@lru_cache(maxsize=32)
def derived_response(instrument: Instrument) -> Derived:
    """By automatic differentiation through the twin's geometry. Raises `BadInput` as `Geometry` does."""
    geometry = Geometry(instrument)
    numbers = [getattr(geometry, name) for name in GEOMETRY]
    response = geometry.response()
    by_geometry = np.zeros((len(GEOMETRY), *response.shape))
    for place in np.ndindex(*response.shape):
        found = torch.autograd.grad(response[place], numbers, retain_graph=True)
        by_geometry[(slice(None), *place)] = [float(one) for one in found]
    return Derived(response.detach().numpy(), by_geometry)


@dataclass(frozen=True, slots=True)
class LocalLaw:
    """Fractions of the emitted electrons, (S, M) over the pixels, of a surface with slopes p and q, each (M,).

    `level`: `R n` times the tilt's yield; `by_p`, `by_q`: its derivatives; `by_geometry` (4, S, M); `log_yield` (M,):
    the derivative of its logarithm by the yield's exponent.
    """

    level: Floats
    by_p: Floats
    by_q: Floats
    by_geometry: Floats
    log_yield: Floats
    relative_yield: Floats


def local_law(p: Floats, q: Floats, derived: Derived, yield_exponent: float) -> LocalLaw:
    upright = 1.0 / np.sqrt(1.0 + p**2 + q**2)
    facing = np.stack([-p, -q, np.ones_like(p)])
    linear = derived.response @ facing
    log_yield = np.log(2.0 / (1.0 + upright))
    relative_yield = np.exp(yield_exponent * log_yield)
    scale = upright * relative_yield
    # both the length of the normal and the yield change with n_z, whose derivative by p is -p n_z³
    falls = upright**2 - yield_exponent * upright**3 / (1.0 + upright)
    by_p = scale * (-derived.response[:, :1] - linear * p * falls)
    by_q = scale * (-derived.response[:, 1:2] - linear * q * falls)
    by_geometry = np.einsum("gsc,cm->gsm", derived.by_geometry, facing) * scale
    return LocalLaw(linear * scale, by_p, by_q, by_geometry, log_yield, relative_yield)


class Walls(NamedTuple):
    """What the rest of the surface does to each pixel, (S, M) fractions without the tilt's yield: what the detector
    captures with occlusion, and what it would get in addition if walls sent on all that they catch, at `heights_m`."""

    captured: Floats
    again: Floats
    heights_m: Floats


def walls(heights_m: Floats, instrument: Instrument, with_again: bool, before: Walls | None = None) -> Walls:
    """Rendered by BSESM; the emission law is the instrument's. `again` is 0 unless `with_again`: it takes long.

    What walls send on changes by a few per cent of itself from one step of a fit to the next: `before` is taken for it
    while no slope has moved by 0.05, whatever the instrument did. That is for steps, not for an end.
    """
    once = captured(heights_m, instrument)
    if not with_again:
        return Walls(once, np.zeros_like(once), heights_m)
    pixel_m = instrument.scan.pixel_size_m
    if before is not None:
        moved = np.abs(np.gradient(heights_m - before.heights_m)).max() / pixel_m
        if moved < SAME_SLOPE:
            return Walls(once, before.again, before.heights_m)
    effects = {"second_scattering": PROBED_SHARE, "tilt_yield_exponent": 0.0}
    twice = instrument.model_copy(update={"effects": instrument.effects.model_copy(update=effects)})
    both = emitted_fractions(heights_m, twice).reshape(once.shape)
    return Walls(once, (both - once) / PROBED_SHARE, heights_m)


def captured(heights_m: Floats, instrument: Instrument) -> Floats:
    """(S, M): what arrives with occlusion and the law of emission, before any wall sends on and without a yield."""
    effects = instrument.effects.model_copy(update={"second_scattering": 0.0, "tilt_yield_exponent": 0.0})
    fractions = emitted_fractions(heights_m, instrument.model_copy(update={"effects": effects}))
    return fractions.reshape(len(fractions), -1).astype(np.float64)


@lru_cache(maxsize=8)
def slope_operators(rows: int, columns: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix, sparse.csr_matrix]:
    """Central differences along x and y as the forward model takes them, and the Laplacian: (M, M) each."""
    across, down = _central(columns), _central(rows)
    along_x = sparse.kron(sparse.eye(rows), across).tocsr()
    along_y = sparse.kron(down, sparse.eye(columns)).tocsr()
    laplacian = sparse.kron(sparse.eye(rows), _curvature(columns)) + sparse.kron(_curvature(rows), sparse.eye(columns))
    return along_x, along_y, laplacian.tocsr()


def _central(size: int) -> sparse.csr_matrix:
    steps = 0.5 * (np.eye(size, k=1) - np.eye(size, k=-1))
    for row, before, after in ((0, 0, 1), (size - 1, size - 2, size - 1)):
        steps[row, before], steps[row, after] = -1.0, 1.0
    return sparse.csr_matrix(steps)


def _curvature(size: int) -> sparse.csr_matrix:
    first = np.diff(np.eye(size), axis=0)
    return sparse.csr_matrix(first.T @ first)
