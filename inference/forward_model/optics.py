"""Acceptance: which emission directions reach which detector segment, as tables over the horizon (design stage 1).

The beam's axis is the field's, so emission of one azimuth meets a segment within exact limits of the polar angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Beam, Detector, Instrument, Segment, Specimen
from inference.forward_model.paths import emission_sin2

# Beside a sharp wall the horizon jumps within a bin: 32 bins leave 0.5 % rms of the flat signal there, 128 below 0.1 %.
AZIMUTH_BINS = 128
RAYS_PER_BIN = 8
HORIZON_STEPS = 256
ELEMENTARY_CHARGE_C = 1.602176634e-19

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What each segment collects of a Lambertian emission, and what a horizon takes from it.

    `azimuth_rad`: (K,) float64, centres of the azimuth bins as seen in the image (0 right, positive to the top).
    `response`: (S, 3) float64, captured fraction of the emitted electrons per unit of (n_x, n_y, n_z), unoccluded.
    `blocked`: (K, U + 1, S, 3) float32, the part of `response` that bin k loses when its horizon stands at
    `sin2_low + u * sin2_step`, u = 0 .. U, in squared sines of the polar angle; the last row is zero.
    `occluding_slope`: the least steep horizon (tangent of its elevation) that blocks anything.
    """

    azimuth_rad: Floats
    response: Floats
    blocked: NDArray[np.float32]
    sin2_low: float
    sin2_step: float
    occluding_slope: float


def acceptance(instrument: Instrument) -> Acceptance:
    """The tables of an instrument's detector; computed once per geometry.

    The sum over azimuth bins is the closed polar integral of forward_model.md, stage 3:
    `n_z sin²(theta)/2 + m (theta/2 - sin(2 theta)/4)`, divided by pi. Gap strips are averaged into each bin. The table
    runs over sin²(theta), in which the n_z part is exactly linear. A biased specimen's curved paths enter through
    `emission_sin2`; so steep a bias that all emission lands inside the detector's rim ends the table at sin² = 1, and
    then any rise above the horizontal blocks something. Directions below the horizontal are never counted. Raises
    `BadInput` for segments without radii or open area, and as `emission_sin2` does.
    """
    return _tables(instrument.detector, *_deflecting(instrument))


def linear_response(instrument: Instrument) -> Floats:
    """(S, 3) float64: fraction of the emitted electrons that each segment captures, per unit of (n_x, n_y, n_z).

    `fractions = linear_response(instrument) @ normal`, exact for a unit normal in the frame of the beam (x right,
    y down, z to the detector; specimen tilt is part of the normal) as long as nothing is occluded: for the default
    geometry up to slopes of 53 degrees (forward_model.md, stage 3). Raises `BadInput` as `acceptance` does.
    """
    return _response(instrument.detector, *_deflecting(instrument)).copy()


@lru_cache(maxsize=16)
def _response(detector: Detector, specimen: Specimen, beam: Beam) -> Floats:
    """Without the tables over the horizon, for which the first frame of a run would wait."""
    rays = _rays(detector, specimen, beam)
    response: Floats = rays.captured(np.array([rays.high])).sum(axis=(0, 1))
    return response


@lru_cache(maxsize=16)
def _tables(detector: Detector, specimen: Specimen, beam: Beam) -> Acceptance:
    rays = _rays(detector, specimen, beam)
    captured = rays.captured(np.linspace(rays.low, rays.high, HORIZON_STEPS + 1))
    return Acceptance(
        azimuth_rad=rays.edges_rad[:-1] + 0.5 * np.diff(rays.edges_rad),
        response=_response(detector, specimen, beam),
        blocked=np.ascontiguousarray(captured[:, -1:] - captured, dtype=np.float32),
        sin2_low=rays.low,
        sin2_step=(rays.high - rays.low) / HORIZON_STEPS,
        occluding_slope=math.sqrt((1.0 - rays.high) / rays.high),
    )


@dataclass(frozen=True, slots=True)
class _Rays:
    """R rays in each of the K azimuth bins between `edges_rad` (K + 1,); for each segment the squared sines (K, R, N)
    between which a ray's N stretches meet it; `low` and `high` are the least and the largest of all."""

    edges_rad: Floats
    azimuth_rad: Floats
    limits: list[tuple[Floats, Floats]]
    low: float
    high: float

    def captured(self, horizon: Floats) -> Floats:
        """(K, U, S, 3): what is captured per unit of (n_x, n_y, n_z) below each squared sine of `horizon` (U,)."""
        ray_weight = (np.diff(self.edges_rad) / RAYS_PER_BIN / math.pi)[:, None]
        direction = np.stack([np.cos(self.azimuth_rad), -np.sin(self.azimuth_rad)], axis=-1)  # (K, R, 2)
        captured = np.zeros((len(ray_weight), len(horizon), len(self.limits), 3))
        for s, (lows, highs) in enumerate(self.limits):
            for low_part, high_part in zip(np.moveaxis(lows, -1, 0), np.moveaxis(highs, -1, 0), strict=True):
                top = np.clip(horizon[None, None, :], low_part[..., None], high_part[..., None])  # (K, R, U)
                bottom = low_part[..., None]
                captured[:, :, s, 2] += 0.5 * ray_weight * (top - bottom).sum(axis=1)
                sideways = _sideways(top) - _sideways(bottom)
                captured[:, :, s, :2] += ray_weight[..., None] * np.einsum("krc,kru->kuc", direction, sideways)
        return captured


def _rays(detector: Detector, specimen: Specimen, beam: Beam) -> _Rays:
    edges = bin_edges(detector)
    fraction = (np.arange(RAYS_PER_BIN) + 0.5) / RAYS_PER_BIN
    azimuth = edges[:-1, None] + np.diff(edges)[:, None] * fraction  # (K, R)
    limits = []
    for segment in detector.segments:
        radii_m, met = _stretches(detector, segment, azimuth)
        sin2 = emission_sin2(radii_m, detector, specimen, beam)
        limits.append((sin2[..., :-1], np.where(met, sin2[..., 1:], sin2[..., :-1])))
    reached = [low_high for low_high in limits if (low_high[1] > low_high[0]).any()]
    if len(reached) < len(detector.segments):
        raise BadInput(
            "a detector segment collects nothing: its gap is wider than the segment, or the specimen's bias lands all "
            "emission inside its inner radius"
        )
    low = min(float(lows[highs > lows].min()) for lows, highs in reached)
    high = max(float(highs[highs > lows].max()) for lows, highs in reached)
    return _Rays(edges, azimuth, limits, low, high)


def emission_energy_ev(instrument: Instrument) -> float:
    """Of the electrons as they leave the specimen."""
    return instrument.beam.energy_ev * instrument.effects.energy_share


def _deflecting(instrument: Instrument) -> tuple[Specimen, Beam]:
    """What of specimen and beam shapes the paths, all else at its default: the tables' key."""
    biased = instrument.specimen
    if biased.bias_v == 0:
        return Specimen(), Beam()
    return (
        Specimen().model_copy(update={"bias_v": biased.bias_v, "radius_m": biased.radius_m}),
        Beam().model_copy(update={"energy_ev": emission_energy_ev(instrument)}),
    )


def _sideways(sin2: Floats) -> Floats:
    """theta/2 - sin(2 theta)/4 as a function of sin²(theta)."""
    return 0.5 * (np.arcsin(np.sqrt(sin2)) - np.sqrt(sin2 * (1.0 - sin2)))


def bin_edges(detector: Detector) -> Floats:
    """(K + 1,) radians, rising over one turn: no bin crosses a segment's edge."""
    turn = 360.0
    marks = sorted(
        {
            round((edge + detector.rotation_deg) % turn, 9) % turn
            for segment in detector.segments
            for edge in (segment.azimuth_from_deg, segment.azimuth_to_deg)
        }
    )
    edges = [marks[0]]
    for start, stop in zip(marks, [*marks[1:], marks[0] + turn], strict=True):
        count = math.ceil((stop - start) / turn * AZIMUTH_BINS - 1e-9)
        edges.extend(np.linspace(start, stop, count + 1)[1:])
    return np.deg2rad(edges)


def _stretches(detector: Detector, segment: Segment, azimuth: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Radii (K, R, N + 1) from the beam, in metres, and which of the N stretches between lie on the segment.

    The radii are where a line of `azimuth` in the detector plane crosses the segment's circles and gap edges; a stretch
    counts when its middle lies on the segment.
    """
    inner, outer = segment.inner_radius_m, segment.outer_radius_m
    if inner is None or outer is None:
        raise BadInput(
            f"segment {segment.name} has no radii, so its acceptance is unknown: "
            "give inner_radius_m and outer_radius_m, or invert with its modulation"
        )
    along_x, along_y = np.cos(azimuth), -np.sin(azimuth)
    centre_x, centre_y = detector.offset_x_m, detector.offset_y_m
    crossings = [np.zeros_like(azimuth)]
    middle = along_x * centre_x + along_y * centre_y
    for radius in (inner, outer):
        root = np.sqrt(np.maximum(middle**2 - centre_x**2 - centre_y**2 + radius**2, 0.0))
        crossings += [middle - root, middle + root]
    sides = ((segment.azimuth_from_deg, 1.0), (segment.azimuth_to_deg, -1.0))
    edges = [(math.radians(edge_deg + detector.rotation_deg), side) for edge_deg, side in sides]
    for edge, side in edges:
        inward_x, inward_y = -side * math.sin(edge), -side * math.cos(edge)
        approach = along_x * inward_x + along_y * inward_y
        distance = 0.5 * segment.gap_m + centre_x * inward_x + centre_y * inward_y
        crossings.append(np.divide(distance, approach, out=np.zeros_like(azimuth), where=np.abs(approach) > 1e-12))
    radii = np.sort(np.maximum(np.stack(crossings, axis=-1), 0.0), axis=-1)

    between = 0.5 * (radii[..., 1:] + radii[..., :-1])
    x = between * along_x[..., None] - centre_x
    y = between * along_y[..., None] - centre_y
    distance_from_centre = np.hypot(x, y)
    from_start = np.arctan2(-y, x) - edges[0][0]
    met = (distance_from_centre > inner) & (distance_from_centre < outer)
    met &= np.mod(from_start, 2.0 * math.pi) < math.radians(segment.azimuth_to_deg - segment.azimuth_from_deg)
    for edge, _ in edges:
        ahead = x * math.cos(edge) - y * math.sin(edge)
        aside = np.abs(x * math.sin(edge) + y * math.cos(edge))
        met &= np.where(ahead > 0, aside, distance_from_centre) >= 0.5 * segment.gap_m
    return radii, met
