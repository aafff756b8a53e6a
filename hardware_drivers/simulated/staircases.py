"""What simulated surfaces are made of: stairs, trains of steps, squares, and places scattered over an endless plane."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)

CRYSTAL_ROTATION_DEG = 12.0


def step_train(ahead_m: Floats, growth_m: float, step_m: float, terrace_m: float, flank_slope: float) -> Floats:
    """Terraces that fall by one step per terrace width along `ahead_m`, every step advancing by the growth."""
    return step_m * stairs((growth_m - ahead_m) / terrace_m, step_m / flank_slope / terrace_m)


def stairs(phase: NDArray[Real], riser: float) -> NDArray[Real]:
    """Continuous stairs: 1 up per unit of phase, all of it within the share `riser` after each whole number."""
    whole = np.floor(phase)
    climbed: NDArray[Real] = whole + np.minimum((phase - whole) * (1.0 / riser), 1.0)
    return climbed


def meandering(x_m: Floats, y_m: Floats, direction_deg: float, lengths_m: Floats, phases: Floats) -> Floats:
    """Distance along a direction, with steps that wander sideways and stand at uneven intervals."""
    cosine, sine = math.cos(math.radians(direction_deg)), -math.sin(math.radians(direction_deg))
    ahead = x_m * cosine + y_m[:, None] * sine
    across = -x_m * sine + y_m[:, None] * cosine
    wander = 40e-9 * np.sin(2 * math.pi * across / lengths_m[0] + phases[0])
    wander += 18e-9 * np.sin(2 * math.pi * (across + 0.4 * ahead) / (0.4 * lengths_m[1]) + phases[1])
    uneven = 0.08 * lengths_m[2] * np.sin(2 * math.pi * ahead / lengths_m[2] + phases[2])
    wandering: Floats = ahead + wander + uneven
    return wandering


def crystal_axes(x_m: Floats, y_m: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    cosine, sine = math.cos(math.radians(CRYSTAL_ROTATION_DEG)), math.sin(math.radians(CRYSTAL_ROTATION_DEG))
    x, y = x_m.astype(np.float32), y_m.astype(np.float32)[:, None]
    return x * cosine - y * sine, x * sine + y * cosine


def square_polar(u: NDArray[np.float32], v: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Polar coordinates along squares: distance of the side, and the way round its outline from 0 to 1."""
    across, along = np.abs(u), np.abs(v)
    r = np.maximum(across, along)
    quarter = np.where(across >= along, along, 2 * along - across) / (8 * np.maximum(r, 1e-12))
    half = np.where(u >= 0, quarter, 0.5 - quarter)
    return r, np.where(v >= 0, half, 1.0 - half)


def jittered_lattice(
    x_m: Floats, y_m: Floats, cell_m: float, seed: int
) -> Iterator[tuple[np.random.Generator, float, float]]:
    """One random place per square cell in and next to the frame, the same at every visit, with its generator.

    A cell is centred on place (0, 0), so that what it holds lies in the first view.
    """
    offset = 1 << 31
    for row in range(math.floor(y_m[0] / cell_m) - 1, math.ceil(y_m[-1] / cell_m) + 2):
        for column in range(math.floor(x_m[0] / cell_m) - 1, math.ceil(x_m[-1] / cell_m) + 2):
            rng = np.random.default_rng([seed, row + offset, column + offset])
            x, y = (np.array([column, row]) + rng.uniform(-0.28, 0.28, 2)) * cell_m
            yield rng, float(x), float(y)


def around(along_m: Floats, centre_m: float, reach_m: float) -> slice:
    start, stop = np.searchsorted(along_m, (centre_m - reach_m, centre_m + reach_m))
    return slice(int(start), int(stop))
