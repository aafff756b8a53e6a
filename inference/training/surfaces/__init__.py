"""Surfaces that the networks are trained and judged on: what copper, its oxide and deposits look like, and more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.training.surfaces.canvas import STEEPEST_RMS_DEG, Canvas, Heights, rms_slope
from inference.training.surfaces.crystals import facets, grains, islands, nanograins, pits
from inference.training.surfaces.smooth import flat, fractal, gaussian, hills
from inference.training.surfaces.steps import gratings, spirals, step_bunches, terraces

STEEPEST_TILT_DEG = 10.0
TILTED_SHARE = 0.25
FINEST_PX = 3.0
LEAST_SIZE_PX = 8

_PLAIN: Mapping[str, Callable[[Canvas], Heights]] = {
    "terraces": terraces,
    "step_bunches": step_bunches,
    "spirals": spirals,
    "facets": facets,
    "islands": islands,
    "grains": grains,
    "gaussian": gaussian,
    "fractal": fractal,
    "gratings": gratings,
    "hills": hills,
    "pits": pits,
    "nanograins": nanograins,
    "flat": flat,
}

# The lateral scales that a family is made of, in finest lengths at least and shares of the frame at most.
_SCALES: Mapping[str, tuple[float, float]] = {
    "terraces": (1.5, 0.4),
    "step_bunches": (3.0, 0.5),
    "spirals": (1.5, 0.25),
    "facets": (2.0, 0.9),
    "islands": (2.0, 0.7),
    "grains": (2.0, 0.6),
    "fractal": (5.0, 2.0),
    "gratings": (1.5, 0.8),
    "pits": (2.0, 0.7),
    "nanograins": (1.5, 0.2),
}

FAMILIES: tuple[str, ...] = (*_PLAIN, "mixtures")
SMOOTH_FAMILIES = ("gaussian", "fractal", "hills")
"""Those whose rms slope is drawn log-uniformly from 0.1 to 60 degrees and reached exactly, before any tilt."""


def make_surface(
    family: str, size_px: int, rng: np.random.Generator, finest_px: float = FINEST_PX, tilted: bool | None = None
) -> NDArray[np.float32]:
    """(size_px, size_px) float32 heights in units of the pixel, mean zero, of one of `FAMILIES`.

    Lateral scales run log-uniformly from about `finest_px` to the frame's size; the rms slope stays below 60 degrees.
    A quarter of all surfaces, or all or none by `tilted`, lie on a plane tilted by up to 10 degrees. The same
    generator gives the same surface (models.md, "The chain", surfaces). Raises `BadInput` for an unknown family and for
    fewer than 8 pixels.
    """
    if family not in FAMILIES:
        raise BadInput(f"unknown surface family {family!r}; there are {', '.join(FAMILIES)}", permitted=FAMILIES)
    if size_px < LEAST_SIZE_PX:
        raise BadInput(f"a surface of {size_px} pixels a side is too small: ask for at least {LEAST_SIZE_PX}")
    surface = _mixture(size_px, rng, finest_px) if family == "mixtures" else _plain(family, size_px, rng, finest_px)
    steepest = math.tan(math.radians(STEEPEST_RMS_DEG))
    surface = surface * np.float32(min(steepest / max(rms_slope(surface), steepest), 1.0))
    if rng.random() < TILTED_SHARE if tilted is None else tilted:
        surface += _plane(size_px, rng)
    return np.asarray(surface - surface.mean(dtype=np.float64), np.float32)


def _plain(
    family: str, size_px: int, rng: np.random.Generator, finest_px: float, shares: tuple[float, float] = (0.0, 1.0)
) -> Heights:
    """`shares` narrows the range of scales, in shares of its logarithm."""
    coarsest, widest = _SCALES.get(family, (1.0, 1.0))
    low = math.log(coarsest * finest_px)
    span = max(math.log(widest * size_px) - low, 0.0)
    scale_px = math.exp(low + span * rng.uniform(*shares))
    return _PLAIN[family](Canvas(size_px, scale_px, finest_px, rng))


def _mixture(size_px: int, rng: np.random.Generator, finest_px: float) -> Heights:
    """A coarse family with a fine one on top of it, everywhere or in patches with sharp borders."""
    coarse, fine = rng.choice([name for name in _PLAIN if name != "flat"], 2)
    ground = _plain(str(coarse), size_px, rng, finest_px, (0.5, 1.0))
    cover = _plain(str(fine), size_px, rng, finest_px, (0.0, 0.5))
    if rng.random() < 0.5:
        return ground + np.float32(rng.uniform(0.2, 1.0)) * cover
    patches = Canvas(size_px, size_px, finest_px, rng).noise(rng.uniform(0.15, 0.5) * size_px) > rng.normal(0.0, 0.5)
    step = np.float32(math.exp(rng.uniform(math.log(0.05), math.log(5.0))))
    return ground + np.where(patches, cover - cover.mean() + step, np.float32(0.0))


def _plane(size_px: int, rng: np.random.Generator) -> Heights:
    slope = math.tan(math.radians(rng.uniform(0.0, STEEPEST_TILT_DEG)))
    azimuth = rng.uniform(0.0, 2.0 * math.pi)
    along = np.arange(size_px, dtype=np.float32)
    return np.float32(slope * math.cos(azimuth)) * along + np.float32(slope * math.sin(azimuth)) * along[:, None]
