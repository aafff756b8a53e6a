"""What a place of a height map looks like, by Zernike moments of the patch there: step, edge, core or artefact."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap

Kind = Literal["terrace", "step", "edge", "core", "spike", "scan line"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RADIUS_PX = 10
ORDER = 8
SMALL = 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Model:
    """A multinomial logistic model of standardised features and their squares: `weights` (F, K), `offsets` (K,);
    `means` and `scales` (F / 2,)."""

    means: Floats
    scales: Floats
    weights: Floats
    offsets: Floats

    def probabilities(self, features: Floats) -> Floats:
        """(n, K) for features (n, F / 2)."""
        odds = self.terms(features) @ self.weights + self.offsets
        odds = np.exp(odds - odds.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def terms(self, features: Floats) -> Floats:
        """(n, F): what the weights apply to."""
        level = np.clip((features - self.means) / self.scales, -5.0, 5.0)
        return np.hstack([level, level**2])


@dataclass(frozen=True, slots=True)
class Looks:
    """For each place (n,): the likeliest kind and `probabilities` (n, K) in the order of `KINDS`; places whose patch is
    not wholly in view are left out: `used` (n,) tells which are in."""

    probabilities: Floats
    used: NDArray[np.bool_]

    @property
    def kinds(self) -> list[Kind]:
        return [KINDS[index] for index in np.argmax(self.probabilities, axis=1)]

    def together(self) -> tuple[Kind, float]:
        """What all places are if they are parts of one thing, and how sure that is: mean probabilities."""
        if not len(self.probabilities):
            return "terrace", math.nan
        mean = self.probabilities.mean(axis=0)
        return KINDS[int(np.argmax(mean))], float(mean.max())


def look_around(map: HeightMap, places_px: Floats) -> Looks:
    """What the patches of `RADIUS_PX` pixels around `places_px` (n, 2), rows and columns, look like. Calibrated on
    synthetic patches at 100 to 40 000 electrons a pixel; raises `BadInput` for pixels that are not square."""
    if not math.isclose(map.pixel_size_m, map.pixel_size_y_m, rel_tol=0.01):
        raise BadInput(
            f"pixels of {map.pixel_size_m:g} m by {map.pixel_size_y_m:g} m: descriptors need square ones; resample"
        )
    centres = np.rint(places_px).astype(int).reshape(-1, 2)
    limits = np.array(map.height_m.shape) - 1 - RADIUS_PX
    used = np.asarray(((centres >= RADIUS_PX) & (centres <= limits)).all(axis=1))
    if not used.any():
        return Looks(np.empty((0, len(KINDS))), used)
    around = np.arange(-RADIUS_PX, RADIUS_PX + 1)
    rows, columns = centres[used, 0, None, None] + around[:, None], centres[used, 1, None, None] + around
    patches = map.height_m[rows, columns] / map.pixel_size_m
    return Looks(shipped().probabilities(features(patches)), used)


def zernike(patches: Floats) -> NDArray[np.complex128]:
    """(n, M) moments of patches (n, 2 R + 1, 2 R + 1) on the disc that they hold: `(n + 1) / pi` times the integral of
    the height with the conjugate of Zernike's polynomial, for the pairs of `orders()`."""
    return np.asarray(patches.reshape(len(patches), len(_basis())) @ _basis())


@cache
def orders() -> tuple[tuple[int, int], ...]:
    """Pairs (n, m) with 0 <= m <= n <= `ORDER` and n - m even, without the mean."""
    return tuple((n, m) for n in range(1, ORDER + 1) for m in range(n % 2, n + 1, 2))


def features(patches: Floats) -> Floats:
    """(n, F) of patches in pixels of height: the moments' sizes over their norm, which no turn of the patch changes;
    the relief; and what tells artefacts: how sudden rows change, and how far single pixels stand out."""
    moments = np.abs(zernike(patches))
    relief = np.sqrt(np.sum(moments**2, axis=1)) + SMALL
    rows = np.diff(patches, axis=1)
    jump = np.abs(np.median(rows, axis=2))
    usual = np.median(np.abs(rows), axis=(1, 2)) + SMALL
    middle = patches - np.median(
        np.stack([np.roll(patches, shift, axis=axis) for axis in (1, 2) for shift in (-2, -1, 1, 2)]), axis=0
    )
    inner = np.abs(middle[:, 2:-2, 2:-2]).max(axis=(1, 2))
    rough = np.median(np.abs(middle), axis=(1, 2)) + SMALL
    sharp = np.sort(jump, axis=1)[:, -3:]
    more = [
        np.log(relief),
        np.log((sharp[:, 2] + SMALL) / relief),
        np.log((sharp[:, 2] + SMALL) / (sharp[:, 1] + SMALL)),
        np.log((sharp[:, 2] + SMALL) / usual),
        np.log((inner + SMALL) / rough),
        np.log((inner + SMALL) / relief),
        np.log(relief / rough),
    ]
    return np.hstack([np.log(moments / relief[:, None] + 0.01), np.column_stack(more)])


def parse_model(text: str) -> Model:
    tree = json.loads(text)
    return Model(*(np.array(tree[name], np.float64) for name in ("means", "scales", "weights", "offsets")))


def model_text(model: Model) -> str:
    """Numbers to four digits, which is more than they are known to."""

    def rounded(values: Floats) -> object:
        return np.vectorize(lambda value: float(f"{value:.4g}"))(values).tolist()

    tree = {name: rounded(getattr(model, name)) for name in ("means", "scales", "weights", "offsets")}
    lines = [f'"{name}": {json.dumps(values)}' for name, values in tree.items()]
    return '{"kinds": ' + json.dumps(KINDS) + ",\n" + ",\n".join(lines) + "}\n"


@cache
def shipped() -> Model:
    """The model that comes along, made by `python -m inference.metrology.patches`."""
    return parse_model(files("inference.metrology").joinpath("descriptors.json").read_text("utf-8"))


@cache
def _basis() -> NDArray[np.complex128]:
    """(pixels, M), from the definition of the radial polynomials."""
    across = np.arange(-RADIUS_PX, RADIUS_PX + 1) / RADIUS_PX
    radius, angle = np.hypot(across[:, None], across), np.arctan2(-across[:, None], across)
    inside = radius <= 1.0
    columns = []
    for n, m in orders():
        radial = sum(
            (-1.0) ** k
            * math.factorial(n - k)
            / (math.factorial(k) * math.factorial((n + m) // 2 - k) * math.factorial((n - m) // 2 - k))
            * radius ** (n - 2 * k)
            for k in range((n - m) // 2 + 1)
        )
        polynomial = np.where(inside, np.asarray(radial) * np.exp(-1j * m * angle), 0.0)
        # A disc of few pixels is not quite orthogonal to the mean.
        polynomial = np.where(inside, polynomial - polynomial[inside].mean(), 0.0)
        columns.append((n + 1) / math.pi * polynomial.ravel() / RADIUS_PX**2)
    return np.stack(columns, axis=1)
