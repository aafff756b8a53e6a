"""Synthetic patches of every kind of place at every dose: what the descriptors' model is calibrated and judged on.

`python -m inference.metrology.patches` makes `descriptors.json` anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from inference.metrology.descriptors import KINDS, RADIUS_PX, Kind, Model, features, model_text

SLOPE_NOISE_AT_ONE = 2.24
"""Of a slope by one detected electron a pixel; the default scene shows 0.0915 at 600."""
DOSES = (100.0, 40000.0)
EACH = 1500
RIDGE = 2.0
OFF_CENTRE_PX = 2.0
SEED = 7

Floats = NDArray[np.float64]


def patches(kind: Kind, count: int, rng: np.random.Generator, dose: float | None = None) -> Floats:
    """(count, 2 R + 1, 2 R + 1) heights in pixels of one kind, with the noise of `dose` or of doses across `DOSES`."""
    low, high = np.log(DOSES)
    made = []
    for _ in range(count):
        electrons = math.exp(rng.uniform(low, high)) if dose is None else dose
        tilt = rng.normal(0.0, 0.04, 2)
        row, column = np.mgrid[-RADIUS_PX : RADIUS_PX + 1, -RADIUS_PX : RADIUS_PX + 1].astype(np.float64)
        down, right = rng.uniform(-OFF_CENTRE_PX, OFF_CENTRE_PX, 2)
        surface = _MAKERS[kind](row - down, column - right, rng) + tilt[0] * row + tilt[1] * column
        made.append(surface + height_noise(row.shape, electrons, rng))
    return np.array(made)


def height_noise(shape: tuple[int, ...], dose: float, rng: np.random.Generator) -> Floats:
    """Heights in pixels that white noise of the slopes leaves after their integration by least squares."""
    wide = tuple(2 * size for size in shape)
    down, right = (np.fft.fftfreq(size) for size in wide)
    steep = 2 * np.pi * np.maximum(np.hypot(down[:, None], right), 0.5 / max(wide))
    white = np.fft.fft2(rng.normal(0.0, SLOPE_NOISE_AT_ONE / math.sqrt(dose), wide))
    heights = np.real(np.fft.ifft2(white / steep))[: shape[0], : shape[1]]
    return np.asarray(heights - heights.mean())


def train(each: int = EACH, seed: int = SEED) -> Model:
    """Most likely weights with a normal prior, by L-BFGS."""
    rng = np.random.default_rng(seed)
    rows = np.vstack([features(patches(kind, each, rng)) for kind in KINDS])
    truth = np.repeat(np.arange(len(KINDS)), each)
    scales = np.maximum(rows.std(axis=0), 1e-6)
    empty = Model(rows.mean(axis=0), scales, np.zeros((2 * rows.shape[1], len(KINDS))), np.zeros(len(KINDS)))
    terms = np.hstack([empty.terms(rows), np.ones((len(rows), 1))])
    wanted = np.eye(len(KINDS))[truth]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(-1, len(KINDS))
        odds = terms @ weights
        odds -= odds.max(axis=1, keepdims=True)
        logs = odds - np.log(np.exp(odds).sum(axis=1, keepdims=True))
        slope = terms.T @ (np.exp(logs) - wanted) + RIDGE * weights
        return float(-logs[wanted > 0].sum() + 0.5 * RIDGE * (flat @ flat)), slope.ravel()

    found = minimize(loss, np.zeros(terms.shape[1] * len(KINDS)), jac=True, method="L-BFGS-B").x
    weights = found.reshape(-1, len(KINDS))
    return Model(empty.means, empty.scales, weights[:-1], weights[-1])


def confusion(model: Model, dose: float, each: int, seed: int) -> Floats:
    """(K, K) shares: rows are what patches are, columns what they are taken for."""
    rng = np.random.default_rng(seed)
    shares = []
    for kind in KINDS:
        taken = np.argmax(model.probabilities(features(patches(kind, each, rng, dose))), axis=1)
        shares.append(np.bincount(taken, minlength=len(KINDS)) / each)
    return np.array(shares)


def _terrace(row: Floats, column: Floats, rng: np.random.Generator) -> Floats:
    return rng.normal(0.0, 0.01) * row * column / RADIUS_PX


def _step(row: Floats, column: Floats, rng: np.random.Generator) -> Floats:
    """A riser of 20 to 60 degrees between terraces, straight or bent."""
    ahead = _turned(row, column, rng) + rng.normal(0.0, 0.01) * (row**2 + column**2) / 2.0
    return _riser(ahead, _height(rng), rng)


def _edge(row: Floats, column: Floats, rng: np.random.Generator) -> Floats:
    """Two facets that meet, convex or concave, each reaching beyond the patch."""
    ahead = _turned(row, column, rng)
    width = rng.uniform(0.3, 1.5)
    bent = width * np.logaddexp(0.0, ahead / width)
    return np.asarray(rng.choice((-1.0, 1.0)) * math.tan(math.radians(rng.uniform(20.0, 55.0))) * bent)


def _core(row: Floats, column: Floats, rng: np.random.Generator) -> Floats:
    """A step that ends in the middle: the terrace climbs all the way round it."""
    height, sense = _height(rng), rng.choice((-1.0, 1.0))
    radius = np.hypot(row, column)
    turn = np.arctan2(row, column) / (2 * math.pi) + rng.uniform() + sense * radius / rng.uniform(40.0, 90.0)
    phase = sense * (turn - np.floor(turn) - 0.5)
    edge = height / math.tan(math.radians(rng.uniform(25.0, 60.0))) / (2 * math.pi * np.maximum(radius, 1.0))
    jump = np.clip((np.abs(phase) - 0.5) / np.minimum(edge, 0.5) + 1.0, 0.0, 1.0)
    return np.asarray(height * (phase - 0.5 * np.sign(phase) * jump))


def _spike(row: Floats, column: Floats, rng: np.random.Generator) -> Floats:
    width = rng.uniform(0.5, 1.4)
    return np.asarray(rng.choice((-1.0, 1.0)) * rng.uniform(1.5, 8.0) * np.exp(-(row**2 + column**2) / (2 * width**2)))


def _scan_line(row: Floats, column: Floats, rng: np.random.Generator) -> Floats:
    """From one row to the next all heights jump, for the rest of the patch or for a row or two."""
    later = row > 0
    if rng.random() < 0.5:
        later &= row <= rng.integers(1, 3)
    return np.where(later, rng.choice((-1.0, 1.0)) * rng.uniform(0.6, 4.0), 0.0)


def _turned(row: Floats, column: Floats, rng: np.random.Generator) -> Floats:
    angle = rng.uniform(0.0, 2 * math.pi)
    return np.asarray(column * math.cos(angle) + row * math.sin(angle))


def _height(rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(1.0), math.log(7.0)))


def _riser(ahead: Floats, height: float, rng: np.random.Generator) -> Floats:
    steep = math.tan(math.radians(rng.uniform(20.0, 60.0)))
    return np.clip(-ahead * steep, -0.5 * height, 0.5 * height)


_MAKERS: dict[Kind, Callable[[Floats, Floats, np.random.Generator], Floats]] = {
    "terrace": _terrace,
    "step": _step,
    "edge": _edge,
    "core": _core,
    "spike": _spike,
    "scan line": _scan_line,
}


if __name__ == "__main__":
    Path(__file__).with_name("descriptors.json").write_text(model_text(train()), "utf-8")
