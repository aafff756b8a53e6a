"""Emission beyond Lambert's law: exponent and forward lobe, tilt-dependent yield, a second scattering off facing walls.

Sizes are estimates until a calibration fits them. Lobe: L. Reimer, Scanning Electron Microscopy (1998), chapter 4.
Yield: G. Arnal, P. Verdier and P.-D. Vincensini, C. R. Acad. Sci. Paris 268 B (1969) 1526.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from acquisition.instrument import Effects, Instrument
from inference.forward_model.exposure import compiled, compiled_parallel, find_horizon, search_limits, signed
from inference.forward_model.intensity import MARCHED, ONE_AT_A_TIME, Floats, Scene, scene_of, slopes_at

CELLS_PER_BIN = 16
LOBE_EXPONENT = 8.0
# A wall further away than this takes a share of the electrons that doesn't matter.
FARTHEST_WALL_PX = 64


def emitted_fractions(heights_m: NDArray[np.floating], instrument: Instrument) -> Floats:
    """(S, H, W) float32: `captured_fractions`, changed by what `instrument.effects` says of emission.

    In this order: the law of emission, the second scattering of what walls catch, the yield of the tilted surface
    against a level one. Raises `BadInput` as `captured_fractions` does.
    """
    effects = instrument.effects
    scene = scene_of(heights_m, instrument)
    with ONE_AT_A_TIME:
        lambertian = effects.emission_exponent == 1.0 and effects.forward_lobe == 0.0
        fractions = MARCHED.fractions(scene) if lambertian else _by_law(scene, effects)
        if effects.second_scattering > 0.0:
            again = np.zeros_like(fractions)
            widths = _bin_widths(scene)
            size, walls = scene.pixels_per_length, scene.azimuths
            _scatter_again(scene.surface, size, walls, widths, fractions, FARTHEST_WALL_PX, again)
            fractions = fractions + np.float32(effects.second_scattering) * again
    if effects.tilt_yield_exponent > 0.0:
        fractions = fractions * _relative_yield(scene, effects.tilt_yield_exponent)
    return fractions


def _by_law(scene: Scene, effects: Effects) -> Floats:
    """Each cell of directions weighs by how much more or less the law sends there than Lambert's."""
    table = scene.acceptance
    steps = np.linspace(0, table.blocked.shape[1] - 1, CELLS_PER_BIN + 1).astype(int)
    cells = -np.diff(table.blocked[:, steps].astype(np.float64), axis=1)  # (K, C, S, 3): the integral over a cell
    together = cells.sum(axis=2)
    length = np.linalg.norm(together, axis=2, keepdims=True)
    middle = np.divide(together, length, out=np.zeros_like(together), where=length > 0)
    sin2_edges = table.sin2_low + steps * table.sin2_step
    radius, ceiling = search_limits(scene.surface, table.occluding_slope)
    fractions = np.empty((len(table.response), *scene.surface.shape), np.float32)
    law = np.array([effects.emission_exponent, effects.forward_lobe, LOBE_EXPONENT, table.occluding_slope])
    _weigh_cells(
        scene.surface,
        radius,
        ceiling,
        scene.pixels_per_length,
        scene.azimuths,
        cells,
        middle,
        sin2_edges,
        law,
        fractions,
    )
    return fractions


@compiled_parallel
def _weigh_cells(
    surface: Floats,
    radius: NDArray[np.int32],
    ceiling: Floats,
    pixels_per_length: NDArray[np.float64],
    azimuths: NDArray[np.float64],
    cells: NDArray[np.float64],
    middle: NDArray[np.float64],
    sin2_edges: NDArray[np.float64],
    law: NDArray[np.float64],
    fractions: Floats,
) -> None:
    rows, columns = surface.shape
    bins, per_bin, segments, _ = cells.shape
    per_x, per_y = pixels_per_length
    exponent, lobe, lobe_exponent, occluding_slope = law
    for index in prange(rows):
        row = signed(index)
        signal = np.empty(segments)
        for column in range(columns):
            p, q = slopes_at(surface, row, column, per_x, per_y)
            n_z = 1.0 / math.sqrt(1.0 + p * p + q * q)
            n_x, n_y = -p * n_z, -q * n_z
            share = lobe * (1.0 - n_z)
            mirrored_x, mirrored_y, mirrored_z = 2.0 * n_z * n_x, 2.0 * n_z * n_y, 2.0 * n_z * n_z - 1.0
            reach = radius[row, column]
            signal[:] = 0.0
            for k in range(bins):
                cosine, sine = azimuths[k]
                slope = max(p * cosine - q * sine, occluding_slope)
                if reach > 0:
                    slope, _ = find_horizon(
                        surface, row, column, cosine * per_x, -sine * per_y, slope, reach, ceiling[row, column]
                    )
                limit = 1.0 / (1.0 + slope * slope)
                for c in range(per_bin):
                    if sin2_edges[c] >= limit:
                        break
                    x, y, z = middle[k, c]
                    upright = n_x * x + n_y * y + n_z * z
                    if upright <= 0.0:
                        continue
                    seen = min((limit - sin2_edges[c]) / (sin2_edges[c + 1] - sin2_edges[c]), 1.0)
                    weight = (1.0 - share) * 0.5 * (exponent + 1.0) * upright ** (exponent - 1.0)
                    if share > 0.0:
                        along = mirrored_x * x + mirrored_y * y + mirrored_z * z
                        if along > 0.0:
                            weight += share * 0.5 * (lobe_exponent + 1.0) * along**lobe_exponent / upright
                    for s in range(segments):
                        lambert = n_x * cells[k, c, s, 0] + n_y * cells[k, c, s, 1] + n_z * cells[k, c, s, 2]
                        signal[s] += seen * weight * lambert
            for s in range(segments):
                fractions[s, row, column] = max(signal[s], 0.0)


@compiled_parallel
def _scatter_again(
    surface: Floats,
    pixels_per_length: NDArray[np.float64],
    azimuths: NDArray[np.float64],
    bin_widths: NDArray[np.float64],
    fractions: Floats,
    farthest: int,
    again: Floats,
) -> None:
    """What walls catch of each pixel's emission, times what the detector would capture from where they catch it.

    Along each azimuth the horizon rises step by step; the electrons between one step and the next hit the wall there.
    """
    segments, rows, columns = fractions.shape
    per_x, per_y = pixels_per_length
    for index in prange(rows):
        row = signed(index)
        for column in range(columns):
            p, q = slopes_at(surface, row, column, per_x, per_y)
            n_z = 1.0 / math.sqrt(1.0 + p * p + q * q)
            for k in range(len(azimuths)):
                cosine, sine = azimuths[k]
                across, down = cosine * per_x, -sine * per_y
                length = 1.0 / max(abs(across), abs(down))
                sideways = -(p * cosine - q * sine) * n_z
                slope = p * cosine - q * sine
                open_part = _open(slope, n_z, sideways)
                for step in range(1, farthest + 1):
                    x, y = column + step * length * across, row + step * length * down
                    if x < 0 or x > columns - 1 or y < 0 or y > rows - 1:
                        break
                    rise = (_between(surface, y, x) - surface[row, column]) / (step * length)
                    if rise > slope:
                        left = _open(rise, n_z, sideways)
                        caught = (open_part - left) * bin_widths[k] / math.pi
                        nearest_row, nearest_column = int(y + 0.5), int(x + 0.5)
                        for s in range(segments):
                            again[s, row, column] += caught * fractions[s, nearest_row, nearest_column]
                        slope, open_part = rise, left


@compiled
def _open(slope: float, n_z: float, sideways: float) -> float:
    """Integral of (n.omega) sin(theta) from the zenith down to a horizon of this slope, per azimuth."""
    theta = math.atan2(1.0, slope)
    return n_z * 0.5 * math.sin(theta) ** 2 + sideways * (0.5 * theta - 0.25 * math.sin(2.0 * theta))


@compiled
def _between(surface: Floats, y: float, x: float) -> float:
    row, column = int(y), int(x)
    below, right = min(row + 1, surface.shape[0] - 1), min(column + 1, surface.shape[1] - 1)
    part_y, part_x = y - row, x - column
    upper = surface[row, column] + part_x * (surface[row, right] - surface[row, column])
    lower = surface[below, column] + part_x * (surface[below, right] - surface[below, column])
    height: float = upper + part_y * (lower - upper)
    return height


def _bin_widths(scene: Scene) -> NDArray[np.float64]:
    """(K,) radians; bins lie side by side around the turn, halves of neighbours meeting at their edges."""
    azimuth = scene.acceptance.azimuth_rad
    gaps = np.diff(np.concatenate([azimuth, azimuth[:1] + 2.0 * math.pi]))
    return np.asarray(0.5 * (gaps + np.roll(gaps, 1)))


def _relative_yield(scene: Scene, exponent: float) -> Floats:
    q, p = np.gradient(scene.surface)
    across, down = scene.pixels_per_length
    n_z = 1.0 / np.sqrt(1.0 + (p * across) ** 2 + (q * down) ** 2)
    relative: Floats = ((2.0 / (1.0 + n_z)) ** exponent).astype(np.float32)
    return relative
