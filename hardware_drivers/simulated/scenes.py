"""What lies under the simulated beam: surfaces that reach without end and grow, as functions of place and growth."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from hardware_drivers.simulated.height_maps import MAP_SUFFIXES, HeightMap

Floats = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)

CRYSTAL_ROTATION_DEG = 12.0


class Scene(Protocol):
    """A surface. `growth_m` is how far a free step has advanced since the world began."""

    @property
    def pixel_size_m(self) -> float | None:
        """The pixel size at which the surface was measured, or None where it is known at any scale."""
        ...

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        """Heights (H, W) at the columns `x_m` (W,) and the rows `y_m` (H,), metres; y runs down the image."""
        ...

    def oxide_fraction(self, growth_m: float) -> float:
        """Share of the area covered by oxide, from 0 to 1; it sets the emissivity."""
        ...


def scene_names() -> list[str]:
    return list(_SCENES)


def find_scene(name: str, seed: int) -> Scene:
    """The scene of that name, or the height map in that file (.npz, .tif, .tiff, .gsf).

    Raises `BadInput` for an unknown name, naming the nearest, and for a file that cannot be used.
    """
    if name in _SCENES:
        return _SCENES[name](seed)
    if Path(name).suffix.lower() in MAP_SUFFIXES:
        return HeightMap(Path(name))
    nearest = difflib.get_close_matches(name, _SCENES, n=1, cutoff=0.0)[0]
    raise BadInput(
        f"unknown scene {name!r}: did you mean {nearest!r}? Scenes are {', '.join(_SCENES)}, "
        f"or a height map file ({', '.join(MAP_SUFFIXES)})",
        permitted=scene_names(),
    )


class Flat:
    """A polished, featureless copper surface: calibrates brightness and noise."""

    pixel_size_m = None

    def __init__(self, seed: int) -> None:
        pass

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        return np.zeros((len(y_m), len(x_m)))

    def oxide_fraction(self, growth_m: float) -> float:
        return 0.0


class Grating(Flat):
    """A calibration standard: crossed trapezoidal ridges of 400 nm pitch and 40 nm height with 45 degree flanks."""

    pitch_m = 400e-9
    ridge_height_m = 40e-9

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        return np.maximum(self._profile(x_m), self._profile(y_m)[:, None])

    def _profile(self, along_m: Floats) -> Floats:
        distance = np.abs((along_m + 0.5 * self.pitch_m) % self.pitch_m - 0.5 * self.pitch_m)
        return np.clip(0.25 * self.pitch_m + 0.5 * self.ridge_height_m - distance, 0.0, self.ridge_height_m)


class CuprousOxideSpirals:
    """Square growth spirals of Cu2O: {100} terraces, 45 degree {110} sides, turning both ways, mound beside mound.

    Each spiral climbs one step a turn around its screw dislocation: `z = step (stairs(phase) - turn)` with
    `phase = (growth - r) / terrace + turn`, r and turn measured along squares.
    """

    pixel_size_m = None
    step_m = 24e-9
    terrace_m = 240e-9
    cell_m = 2.0e-6

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        turns = growth_m / self.terrace_m
        whole_turns = math.floor(turns)
        surface = np.full((len(y_m), len(x_m)), -np.inf, np.float32)
        for centre_x, centre_y, rise, sense in self._mounds_that_show(x_m, y_m):
            u, v = _crystal_axes(x_m - centre_x, y_m - centre_y)
            r, turn = _square_polar(u, sense * v)
            phase = turn - r / self.terrace_m + (turns - whole_turns)
            mound = _stairs(phase, self.step_m / self.terrace_m) - turn + rise
            np.maximum(surface, mound, out=surface)
        return self.step_m * (surface.astype(np.float64) + whole_turns)

    def oxide_fraction(self, growth_m: float) -> float:
        return 1.0

    def _mounds_that_show(self, x_m: Floats, y_m: Floats) -> list[tuple[float, float, float, float]]:
        """Mounds (x, y, rise in steps, sense), less those that lie below another one everywhere in the frame."""
        middle_x, middle_y = 0.5 * (x_m[0] + x_m[-1]), 0.5 * (y_m[0] + y_m[-1])
        half_diagonal = 0.5 * math.hypot(x_m[-1] - x_m[0], y_m[-1] - y_m[0])
        mounds = []
        for rng, x, y in _jittered_lattice(x_m, y_m, self.cell_m, self._seed):
            rise, sense = 2.0 * rng.random(), float(rng.choice((-1.0, 1.0)))
            distance = math.hypot(x - middle_x, y - middle_y)
            highest = rise + 1 - max(distance - half_diagonal, 0.0) / math.sqrt(2) / self.terrace_m
            lowest = rise - 2 - (distance + half_diagonal) / self.terrace_m
            mounds.append((highest, lowest, (x, y, rise, sense)))
        floor = max(lowest for _, lowest, _ in mounds)
        return [mound for highest, _, mound in mounds if highest > floor]


class StepBunches:
    """Bunched steps on copper under graphene: long wavy terraces, flanks of 25 degrees, running down to the right."""

    pixel_size_m = None
    bunch_m = 18e-9
    terrace_m = 330e-9
    direction_deg = 20.0
    flank_slope = math.tan(math.radians(25))

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self._lengths_m = rng.uniform(0.7e-6, 3e-6, 4)
        self._phases = rng.uniform(0, 2 * math.pi, 4)

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        return _step_train(
            _meandering(x_m, y_m, self.direction_deg, self._lengths_m, self._phases),
            growth_m,
            self.bunch_m,
            self.terrace_m,
            self.flank_slope,
        )

    def oxide_fraction(self, growth_m: float) -> float:
        return 0.0


class CrossedSteps(StepBunches):
    """Two families of steps that cross at 75 degrees and move at different speeds."""

    bunch_m = 12e-9
    terrace_m = 280e-9
    second_bunch_m = 8e-9
    second_terrace_m = 200e-9

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        second = _meandering(x_m, y_m, self.direction_deg + 75.0, self._lengths_m[::-1], self._phases)
        return super().heights_m(x_m, y_m, growth_m) + _step_train(
            second, 0.6 * growth_m, self.second_bunch_m, self.second_terrace_m, self.flank_slope
        )


class OxideIslands:
    """Flat-topped square Cu2O islands with 45 degree sides that nucleate one after another on stepped copper."""

    pixel_size_m = None
    cell_m = 520e-9
    first_half_width_m = 40e-9
    nucleation_spread_m = 260e-9

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._ground = StepBunches(seed)
        self._ground.bunch_m = 4e-9

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        ground = self._ground.heights_m(x_m, y_m, 0.0)
        cover = np.zeros_like(ground)
        for rng, x, y in _jittered_lattice(x_m, y_m, self.cell_m, self._seed):
            delay_m, thickness_m = rng.uniform(-1, 1) * self.nucleation_spread_m, rng.uniform(30e-9, 70e-9)
            half_width = self._half_width_m(growth_m, delay_m)
            columns, rows = _around(x_m, x, 1.5 * half_width), _around(y_m, y, 1.5 * half_width)
            if half_width <= 0 or columns.start == columns.stop or rows.start == rows.stop:
                continue
            u, v = _crystal_axes(x_m[columns] - x, y_m[rows] - y)
            island = np.clip(half_width - np.maximum(np.abs(u), np.abs(v)), 0.0, thickness_m)
            np.maximum(cover[rows, columns], island, out=cover[rows, columns])
        return ground + cover

    def oxide_fraction(self, growth_m: float) -> float:
        delays = np.linspace(-1, 1, 21) * self.nucleation_spread_m
        sides = np.array([2 * self._half_width_m(growth_m, delay) for delay in delays])
        return float(np.minimum((sides / self.cell_m) ** 2, 1.0).mean())

    def _half_width_m(self, growth_m: float, delay_m: float) -> float:
        return min(max(self.first_half_width_m + growth_m - delay_m, 0.0), 0.6 * self.cell_m)


_SCENES: dict[str, Callable[[int], Scene]] = {
    "cu2o-spiral": CuprousOxideSpirals,
    "step-bunches": StepBunches,
    "crossed-steps": CrossedSteps,
    "oxide-islands": OxideIslands,
    "grating": Grating,
    "flat": Flat,
}


def _step_train(ahead_m: Floats, growth_m: float, step_m: float, terrace_m: float, flank_slope: float) -> Floats:
    """Terraces that fall by one step per terrace width along `ahead_m`, every step advancing by the growth."""
    return step_m * _stairs((growth_m - ahead_m) / terrace_m, step_m / flank_slope / terrace_m)


def _stairs(phase: NDArray[Real], riser: float) -> NDArray[Real]:
    """Continuous stairs: 1 up per unit of phase, all of it within the share `riser` after each whole number."""
    whole = np.floor(phase)
    stairs: NDArray[Real] = whole + np.minimum((phase - whole) * (1.0 / riser), 1.0)
    return stairs


def _meandering(x_m: Floats, y_m: Floats, direction_deg: float, lengths_m: Floats, phases: Floats) -> Floats:
    """Distance along a direction, with steps that wander sideways and stand at uneven intervals."""
    cosine, sine = math.cos(math.radians(direction_deg)), -math.sin(math.radians(direction_deg))
    ahead = x_m * cosine + y_m[:, None] * sine
    across = -x_m * sine + y_m[:, None] * cosine
    wander = 40e-9 * np.sin(2 * math.pi * across / lengths_m[0] + phases[0])
    wander += 18e-9 * np.sin(2 * math.pi * (across + 0.4 * ahead) / (0.4 * lengths_m[1]) + phases[1])
    uneven = 0.08 * lengths_m[2] * np.sin(2 * math.pi * ahead / lengths_m[2] + phases[2])
    meandering: Floats = ahead + wander + uneven
    return meandering


def _crystal_axes(x_m: Floats, y_m: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    cosine, sine = math.cos(math.radians(CRYSTAL_ROTATION_DEG)), math.sin(math.radians(CRYSTAL_ROTATION_DEG))
    x, y = x_m.astype(np.float32), y_m.astype(np.float32)[:, None]
    return x * cosine - y * sine, x * sine + y * cosine


def _square_polar(u: NDArray[np.float32], v: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Polar coordinates along squares: distance of the side, and the way round its outline from 0 to 1."""
    across, along = np.abs(u), np.abs(v)
    r = np.maximum(across, along)
    quarter = np.where(across >= along, along, 2 * along - across) / (8 * np.maximum(r, 1e-12))
    half = np.where(u >= 0, quarter, 0.5 - quarter)
    return r, np.where(v >= 0, half, 1.0 - half)


def _jittered_lattice(
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


def _around(along_m: Floats, centre_m: float, reach_m: float) -> slice:
    start, stop = np.searchsorted(along_m, (centre_m - reach_m, centre_m + reach_m))
    return slice(int(start), int(stop))
