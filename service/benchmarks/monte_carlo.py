"""The independent judge of BSESM: rays traced by Embree over the triangulated surface, counted where they land.

Shares no code with `inference.forward_model`: other geometry of the segments, other surface, other integration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from service.benchmarks.rays import SCRAMBLES_PER_PIXEL, Integers, RaySource, Sampler, Singles, ray_source

RAYS_PER_BATCH = 1_000_000
SITES_PER_PIXEL = 16
# In pixels: far below what a horizon is sensitive to, far above single precision's steps on a mesh of 512 pixels.
LIFT = 2e-4
# Embree's distance of a ray that meets nothing is 1e37.
MISSED = 1e30

Floats = NDArray[np.float64]
Cut = Literal["lower", "higher"]


def monte_carlo_fractions(
    heights_m: NDArray[np.floating],
    instrument: Instrument,
    pixels: Integers,
    rays: int,
    rng: np.random.Generator,
    sampler: Sampler,
    scrambles: int = SCRAMBLES_PER_PIXEL,
    cut: Cut = "lower",
) -> tuple[Floats, Floats]:
    """Captured fractions of the emission at `pixels` (P, 2), rows and columns: means and standard errors, each (S, P).

    `heights_m`: (H, W) metres, relative to the mean plane of the specimen, whose tilt is added. Each pixel emits `rays`
    straight rays from its centre with a cosine distribution about its normal, which is that of central differences,
    as in `captured_fractions`: both must mean the same surface, and the corner of a triangulated one has no normal of
    its own. What a pixel would emit as an area of facets is another question, answered by `area_fractions`.

    Between pixel centres the surface is two triangles per cell, and four heights don't say which: cut along the lower
    diagonal (a valley), the mesh is the same however the image is mirrored or turned, and it is what a horizon marched
    over the grid's lines means. `cut` "higher" gives the other extreme: the difference is what sampling leaves open.

    Sampler `plain` throws pseudo-random rays and counts hits. Sampler `cone` throws scrambled Sobol rays evenly over
    the solid angle of the cone that holds the detector, each weighted with max(n.omega, 0) / pi; its `rays` are a power
    of two, split into `scrambles` independent ones, whose scatter gives the standard error: with fewer the means are
    better and their errors less certain, with one they are unknown (nan). Beyond the frame is nothing.

    Raises `BadInput` for a biased specimen, unknown radii, pixels outside of the frame and unfit numbers of rays.
    """
    mesh = _Mesh.of(heights_m, instrument, cut)
    source = ray_source(instrument.detector, rays, rng, sampler, scrambles)
    pixels = mesh.checked(pixels)
    return _captured(mesh.scene(), mesh.centres(pixels), mesh.normals(pixels), source)


def area_fractions(
    heights_m: NDArray[np.floating], instrument: Instrument, pixels: Integers, rays: int, rng: np.random.Generator
) -> Floats:
    """(S, P): means as above, but each pixel emits from its whole area and about the normals of its facets.

    Shows what the choice of the pixel's centre and of central differences amounts to: a property of how heights are
    sampled, not an error of the capture. `rays` of the sampler `cone` go to each of 16 random sites of a pixel.
    """
    mesh = _Mesh.of(heights_m, instrument)
    limit = np.array(mesh.heights.shape) - 1.0
    spread = rng.uniform(-0.5, 0.5, (len(pixels), SITES_PER_PIXEL, 2))
    places = np.clip(mesh.checked(pixels)[:, None] + spread, 0.0, np.nextafter(limit, 0.0)).reshape(-1, 2)
    means, _ = _captured(mesh.scene(), *mesh.facets(places), ray_source(instrument.detector, rays, rng, "cone"))
    averages: Floats = means.reshape(len(means), len(pixels), SITES_PER_PIXEL).mean(axis=2)
    return averages


def first_obstacles(
    heights_m: NDArray[np.floating], instrument: Instrument, pixels: Integers, rays: int, rng: np.random.Generator
) -> tuple[Integers, Singles, Singles]:
    """Of each ray of the sampler `cone` that would land on a segment: its pixel, its weight, how far off it is blocked.

    Each (N,), over all `pixels`. The weights of a pixel sum to the fraction that all segments would capture if nothing
    stood around it. Distances are horizontal, in units of the smaller pixel side, infinite for free rays.
    """
    mesh = _Mesh.of(heights_m, instrument)
    pixels = mesh.checked(pixels)
    source = ray_source(instrument.detector, rays, rng, "cone")
    scene, origins, normals = mesh.scene(), mesh.centres(pixels), mesh.normals(pixels)
    sites, weights, distances = [], [], []
    for part in _batches(len(pixels), rays):
        thrown = source.throw(normals[part])
        length = scene.run(origins[part][thrown.site], thrown.direction, query="DISTANCE")
        horizontal = length * np.hypot(thrown.direction[:, 0], thrown.direction[:, 1])
        sites.append(thrown.site + part.start)
        weights.append(thrown.weight / np.float32(rays))
        distances.append(np.where(length < MISSED, horizontal, np.float32(np.inf)))
    return np.concatenate(sites), np.concatenate(weights), np.concatenate(distances)


@dataclass(frozen=True, slots=True)
class _Mesh:
    """The tilted surface in units of the smaller pixel side, for single precision's sake: x right, y down, z up."""

    heights: Floats
    width: float
    height: float
    cut: Cut

    @classmethod
    def of(cls, heights_m: NDArray[np.floating], instrument: Instrument, cut: Cut = "lower") -> _Mesh:
        if instrument.specimen.bias_v != 0.0:
            raise BadInput(
                f"specimen bias {instrument.specimen.bias_v:g} V: the reference traces straight lines only; "
                "set specimen.bias_v to 0"
            )
        heights_m = np.asarray(heights_m, np.float64)
        if heights_m.ndim != 2 or min(heights_m.shape) < 2 or not np.isfinite(heights_m).all():
            raise BadInput(f"heights of shape {heights_m.shape}: expected finite (H, W) with at least 2 x 2 pixels")
        scan, specimen = instrument.scan, instrument.specimen
        width_m, height_m = scan.pixel_size_m, scan.pixel_size_y_m or scan.pixel_size_m
        unit_m = min(width_m, height_m)
        row, column = np.indices(heights_m.shape)
        right_m = column * width_m * math.tan(math.radians(specimen.tilt_x_deg))
        top_m = row * height_m * math.tan(math.radians(specimen.tilt_y_deg))
        tilted = heights_m + right_m - top_m
        return cls((tilted - tilted.mean()) / unit_m, width_m / unit_m, height_m / unit_m, cut)

    def scene(self) -> Any:
        """Embree's scene of two triangles per cell between four pixel centres."""
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ModuleNotFoundError as error:
            raise BadInput(f"{error.name} is not installed: install eclips-live with the extra `bench`") from error
        rows, columns = self.heights.shape
        row, column = np.indices(self.heights.shape)
        vertices = np.stack([column * self.width, row * self.height, self.heights], axis=-1).reshape(-1, 3)
        corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
        right, below, across = corner + 1, corner + columns, corner + columns + 1
        rising = self.cut_rising.ravel()
        upper = np.stack([corner, right, np.where(rising, below, across)], axis=1)
        lower = np.stack([across, below, np.where(rising, right, corner)], axis=1)
        scene = EmbreeScene(robust=True)
        TriangleMesh(scene, vertices.astype(np.float32), np.concatenate([upper, lower]).astype(np.int32))
        return scene

    @property
    def cut_rising(self) -> NDArray[np.bool_]:
        """(H - 1, W - 1): cells cut from lower left to upper right, the others from upper left to lower right."""
        h = self.heights
        drop = h[:-1, :-1] + h[1:, 1:] - h[:-1, 1:] - h[1:, :-1]
        return drop >= 0 if self.cut == "lower" else drop < 0

    def checked(self, pixels: Integers) -> Integers:
        pixels = np.asarray(pixels)
        rows, columns = self.heights.shape
        if pixels.ndim != 2 or pixels.shape[1] != 2 or (pixels < 0).any() or (pixels >= (rows, columns)).any():
            raise BadInput(
                f"pixels of shape {pixels.shape}: expected (P, 2), each within {rows} rows, {columns} columns"
            )
        return pixels

    def centres(self, pixels: Integers) -> Singles:
        """(P, 3). Lifted straight up: along a tilted normal a start in a narrow pit could end inside of its wall."""
        row, column = pixels.T
        return self._lifted(row * self.height, column * self.width, self.heights[row, column])

    def normals(self, pixels: Integers) -> Singles:
        """(P, 3) by central differences, one-sided at the border."""
        row, column = pixels.T
        p: Floats = np.gradient(self.heights, self.width, axis=1)
        q: Floats = np.gradient(self.heights, self.height, axis=0)
        return _unit(p[row, column], q[row, column])

    def facets(self, places: Floats) -> tuple[Singles, Singles]:
        """Origins and normals, (N, 3) each, at fractional rows and columns (N, 2)."""
        row, column = np.floor(places).astype(int).T
        down, right = (places - np.floor(places)).T
        # A cell cut the other way is the mirror image of one cut from lower left to upper right.
        mirrored = ~self.cut_rising[row, column]
        near, far = np.where(mirrored, column + 1, column), np.where(mirrored, column, column + 1)
        along = np.where(mirrored, 1.0 - right, right)
        upper_near, upper_far = self.heights[row, near], self.heights[row, far]
        lower_near, lower_far = self.heights[row + 1, near], self.heights[row + 1, far]
        upper = along + down < 1.0
        rise_along = np.where(upper, upper_far - upper_near, lower_far - lower_near)
        rise_down = np.where(upper, lower_near - upper_near, lower_far - upper_far)
        height = upper_far - rise_along * (1.0 - along) + rise_down * down
        origins = self._lifted(places[:, 0] * self.height, places[:, 1] * self.width, height)
        rise_right = np.where(mirrored, -rise_along, rise_along)
        return origins, _unit(rise_right / self.width, rise_down / self.height)

    def _lifted(self, y: Floats, x: Floats, z: Floats) -> Singles:
        return np.stack([x, y, z + LIFT], axis=1).astype(np.float32)


def _unit(p: Floats, q: Floats) -> Singles:
    upward = np.stack([-p, -q, np.ones_like(p)], axis=1)
    normals: Singles = (upward / np.linalg.norm(upward, axis=1, keepdims=True)).astype(np.float32)
    return normals


def _captured(scene: Any, origins: Singles, normals: Singles, source: RaySource) -> tuple[Floats, Floats]:
    """Means and standard errors, (S, N) each."""
    means, errors = [], []
    for part in _batches(len(origins), source.rays):
        thrown = source.throw(normals[part])
        clear = scene.run(origins[part][thrown.site], thrown.direction, query="OCCLUDED") < 0
        shape = len(normals[part]), source.replicates, source.segments
        place = np.ravel_multi_index((thrown.site, thrown.replicate, thrown.segment), shape)
        sums = np.bincount(place[clear], thrown.weight[clear], math.prod(shape)).reshape(shape)
        replicates = sums / (source.rays // source.replicates)
        means.append(replicates.mean(axis=1))
        errors.append(source.errors(replicates))
    return np.concatenate(means).T, np.concatenate(errors).T


def _batches(sites: int, rays: int) -> Iterator[slice]:
    step = max(RAYS_PER_BATCH // rays, 1)
    return (slice(start, start + step) for start in range(0, sites, step))
