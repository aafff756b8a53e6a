"""Surfaces of parallel or winding edges: terraces, step bunches, growth spirals, gratings."""

from __future__ import annotations

import math

import numpy as np

from inference.training.surfaces.canvas import Canvas, Heights, stairs, with_slope

SHARP = 1.0e-3
MOST_SPIRALS = 4


def terraces(canvas: Canvas) -> Heights:
    """Vicinal steps, one, two or three layers high, at uneven intervals, with edges that meander."""
    rng, width = canvas.rng, canvas.scale_px
    ahead, _ = canvas.axes(canvas.log_uniform(0.02, 0.6) * width, width * canvas.log_uniform(0.5, 4.0))
    ahead += np.float32(rng.uniform(0.0, 1.5) * width) * canvas.noise(4.0 * width)
    layer = min(canvas.log_uniform(0.01, 3.0), 0.5 * width)
    phase = ahead * np.float32(1.0 / width)
    whole = np.floor(phase)
    step = whole.astype(np.intp)
    step -= step.min()
    layers = rng.choice([1.0, 1.0, 1.0, 2.0, 3.0], int(step.max()) + 2) * rng.choice([1.0, 1.0, -1.0])
    if canvas.chance(0.25):
        layers *= rng.choice([-1.0, 1.0], len(layers))
    below = np.concatenate([[0.0], np.cumsum(layers[:-1])]).astype(np.float32)
    risen = np.minimum((phase - whole) / np.float32(_riser(canvas, layer)), np.float32(1.0))
    heights: Heights = np.float32(layer) * (below[step] + layers.astype(np.float32)[step] * risen)
    return heights


def step_bunches(canvas: Canvas) -> Heights:
    """Long wavy terraces with inclined flanks of 0.3 to 50 degrees between them; bunches fork at dislocations."""
    rng, terrace = canvas.rng, canvas.scale_px
    ahead, across = canvas.axes(canvas.log_uniform(0.05, 0.5) * terrace, terrace * canvas.log_uniform(0.7, 4.0))
    phase = ahead * np.float32(1.0 / terrace)
    turns = np.zeros_like(phase)
    for sense in rng.choice([-1.0, 1.0], rng.choice([0, 0, 1, 2])):
        here, there = rng.uniform(-0.5, 0.5, 2) * canvas.size_px
        turns += np.float32(sense / (2.0 * math.pi)) * np.arctan2(across - np.float32(here), ahead - np.float32(there))
    share = canvas.log_uniform(0.05, 0.7)
    flank = share * terrace
    back = rng.uniform(0.0, 0.3) if canvas.chance(0.5) else 0.0
    climbing = stairs(phase + turns, share)
    return np.float32(canvas.slope(0.3, 50.0) * flank) * (climbing - turns - np.float32(back) * phase)


def spirals(canvas: Canvas) -> Heights:
    """One to four growth mounds of either sense, round, square or many-sided, one step a turn, growing together.

    Each climbs as `step (stairs(phase) - turn)` with `phase = turn - r / terrace`, r measured in the shape's norm.
    """
    rng = canvas.rng
    terrace = min(canvas.scale_px, 0.3 * canvas.size_px)
    u, v = canvas.axes(canvas.log_uniform(0.01, 0.3) * terrace, terrace * canvas.log_uniform(1.0, 5.0))
    sides = int(rng.choice([0, 3, 4, 4, 4, 6, 8]))
    rounding = np.float32(rng.choice([0.0, 0.0, 0.15, 0.4]))
    step = terrace * canvas.slope(1.0, 30.0)
    riser = _riser(canvas, step, terrace)
    surface = np.full_like(u, -np.inf)
    for _ in range(rng.integers(1, MOST_SPIRALS + 1)):
        here, there = (rng.uniform(-0.45, 0.45, 2) * canvas.size_px).astype(np.float32)
        along, aside = u - here, (v - there) * np.float32(rng.choice([-1.0, 1.0]))
        turn = np.arctan2(aside, along) * np.float32(1.0 / (2.0 * math.pi))
        distance = _norm(along, aside, sides, rounding) * np.float32(1.0 / terrace)
        if canvas.chance(0.3):
            distance = distance / (1.0 + np.float32(rng.uniform(0.02, 0.1)) * distance)
        mound = stairs(turn - distance, riser) - turn
        np.maximum(surface, mound + np.float32(rng.uniform(0.0, 2.0)), out=surface)
    return np.float32(step) * surface


def gratings(canvas: Canvas) -> Heights:
    """Sinusoidal, triangular, trapezoidal or sharp-walled ridges, plain or crossed."""
    rng, pitch = canvas.rng, max(canvas.scale_px, 2.0 * canvas.finest_px)
    u, v = canvas.axes(0.1 * pitch if canvas.chance(0.2) else 0.0, 3.0 * pitch)
    kind = rng.choice(["sinusoidal", "triangular", "trapezoidal", "sharp"])
    flank, duty = rng.uniform(0.05, 0.4), rng.uniform(0.25, 0.75)

    def profile(along: Heights) -> Heights:
        """From 0 to 1."""
        phase = along * np.float32(1.0 / pitch)
        if kind == "sinusoidal":
            wave: Heights = 0.5 - 0.5 * np.cos(np.float32(2.0 * math.pi) * phase)
            return wave
        phase -= np.floor(phase)
        from_middle = np.abs(phase - np.float32(0.5))
        if kind == "triangular":
            roof: Heights = np.minimum(phase / np.float32(duty), (1.0 - phase) / np.float32(1.0 - duty))
            return roof
        ramp = SHARP if kind == "sharp" else flank * min(duty, 1.0 - duty) * 2.0
        inside: Heights = (np.float32(0.5 * duty) - from_middle) / np.float32(ramp) + np.float32(0.5)
        return inside.clip(0.0, 1.0)

    ridges: Heights = profile(u)
    if canvas.chance(0.3):
        crossed = profile(v)
        ridges = np.maximum(ridges, crossed) if canvas.chance(0.5) else ridges + crossed
    if kind == "sharp":
        return ridges * np.float32(min(canvas.log_uniform(0.05, 12.0), 0.7 * pitch))
    if kind == "trapezoidal":
        steep = math.tan(math.radians(rng.uniform(5.0, 75.0))) if canvas.chance(0.6) else canvas.slope(0.3, 20.0)
        return ridges * np.float32(min(steep * flank * min(duty, 1.0 - duty) * 2.0 * pitch, 1.5 * pitch))
    return with_slope(ridges, canvas.slope())


def _riser(canvas: Canvas, rise_px: float, terrace_px: float | None = None) -> float:
    """The share of a terrace that its step's flank takes: none (one pixel), or an inclined one of 15 to 70 degrees."""
    terrace = terrace_px or canvas.scale_px
    if canvas.chance(0.4):
        return SHARP
    inclination = math.tan(math.radians(canvas.rng.uniform(15.0, 70.0)))
    return float(np.clip(rise_px / inclination / terrace, SHARP, 0.9))


def _norm(u: Heights, v: Heights, sides: int, rounding: np.float32) -> Heights:
    """Distance from the centre, as far as the side of a regular polygon is; `rounding` mixes in the round one."""
    round_one = np.hypot(u, v)
    if sides == 0:
        return round_one
    angles = 2.0 * math.pi * np.arange(sides) / sides
    distance = np.zeros_like(u)
    for cosine, sine in zip(np.cos(angles), np.sin(angles), strict=True):
        np.maximum(distance, u * np.float32(cosine) + v * np.float32(sine), out=distance)
    return distance + rounding * (round_one - distance) if rounding > 0 else distance
