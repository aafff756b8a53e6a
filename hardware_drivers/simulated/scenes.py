"""What lies under the simulated beam: surfaces that reach without end and grow, as functions of place and growth."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from hardware_drivers.simulated.staircases import (
    CRYSTAL_ROTATION_DEG,
    around,
    crystal_axes,
    jittered_lattice,
    meandering,
    square_polar,
    stairs,
    step_train,
)

Floats = NDArray[np.float64]

MAP_SUFFIXES = (".npz", ".tif", ".tiff", ".gsf")


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
        # With SciPy, for which a lab of any other scene need not wait at its start.
        from hardware_drivers.simulated.height_maps import HeightMap

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
    spirals_after_m = 0.0

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        turns = growth_m / self.terrace_m
        whole_turns = math.floor(turns)
        surface = np.full((len(y_m), len(x_m)), -np.inf, np.float32)
        for centre_x, centre_y, rise, sense in self._mounds_that_show(x_m, y_m):
            u, v = crystal_axes(x_m - centre_x, y_m - centre_y)
            r, turn = square_polar(u, sense * v)
            phase = turn - r / self.terrace_m + (turns - whole_turns)
            mound = stairs(phase, self.step_m / self.terrace_m) - turn + rise
            np.maximum(surface, mound, out=surface)
        return self.step_m * (surface.astype(np.float64) + whole_turns)

    def oxide_fraction(self, growth_m: float) -> float:
        return 1.0

    def _mounds_that_show(self, x_m: Floats, y_m: Floats) -> list[tuple[float, float, float, float]]:
        """Mounds (x, y, rise in steps, sense), less those that lie below another one everywhere in the frame."""
        middle_x, middle_y = 0.5 * (x_m[0] + x_m[-1]), 0.5 * (y_m[0] + y_m[-1])
        half_diagonal = 0.5 * math.hypot(x_m[-1] - x_m[0], y_m[-1] - y_m[0])
        mounds = []
        for rng, x, y in jittered_lattice(x_m, y_m, self.cell_m, self._seed):
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
        return step_train(
            meandering(x_m, y_m, self.direction_deg, self._lengths_m, self._phases),
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
        second = meandering(x_m, y_m, self.direction_deg + 75.0, self._lengths_m[::-1], self._phases)
        return super().heights_m(x_m, y_m, growth_m) + step_train(
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
        for rng, x, y in jittered_lattice(x_m, y_m, self.cell_m, self._seed):
            delay_m, thickness_m = rng.uniform(-1, 1) * self.nucleation_spread_m, rng.uniform(30e-9, 70e-9)
            half_width = self._half_width_m(growth_m, delay_m)
            columns, rows = around(x_m, x, 1.5 * half_width), around(y_m, y, 1.5 * half_width)
            if half_width <= 0 or columns.start == columns.stop or rows.start == rows.stop:
                continue
            u, v = crystal_axes(x_m[columns] - x, y_m[rows] - y)
            island = np.clip(half_width - np.maximum(np.abs(u), np.abs(v)), 0.0, thickness_m)
            np.maximum(cover[rows, columns], island, out=cover[rows, columns])
        return ground + cover

    def oxide_fraction(self, growth_m: float) -> float:
        delays = np.linspace(-1, 1, 21) * self.nucleation_spread_m
        sides = np.array([2 * self._half_width_m(growth_m, delay) for delay in delays])
        return float(np.minimum((sides / self.cell_m) ** 2, 1.0).mean())

    def _half_width_m(self, growth_m: float, delay_m: float) -> float:
        return min(max(self.first_half_width_m + growth_m - delay_m, 0.0), 0.6 * self.cell_m)


class FirstSpirals:
    """Growth spirals of Cu2O that break through stepped copper one after another, once free steps went some 300 nm."""

    pixel_size_m = None
    buried_m = 60e-9
    spirals_after_m = 300e-9

    def __init__(self, seed: int) -> None:
        self._spirals = CuprousOxideSpirals(seed)
        self._ground = StepBunches(seed)
        self._ground.bunch_m = 6e-9

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        spirals = self._spirals.heights_m(x_m, y_m, growth_m) - self.buried_m
        return np.maximum(self._ground.heights_m(x_m, y_m, 0.0), spirals)

    def oxide_fraction(self, growth_m: float) -> float:
        return 0.0 if growth_m < self.spirals_after_m else 1.0


class CuprousOxideCrystal(CuprousOxideSpirals):
    """One Cu2O crystal: a square spiral on its {100} top, a {110} side of some 110 nm, and below that another {100}
    facet on which two trains of straight steps cross, of sides of a square and of an octagon: at 135 degrees.

    All rise alike, so that the side, which no step feeds, stays where it is.
    """

    spiral_at_m = (-0.5e-6, 0.1e-6)
    side_at_m = 0.4e-6
    side_top_m = -80e-9
    side_height_m = 110e-9
    train_step_m = 20e-9
    train_terrace_m = 400e-9

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        u, v = (axis.astype(np.float64) for axis in crystal_axes(x_m, y_m))
        beyond = u - self.side_at_m
        below = np.maximum(beyond, 0.0)
        trains = (
            step_train(ahead, growth_m, self.train_step_m, self.train_terrace_m, 1.0)
            for ahead in (below, math.sqrt(0.5) * (below + v))
        )
        lower = self.side_top_m - self.side_height_m + sum(trains)
        risen_m = growth_m * self.step_m / self.terrace_m
        side = risen_m + self.side_top_m - beyond
        return np.maximum(lower, np.minimum(super().heights_m(x_m, y_m, growth_m), side))

    def _mounds_that_show(self, x_m: Floats, y_m: Floats) -> list[tuple[float, float, float, float]]:
        rng = np.random.default_rng([self._seed, 2])
        (u, v), turn = self.spiral_at_m, math.radians(CRYSTAL_ROTATION_DEG)
        x, y = u * math.cos(turn) + v * math.sin(turn), v * math.cos(turn) - u * math.sin(turn)
        return [(x, y, 0.0, float(rng.choice((-1.0, 1.0))))]


_SCENES: dict[str, Callable[[int], Scene]] = {
    "cu2o-spiral": CuprousOxideSpirals,
    "first-spirals": FirstSpirals,
    "cu2o-crystal": CuprousOxideCrystal,
    "step-bunches": StepBunches,
    "crossed-steps": CrossedSteps,
    "oxide-islands": OxideIslands,
    "grating": Grating,
    "flat": Flat,
}
