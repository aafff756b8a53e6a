"""Surfaces of many bodies: facetted crystals, islands, pits, grains, nanograins."""

from __future__ import annotations

import math

import numpy as np

from inference.training.surfaces.canvas import Canvas, Heights, scatter, with_slope

FACET_DEG = (5.0, 60.0)
MOST_WHOLE_CRYSTALS = 24


def facets(canvas: Canvas) -> Heights:
    """Truncated crystals, each turned and shaped by chance, every facet at an angle uniform in 5 to 60 degrees.

    Few and large ones as the upper envelope of them all; many small ones standing on a level ground.
    """
    if (canvas.size_px / canvas.scale_px) ** 2 <= MOST_WHOLE_CRYSTALS:
        return _grown_together(canvas)
    return _standing_apart(canvas)


def _grown_together(canvas: Canvas) -> Heights:
    rng, size = canvas.rng, canvas.size_px
    u, v = canvas.axes()
    count = max(int(1.5 * (size / canvas.scale_px) ** 2), 2)
    surface = np.full((size, size), -np.inf, np.float32)
    for _ in range(min(count, MOST_WHOLE_CRYSTALS)):
        here, there = (rng.uniform(-0.6, 0.6, 2) * size).astype(np.float32)
        sides = int(rng.integers(3, 7))
        azimuths = (
            rng.uniform(0, 2 * math.pi) + 2 * math.pi * (np.arange(sides) + rng.uniform(-0.2, 0.2, sides)) / sides
        )
        slopes = _facet_slopes(rng, sides)
        truncation = np.float32(canvas.scale_px * rng.uniform(0.0, 0.4) * slopes.mean())
        top = _facet_slopes(rng, 1)[0] * (rng.random() < 0.3)
        away = rng.uniform(0, 2 * math.pi)
        along, aside = u - here, v - there
        crystal = along * np.float32(top * math.cos(away)) + aside * np.float32(top * math.sin(away)) - truncation
        for azimuth, slope in zip(azimuths, slopes, strict=True):
            facet = along * np.float32(-slope * math.cos(azimuth)) - aside * np.float32(slope * math.sin(azimuth))
            np.minimum(crystal, facet, out=crystal)
        crystal += np.float32(rng.uniform(0.0, 0.5) * canvas.scale_px)
        np.maximum(surface, crystal, out=surface)
    return surface


def _standing_apart(canvas: Canvas) -> Heights:
    rng = canvas.rng
    cells = scatter(canvas, canvas.axes())
    sides = int(rng.choice([3, 4, 4, 5, 6]))
    # Corners then lie within one cell of the centre, where `Cells.around` still sees them.
    farthest = {3: 0.45, 4: 0.62, 5: 0.66, 6: 0.7}[sides]
    first = rng.uniform(0, 2 * math.pi, cells.count)
    azimuths = (
        first + 2 * math.pi * (np.arange(sides)[:, None] + rng.uniform(-0.05, 0.05, (sides, cells.count))) / sides
    )
    slopes = _facet_slopes(rng, sides * cells.count).reshape(sides, cells.count)
    reach = farthest * rng.uniform(0.6, 1.0, (sides, cells.count))
    planes = np.stack([slopes * np.cos(azimuths), slopes * np.sin(azimuths), slopes * reach]).astype(np.float32)
    top = (rng.uniform(0.3, 1.0, cells.count) * (slopes * reach).min(axis=0)).astype(np.float32)
    top[rng.random(cells.count) > rng.uniform(0.4, 1.0)] = 0.0
    surface = np.zeros((canvas.size_px, canvas.size_px), np.float32)
    for index, du, dv in cells.around():
        crystal = top[index]
        for side in range(sides):
            along, aside, rise = planes[:, side]
            np.minimum(crystal, rise[index] - along[index] * du - aside[index] * dv, out=crystal)
        np.maximum(surface, crystal, out=surface)
    return surface * np.float32(canvas.scale_px)


def islands(canvas: Canvas) -> Heights:
    """Flat-topped or domed islands with steep sides on a level or rough ground."""
    return _bodies(canvas, hollow=False)


def pits(canvas: Canvas) -> Heights:
    """Inverted pyramids, bowls and holes in a level or rough ground."""
    return -_bodies(canvas, hollow=True)


def _bodies(canvas: Canvas, hollow: bool) -> Heights:
    rng, cell = canvas.rng, canvas.scale_px
    cells = scatter(canvas, canvas.axes(0.05 * cell if canvas.chance(0.5) else 0.0, cell), jitter=rng.uniform(0.3, 1.0))
    square = canvas.chance(0.6)
    kind = rng.choice(["pyramid", "dome", "flat"] if hollow else ["dome", "flat", "flat"])
    radius = rng.uniform(0.15, 0.68 if square else 0.95, cells.count)
    radius[rng.random(cells.count) > rng.uniform(0.3, 1.0)] = 1e-6
    radius = radius.astype(np.float32)
    steep = np.float32(1e3 if canvas.chance(0.3) else math.tan(math.radians(rng.uniform(15.0, 75.0))))
    tallest = min(canvas.log_uniform(0.1, 15.0) / cell, 0.7)
    height = (tallest * rng.uniform(0.5, 1.0, cells.count)).astype(np.float32)
    aspect = np.float32(math.tan(math.radians(rng.uniform(5.0, 60.0))))
    turned = rng.uniform(0, 2 * math.pi, cells.count) if canvas.chance(0.3) else np.zeros(cells.count)
    cosine, sine = np.cos(turned).astype(np.float32), np.sin(turned).astype(np.float32)
    surface = np.zeros((canvas.size_px, canvas.size_px), np.float32)
    for index, du, dv in cells.around():
        if turned.any():
            c, s = cosine[index], sine[index]
            du, dv = du * c - dv * s, du * s + dv * c
        distance = np.maximum(np.abs(du), np.abs(dv)) if square else np.hypot(du, dv)
        inside = radius[index] - distance
        np.maximum(inside, 0.0, out=inside)
        if kind == "flat":
            body = np.minimum(inside * steep, height[index])
        elif kind == "pyramid":
            body = inside * aspect
        else:
            part = inside / radius[index]
            body = np.sqrt(part * (2.0 - part)) * radius[index] * aspect
        np.maximum(surface, body, out=surface)
    surface *= np.float32(cell)
    if canvas.chance(0.5):
        surface += with_slope(canvas.noise(rng.uniform(1.0, 4.0) * cell), canvas.slope(0.1, 8.0))
    return surface


def grains(canvas: Canvas) -> Heights:
    """A polycrystal: plateaus of random level and tilt that meet in steps, with or without grooves between them."""
    rng, cell = canvas.rng, canvas.scale_px
    cells = scatter(canvas, canvas.axes(0.08 * cell, 0.7 * cell))
    nearest = np.full((canvas.size_px, canvas.size_px), np.inf, np.float32)
    second = nearest.copy()
    grain = cells.home.copy()
    here, there = np.zeros_like(nearest), np.zeros_like(nearest)
    for index, du, dv in cells.around():
        distance = du * du + dv * dv
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        nearest[closer], grain[closer] = distance[closer], index[closer]
        here[closer], there[closer] = du[closer], dv[closer]
    # Bounded in pixels, lest every border of a large grain becomes a cliff.
    tilt = min(canvas.slope(0.2, 25.0), 6.0 / cell) * rng.normal(0.0, 0.7, (2, cells.count))
    level = min(canvas.log_uniform(0.02, 3.0) / cell, 0.2) * rng.normal(0.0, 1.0, cells.count)
    rise, fall, stand = (table.astype(np.float32) for table in (*tilt, level))
    surface: Heights = stand[grain] + rise[grain] * here + fall[grain] * there
    if canvas.chance(0.6):
        width = np.float32(rng.uniform(1.0, 3.0) * canvas.finest_px / cell)
        depth = np.float32(width * math.tan(math.radians(rng.uniform(3.0, 45.0))))
        surface -= depth * np.exp(-(np.sqrt(second) - np.sqrt(nearest)) / width)
    return surface * np.float32(cell)


def nanograins(canvas: Canvas) -> Heights:
    """Dense bumps of uneven size and level with steep gaps between them, on a rolling ground."""
    rng = canvas.rng
    cells = scatter(canvas, canvas.axes(0.15 * canvas.scale_px, canvas.scale_px), jitter=rng.uniform(0.6, 1.0))
    radius = rng.uniform(0.45, 0.95, cells.count).astype(np.float32)
    level = (rng.uniform(0.0, 0.5) * rng.random(cells.count)).astype(np.float32)
    squareness = rng.choice([1.0, 2.0])
    surface = np.zeros((canvas.size_px, canvas.size_px), np.float32)
    for index, du, dv in cells.around():
        r = radius[index]
        part = np.maximum(1.0 - ((du * du + dv * dv) / (r * r)) ** squareness, 0.0)
        np.maximum(surface, np.sqrt(part) * (r + level[index]), out=surface)
    surface = with_slope(surface, math.tan(math.radians(rng.uniform(8.0, 58.0))))
    if canvas.chance(0.5):
        surface += with_slope(canvas.noise(rng.uniform(3.0, 8.0) * canvas.scale_px), canvas.slope(0.5, 15.0))
    return surface


def _facet_slopes(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.tan(np.radians(rng.uniform(*FACET_DEG, count)))
