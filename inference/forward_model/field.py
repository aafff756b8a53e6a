"""The electrostatic field between a biased specimen and the grounded pole piece, from Laplace's equation (stage 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import RectBivariateSpline
from scipy.sparse.linalg import spsolve

from acquisition.errors import BadInput

# All in working distances.
STEP = 1 / 80
SURROUNDINGS = 3.0
LARGEST = 8.0
SMALLEST_RADIUS = 0.1
TUBE_LENGTH_PER_BORE = 4.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Potential:
    """The potential between specimen (z = 0) and detector plane (z = `working_distance_m`), around the beam's axis.

    `share`: the potential as a share of `bias_v`, 1 on the specimen and 0 at ground, a cubic spline in r and z, both
    in working distances, known up to `rim`. Beyond that its values there are continued, without a radial field.
    """

    working_distance_m: float
    bias_v: float
    share: RectBivariateSpline
    rim: float

    def volts(self, r_m: Floats, z_m: Floats) -> Floats:
        """Volts at points of any shape, in metres from the point under the beam."""
        return self._derivative(r_m, z_m, 0, 0)

    def gradient(self, r_m: Floats, z_m: Floats) -> tuple[Floats, Floats]:
        """dU/dr and dU/dz in V/m, shaped like the points. The field is their negative."""
        per_length = 1.0 / self.working_distance_m
        return self._derivative(r_m, z_m, 1, 0) * per_length, self._derivative(r_m, z_m, 0, 1) * per_length

    def _derivative(self, r_m: Floats, z_m: Floats, along_r: int, along_z: int) -> Floats:
        distance = self.working_distance_m
        share: Floats = self.share(r_m / distance, z_m / distance, dx=along_r, dy=along_z, grid=False)
        if along_r:
            share = np.where(r_m > self.rim * distance, 0.0, share)
        return self.bias_v * share


def solve_potential(
    working_distance_m: float, bias_v: float, radius_m: float | None = None, bore_radius_m: float | None = None
) -> Potential:
    """The axisymmetric Laplace potential (forward_model.md, stage 1); about half a second, once per shape.

    The specimen is the end of a biased cylinder of `radius_m` that faces the pole piece, or, with None, a plane without
    end. The grounded pole piece is a plane with a bore of `bore_radius_m` that goes on as a grounded tube, closed where
    nothing of the field is left; None is a plane without bore. Finite volumes on a grid of 1/80 working distance.

    Outer boundary: beside and below the cylinder a grounded wall, three working distances away, as chambers and stages
    are grounded; where it stands matters little, since the field dies out exponentially beside the specimen. For a
    specimen without end the rim is free (dU/dr = 0), since far from the bore the field is that between two plates. With
    a 6 mm disc 8 mm away, at -5 kV and 10 keV, a wall at five working distances changes the capture by 0.03 %, half the
    grid's step by 0.002 %.
    Raises `BadInput` for a specimen too small or a bore too wide for that grid.
    """
    for name, size_m in (("specimen.radius_m", radius_m), ("detector.bore_radius_m", bore_radius_m)):
        if size_m is not None and not size_m > 0:
            raise BadInput(f"{name} {size_m:g} m must be above 0 m; leave it out if there is none")
    if radius_m is not None and radius_m < SMALLEST_RADIUS * working_distance_m:
        raise BadInput(
            f"specimen.radius_m {radius_m:g} m is too small to solve its field: give at least "
            f"{SMALLEST_RADIUS * working_distance_m:g} m, a tenth of the working distance, or the radius of its holder"
        )
    if bore_radius_m is not None and bore_radius_m > LARGEST * working_distance_m:
        raise BadInput(
            f"detector.bore_radius_m {bore_radius_m:g} m is wider than {LARGEST:g} working distances: there would be "
            "no detector plane left to reach"
        )
    if radius_m is not None and radius_m > LARGEST * working_distance_m:
        radius_m = None
    bore = None if bore_radius_m is None else bore_radius_m / working_distance_m
    radius = None if radius_m is None else radius_m / working_distance_m
    share, rim = _solved(radius, bore)
    return Potential(working_distance_m, bias_v, share, rim)


@lru_cache(maxsize=8)
def _solved(radius: float | None, bore: float | None) -> tuple[RectBivariateSpline, float]:
    """The share of the bias over (r, z) in 0 <= z <= 1, and the rim in r; lengths in working distances."""
    rim = max(radius or 0.0, bore or 0.0) + SURROUNDINGS
    r = _nodes({0.0, bore or 0.0, radius or 0.0, rim})
    z = _nodes({0.0 if radius is None else -SURROUNDINGS, 0.0, 1.0, 1.0 + TUBE_LENGTH_PER_BORE * (bore or 0.0)})
    tiny = 1e-9
    on_r, on_z = np.meshgrid(r, z, indexing="ij")
    specimen = (on_z < tiny) & (on_r < (math.inf if radius is None else radius + tiny))
    ground = (on_z > 1.0 - tiny) & ((on_r > (bore or 0.0) - tiny) | (on_z > z[-1] - tiny))
    if radius is not None:
        ground |= ~specimen & ((on_r > rim - tiny) | (on_z < z[0] + tiny))

    share = specimen.astype(np.float64).ravel()
    known = (specimen | ground).ravel()
    laplacian = _finite_volumes(r, z)[~known]
    pull = -(laplacian[:, known] @ share[known])
    share[~known] = spsolve(laplacian[:, ~known].tocsc(), pull, permc_spec="MMD_AT_PLUS_A")
    between = (z > -tiny) & (z < 1.0 + tiny)
    return RectBivariateSpline(r, z[between], share.reshape(len(r), len(z))[:, between], s=0), rim


def _nodes(marks: set[float]) -> Floats:
    """From the lowest to the highest mark in steps of at most STEP, with a node on each: electrodes end there."""
    ordered = sorted(marks)
    spans = [
        np.linspace(start, stop, math.ceil((stop - start) / STEP - 1e-9) + 1)[1:] for start, stop in pairwise(ordered)
    ]
    return np.concatenate([ordered[:1], *spans])


def _finite_volumes(r: Floats, z: Floats) -> sparse.csr_matrix:
    """Flux out of each node's ring, per radian, as a matrix over nodes in [r, z] order; rims are free of flux."""
    middle = 0.5 * (r[1:] + r[:-1])
    ring = 0.5 * np.diff(np.concatenate([[0.0], middle, [r[-1]]]) ** 2)
    layer = np.diff(np.concatenate([[z[0]], 0.5 * (z[1:] + z[:-1]), [z[-1]]]))
    across = sparse.kron(_chain(middle / np.diff(r)), sparse.diags(layer))
    along = sparse.kron(sparse.diags(ring), _chain(1.0 / np.diff(z)))
    return sparse.csr_matrix(across + along)


def _chain(conductances: Floats) -> sparse.dia_matrix:
    """What flows out of each node of a chain, whose neighbours are linked."""
    outwards = np.concatenate([conductances, [0.0]]) + np.concatenate([[0.0], conductances])
    return sparse.diags((-conductances, outwards, -conductances), offsets=(-1, 0, 1))
