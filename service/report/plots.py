"""Curves as SVG: small, sharp in print, and without a library in the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from service.report.numbers import digits, prefixed

WIDTH, HEIGHT = 360, 178
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 26, 32
MOST_POINTS = 500
COLOURS = ("#2563a8", "#c2571a", "#2f7d4f", "#7a4fa3")
MARKS = {"info": "#a3a9b3", "warning": "#d08700", "alarm": "#c62828"}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """`name` is shown where there are several; a value that is not finite breaks the line. `sigma`: a band."""

    name: str
    x: Floats
    y: Floats
    sigma: Floats | None = None


def plot(
    title: str, unit: str, curves: Sequence[Curve], x_label: str, marks: Sequence[tuple[float, str, str]] = ()
) -> str:
    """An SVG of curves in SI units over one axis; `marks` are (x, severity, text). Nothing finite gives nothing."""
    finite = [curve.y[np.isfinite(curve.y)] for curve in curves]
    if not any(len(values) for values in finite):
        return ""
    factor, shown_unit = prefixed(max(float(np.abs(values).max()) for values in finite if len(values)), unit)
    bands = [curve.y + side * curve.sigma for curve in curves if curve.sigma is not None for side in (-1.0, 1.0)]
    low, high = _span(factor * np.concatenate([*finite, *(band[np.isfinite(band)] for band in bands)]))
    x_low = min(float(curve.x.min()) for curve in curves)
    x_high = max(float(curve.x.max()) for curve in curves)
    x_high = x_high if x_high > x_low else x_low + 1.0

    def across(x: Floats) -> Floats:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - x_low) / (x_high - x_low)

    def down(y: Floats) -> Floats:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low)

    parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    heading = escape(title[:1].upper() + title[1:]) + (
        f' <tspan class="unit">/ {escape(shown_unit)}</tspan>' if shown_unit else ""
    )
    parts.append(f'<text class="title" x="{LEFT}" y="14">{heading}</text>')
    for value in ticks(low, high):
        y = float(down(np.array(value)))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_tick(value)}</text>')
    for value in ticks(x_low, x_high, 6):
        x = float(across(np.array(value)))
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 17}" text-anchor="middle">{_tick(value)}</text>')
    middle = 0.5 * (LEFT + WIDTH - RIGHT)
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    for where, severity, text in marks:
        if x_low <= where <= x_high:
            x = float(across(np.array(where)))
            colour = MARKS.get(severity, MARKS["info"])
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{colour}" '
                f'stroke-dasharray="2 2"><title>{escape(text)}</title></line>'
            )
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        along, level = across(curve.x), factor * curve.y
        if curve.sigma is not None:
            known = np.isfinite(level) & np.isfinite(curve.sigma)
            upper, lower = down(level + factor * curve.sigma)[known], down(level - factor * curve.sigma)[known]
            points = [*zip(along[known], upper, strict=True), *list(zip(along[known], lower, strict=True))[::-1]]
            outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polygon points="{outline}" fill="{colour}" fill-opacity="0.15"/>')
        parts.append(_line(along, down(level), colour))
        if len(curves) > 1:
            place = WIDTH - RIGHT - 82 * (len(curves) - number - 1)
            parts.append(
                f'<text class="tick" x="{place}" y="14" text-anchor="end" fill="{colour}" '
                f'style="fill:{colour}">{escape(curve.name)}</text>'
            )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within the span."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _span(values: Floats) -> tuple[float, float]:
    """With air around it; a constant stands in the middle of a span of a few percent of itself."""
    low, high = float(values.min()), float(values.max())
    air = 0.08 * (high - low)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        air = 0.05 * abs(high) or 1.0
    return low - air, high + air


def _tick(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-12 else value:.6g}".replace("-", "−")


def _line(x: Floats, y: Floats, colour: str) -> str:
    """One path; of many points the lowest and the highest of each stretch."""
    known = np.isfinite(y)
    if known.sum() == 1:
        return f'<circle cx="{x[known][0]:.1f}" cy="{y[known][0]:.1f}" r="2.5" fill="{colour}"/>'
    chosen = np.arange(len(x))
    if len(x) > MOST_POINTS:
        stretches = np.array_split(np.where(known, y, 0.0), MOST_POINTS // 2)
        starts = np.cumsum([0, *(len(part) for part in stretches[:-1])])
        ends = [
            sorted((start + part.argmin(), start + part.argmax()))
            for start, part in zip(starts, stretches, strict=True)
        ]
        chosen = np.unique(np.concatenate(ends))
    steps, pen_up = [], True
    for index in chosen:
        if known[index]:
            steps.append(f"{'M' if pen_up else 'L'}{x[index]:.1f} {y[index]:.1f}")
        pen_up = not known[index]
    return f'<path d="{"".join(steps)}" fill="none" stroke="{colour}" stroke-width="1.4" stroke-linejoin="round"/>'


def constant(values: Floats) -> str:
    """The value that all share, in words for a table; empty where they differ."""
    finite = values[np.isfinite(values)]
    if len(finite) and np.ptp(finite) <= 1e-9 * max(1e-300, float(np.abs(finite).max())):
        return digits(float(finite[0]))
    return ""
