"""Rays that emission sends out, and which detector segment a straight one lands on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from acquisition.errors import BadInput
from acquisition.instrument import Detector

SCRAMBLES = 64
SCRAMBLES_PER_PIXEL = 8

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.integer]
Sampler = Literal["plain", "cone"]


@dataclass(frozen=True, slots=True)
class Rays:
    """Those of the thrown rays that would land on a segment, (N,) each: site and replicate that each belongs to,
    segment, direction (N, 3) and weight in the mean over all rays of its replicate."""

    site: Integers
    replicate: Integers
    segment: Integers
    direction: Singles
    weight: Singles


class RaySource(Protocol):
    segments: int
    rays: int
    replicates: int

    def throw(self, normals: Singles) -> Rays:
        """`rays` rays from each site, whose normals are (B, 3)."""

    def errors(self, means: Floats) -> Floats:
        """Standard errors (B, S) of the average over replicates, from the means (B, replicates, S) of each."""


def ray_source(
    detector: Detector, rays: int, rng: np.random.Generator, sampler: Sampler, scrambles: int = SCRAMBLES_PER_PIXEL
) -> RaySource:
    if rays < 1:
        raise BadInput(f"{rays} rays: at least one is needed")
    return PlainRays(detector, rays, rng) if sampler == "plain" else ConeRays(detector, rays, rng, scrambles)


class PlainRays:
    """Pseudo-random rays with a cosine distribution about the normal."""

    replicates = 1

    def __init__(self, detector: Detector, rays: int, rng: np.random.Generator) -> None:
        self._detector, self._rng = detector, rng
        self.rays, self.segments = rays, len(detector.segments)

    def throw(self, normals: Singles) -> Rays:
        shape = len(normals), self.rays
        sine2 = self._rng.random(shape, np.float32)
        azimuth = self._rng.random(shape, np.float32) * np.float32(2.0 * math.pi)
        sine = np.sqrt(sine2)
        a, b, c = sine * np.cos(azimuth), sine * np.sin(azimuth), np.sqrt(1.0 - sine2)
        # Two tangents that complete the normal to a frame (Duff et al., JCGT 6 (2017) 1), for normals that point up.
        n_x, n_y, n_z = normals.T[:, :, None]
        lean = -1.0 / (1.0 + n_z)
        x = a * (1.0 + lean * n_x * n_x) + b * (lean * n_x * n_y) + c * n_x
        y = a * (lean * n_x * n_y) + b * (1.0 + lean * n_y * n_y) + c * n_y
        z = c * n_z - a * n_x - b * n_y
        segment = _segment_met(self._detector, x, y, z)
        site, ray = np.nonzero(segment >= 0)
        direction = np.stack([x[site, ray], y[site, ray], z[site, ray]], axis=1)
        return Rays(site, np.zeros_like(site), segment[site, ray], direction, np.ones(len(site), np.float32))

    def errors(self, means: Floats) -> Floats:
        hits = means[:, 0]
        return np.sqrt(hits * (1.0 - hits) / max(self.rays - 1, 1))


class ConeRays:
    """Scrambled Sobol rays, even over the solid angle of the cone that holds the detector; the same bank of scrambles
    serves all sites, each of which draws some at random."""

    def __init__(self, detector: Detector, rays: int, rng: np.random.Generator, scrambles: int) -> None:
        if rays < 2 * scrambles or rays & (rays - 1) or scrambles & (scrambles - 1) or not 0 < scrambles <= SCRAMBLES:
            raise BadInput(
                f"{rays} rays in {scrambles} scrambles: the sampler `cone` needs powers of two, at least two rays for "
                f"each scramble and at most {SCRAMBLES} scrambles"
            )
        self.replicates = scrambles
        self.rays, self.segments, self._rng = rays, len(detector.segments), rng
        reach_m = max(segment.outer_radius_m or 0.0 for segment in detector.segments)
        reach_m += math.hypot(detector.offset_x_m, detector.offset_y_m)
        lowest = math.cos(math.atan2(reach_m, detector.working_distance_m))
        count = rays // scrambles
        places = np.stack([qmc.Sobol(2, seed=rng).random(count) for _ in range(SCRAMBLES)])  # (SCRAMBLES, count, 2)
        cosine = 1.0 - places[..., 0] * (1.0 - lowest)
        sine, azimuth = np.sqrt(1.0 - cosine**2), 2.0 * math.pi * places[..., 1]
        bank = np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], axis=-1)
        self._bank = bank.astype(np.float32)
        self._met = _segment_met(detector, *np.moveaxis(bank, -1, 0))
        self._scale = np.float32(2.0 * (1.0 - lowest))

    def throw(self, normals: Singles) -> Rays:
        drawn = np.argsort(self._rng.random((len(normals), SCRAMBLES)), axis=1)[:, : self.replicates]
        cosine = np.einsum("bgrc,bc->bgr", self._bank[drawn], normals)
        site, replicate, ray = np.nonzero((self._met[drawn] >= 0) & (cosine > 0.0))
        scramble = drawn[site, replicate]
        weight = self._scale * cosine[site, replicate, ray]
        return Rays(site, replicate, self._met[scramble, ray], self._bank[scramble, ray], weight)

    def errors(self, means: Floats) -> Floats:
        if self.replicates < 2:
            return np.full(means[:, 0].shape, math.nan)
        errors: Floats = means.std(axis=1, ddof=1) / math.sqrt(self.replicates)
        return errors


def _segment_met(detector: Detector, x: Any, y: Any, z: Any) -> NDArray[np.int8]:
    """Index of the segment that a straight ray lands on, -1 where none; x, y, z: its direction, any shape.

    In the detector's plane a ray lands at d tan(theta) from the beam's axis; y points down. A place on a segment lies
    between its circles, between its edges, and half a gap off each edge, which is a line that starts at the centre.
    """
    reach_m = detector.working_distance_m / np.where(z > 0, z, np.inf)
    right_m, up_m = x * reach_m - detector.offset_x_m, detector.offset_y_m - y * reach_m
    radius_m = np.where(z > 0, np.hypot(right_m, up_m), np.inf)
    azimuth_deg = np.degrees(np.arctan2(up_m, right_m)) - detector.rotation_deg
    met = np.full(radius_m.shape, -1, np.int8)
    for index, segment in enumerate(detector.segments):
        inner_m, outer_m = segment.inner_radius_m, segment.outer_radius_m
        if inner_m is None or outer_m is None:
            raise BadInput(f"segment {segment.name} has no radii: give inner_radius_m and outer_radius_m")
        after_deg = np.mod(azimuth_deg - segment.azimuth_from_deg, 360.0)
        width_deg = segment.azimuth_to_deg - segment.azimuth_from_deg
        on_it = (radius_m > inner_m) & (radius_m < outer_m) & (after_deg < width_deg)
        for apart_deg in (after_deg, width_deg - after_deg):
            apart = np.radians(np.minimum(np.abs(apart_deg), 360.0 - np.abs(apart_deg)))
            on_it &= radius_m * np.sin(np.minimum(apart, 0.5 * math.pi)) >= 0.5 * segment.gap_m
        met[on_it] = index
    return met
