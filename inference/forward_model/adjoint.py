"""The intensity kernel run backwards: what a change of heights, tables or azimuths does to a sum over the images.

By the envelope theorem the place of each occluding point may be held still while differentiating: the horizon is a
maximum over places, so only its height and its distance matter (design, The exact solver behind it).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, prange
from numpy.typing import NDArray

from inference.forward_model.exposure import compiled, compiled_parallel, find_horizon, signed
from inference.forward_model.intensity import ONE_AT_A_TIME, Scene, slopes_at

Array = NDArray[np.floating]


class Gradients(NamedTuple):
    """Derivatives of `sum(upstream * fractions)`, each float64 in the shape of what it belongs to."""

    surface: NDArray[np.float64]
    azimuth_rad: NDArray[np.float64]
    response: NDArray[np.float64]
    blocked: NDArray[np.float64]
    sin2_low: float
    sin2_step: float


def march_gradients(
    scene: Scene, radius: NDArray[np.int32], ceiling: Array, upstream: NDArray[np.float64]
) -> Gradients:
    """`march` backwards, with `upstream` (S, H, W) float64 in place of its result.

    Horizons are marched again rather than kept: K of them for each pixel would fill the memory. Where a horizon passes
    from one occluding point to another the derivative is that of the one in sight.
    """
    parts = get_num_threads()
    table = scene.acceptance
    to_surface = np.zeros((parts, *scene.surface.shape))
    to_azimuth = np.zeros((parts, len(scene.azimuths)))
    to_response = np.zeros((parts, *table.response.shape))
    to_blocked = np.zeros((parts, *table.blocked.shape))
    to_scale = np.zeros((parts, 2))
    with ONE_AT_A_TIME:
        _scatter(
            scene.surface,
            radius,
            ceiling,
            scene.pixels_per_length,
            scene.azimuths,
            table.response,
            table.blocked,
            scene.scale,
            upstream,
            to_surface,
            to_azimuth,
            to_response,
            to_blocked,
            to_scale,
        )
    low, step = to_scale.sum(axis=0)
    return Gradients(
        to_surface.sum(axis=0),
        to_azimuth.sum(axis=0),
        to_response.sum(axis=0),
        to_blocked.sum(axis=0),
        float(low),
        float(step),
    )


@compiled_parallel
def _scatter(
    surface: Array,
    radius: NDArray[np.int32],
    ceiling: Array,
    pixels_per_length: NDArray[np.float64],
    azimuths: NDArray[np.float64],
    response: NDArray[np.float64],
    blocked: Array,
    scale: NDArray[np.float64],
    upstream: NDArray[np.float64],
    to_surface: NDArray[np.float64],
    to_azimuth: NDArray[np.float64],
    to_response: NDArray[np.float64],
    to_blocked: NDArray[np.float64],
    to_scale: NDArray[np.float64],
) -> None:
    """Each part of the rows adds to arrays of its own, since a pixel's occluder may lie in any row."""
    rows, columns = surface.shape
    segments = len(response)
    per_x, per_y = pixels_per_length
    sin2_low, sin2_step, occluding_slope = scale
    last = blocked.shape[1] - 1
    parts = len(to_surface)
    for index in prange(parts):
        part = signed(index)
        for row in range(part * rows // parts, (part + 1) * rows // parts):
            up, down = max(row - 1, 0), min(row + 1, rows - 1)
            weight = np.empty(segments)
            normal = np.empty(3)
            to_normal = np.empty(3)
            for column in range(columns):
                left, right = max(column - 1, 0), min(column + 1, columns - 1)
                p, q = slopes_at(surface, row, column, per_x, per_y)
                n_z = 1.0 / math.sqrt(1.0 + p * p + q * q)
                normal[0], normal[1], normal[2] = -p * n_z, -q * n_z, n_z
                to_normal[:] = 0.0
                for s in range(segments):
                    weight[s] = upstream[s, row, column]
                    for axis in range(3):
                        to_normal[axis] += weight[s] * response[s, axis]
                        to_response[part, s, axis] += weight[s] * normal[axis]
                to_p, to_q = 0.0, 0.0
                reach = radius[row, column]
                if reach > 0 or p * p + q * q > occluding_slope * occluding_slope:
                    for k in range(len(azimuths)):
                        cosine, sine = azimuths[k]
                        slope, where = max(p * cosine - q * sine, occluding_slope), 0
                        if reach > 0:
                            slope, where = find_horizon(
                                surface, row, column, cosine * per_x, -sine * per_y, slope, reach, ceiling[row, column]
                            )
                        if slope <= occluding_slope:
                            continue
                        sin2 = 1.0 / (1.0 + slope * slope)
                        place = max((sin2 - sin2_low) / sin2_step, 0.0)
                        below = min(int(place), last - 1)
                        share = min(place - below, 1.0)
                        to_place = 0.0
                        for s in range(segments):
                            for axis in range(3):
                                near, far = blocked[k, below, s, axis], blocked[k, below + 1, s, axis]
                                to_normal[axis] -= weight[s] * (near + share * (far - near))
                                to_place -= weight[s] * normal[axis] * (far - near)
                                to_blocked[part, k, below, s, axis] -= weight[s] * normal[axis] * (1.0 - share)
                                to_blocked[part, k, below + 1, s, axis] -= weight[s] * normal[axis] * share
                        if place <= 0.0:
                            continue
                        to_scale[part, 0] -= to_place / sin2_step
                        to_scale[part, 1] -= to_place * place / sin2_step
                        to_slope = -2.0 * slope * sin2 * sin2 / sin2_step * to_place
                        if where == 0:
                            to_p += to_slope * cosine
                            to_q -= to_slope * sine
                            to_azimuth[part, k] -= to_slope * (p * sine + q * cosine)
                        else:
                            to_azimuth[part, k] += _to_occluder(
                                surface, row, column, cosine, sine, per_x, per_y, where, to_slope, to_surface[part]
                            )
                # dn/dp and dn/dq of n = (-p, -q, 1) n_z
                along = (p * to_normal[0] + q * to_normal[1] - to_normal[2]) * n_z**3
                to_p += p * along - to_normal[0] * n_z
                to_q += q * along - to_normal[1] * n_z
                to_surface[part, row, right] += to_p * per_x / (right - left)
                to_surface[part, row, left] -= to_p * per_x / (right - left)
                to_surface[part, down, column] += to_q * per_y / (down - up)
                to_surface[part, up, column] -= to_q * per_y / (down - up)


@compiled
def _to_occluder(
    surface: Array,
    row: int,
    column: int,
    cosine: float,
    sine: float,
    per_x: float,
    per_y: float,
    where: int,
    to_slope: float,
    to_surface: NDArray[np.float64],
) -> float:
    """Hand `to_slope` to the pixel and the two pixels that block it; returns the derivative by the azimuth."""
    if where > 0:
        # crossing of a column: length 1 / |cosine per_x|, drift -sine per_y / |cosine per_x| rows a column
        toward = 1 if cosine > 0 else -1
        length = 1.0 / (toward * cosine * per_x)
        cross = row - where * sine * per_y * length
        below = int(cross)
        above = min(below + 1, surface.shape[0] - 1)
        line = column + toward * where
        near, far = surface[below, line], surface[above, line]
        turned_cross = -where * toward * per_y / (per_x * cosine * cosine)
        turned_length = length * sine / cosine
    else:
        # crossing of a row: length 1 / |sine per_y|, drift cosine per_x / |sine per_y| columns a row
        toward = -1 if sine > 0 else 1
        length = 1.0 / (-toward * sine * per_y)
        cross = column - where * cosine * per_x * length
        below = int(cross)
        above = min(below + 1, surface.shape[1] - 1)
        line = row - toward * where
        near, far = surface[line, below], surface[line, above]
        turned_cross = -where * toward * per_x / (per_y * sine * sine)
        turned_length = -length * cosine / sine
    share = cross - below
    distance = abs(where) * length
    slope = (near + share * (far - near) - surface[row, column]) / distance
    moved = to_slope / distance
    to_surface[row, column] -= moved
    if where > 0:
        to_surface[below, line] += moved * (1.0 - share)
        to_surface[above, line] += moved * share
    else:
        to_surface[line, below] += moved * (1.0 - share)
        to_surface[line, above] += moved * share
    turned: float = (far - near) * turned_cross / distance - slope * turned_length / length
    return to_slope * turned
