"""Curves over a common axis as a picture file, without a plotting library: log heights, one panel under the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float64]

WIDTH, PANEL_HEIGHT = 1000, 460
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 56, 60
# Drawn larger and reduced, which smooths the lines.
SCALE = 2
INK, GRID = (40, 40, 48), (222, 222, 228)
# Okabe and Ito's colours, distinct for colour-blind eyes too.
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through (x, y), and separate dots if given."""

    name: str
    x: Floats
    y: Floats
    dots_x: Floats = field(default_factory=lambda: np.empty(0))
    dots_y: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True)
class Panel:
    """Heights run in decades from `floor` up; what is below the floor, exact zeros too, lies on it."""

    title: str
    across: str
    curves: Sequence[Curve]
    floor: float


def write_chart(file: Path, panels: Sequence[Panel]) -> None:
    picture = Image.new("RGB", (WIDTH * SCALE, PANEL_HEIGHT * len(panels) * SCALE), "white")
    for index, panel in enumerate(panels):
        _PanelDrawing(ImageDraw.Draw(picture), panel, index * PANEL_HEIGHT).draw()
    picture.resize((WIDTH, PANEL_HEIGHT * len(panels)), Image.Resampling.LANCZOS).save(file)


class _PanelDrawing:
    """Coordinates in final pixels; `_place` turns values into scaled ones."""

    def __init__(self, pen: ImageDraw.ImageDraw, panel: Panel, top: int) -> None:
        self._pen, self._panel, self._top = pen, panel, top
        self._font = ImageFont.load_default(14 * SCALE)
        values = np.concatenate([np.concatenate([curve.y, curve.dots_y]) for curve in panel.curves])
        self._lowest = math.floor(math.log10(panel.floor))
        self._highest = max(math.ceil(math.log10(max(values.max(initial=0.0), panel.floor))), self._lowest + 1)
        self._end = max(float(curve.x.max()) for curve in panel.curves)

    def draw(self) -> None:
        self._axes()
        for index, curve in enumerate(self._panel.curves):
            colour = COLOURS[index % len(COLOURS)]
            line = [self._place(x, y) for x, y in zip(curve.x, curve.y, strict=True)]
            self._pen.line(line, fill=colour, width=2 * SCALE, joint="curve")
            for x, y in zip(curve.dots_x, curve.dots_y, strict=True):
                across, down = self._place(x, y)
                self._pen.ellipse([across - 4 * SCALE, down - 4 * SCALE, across + 4 * SCALE, down + 4 * SCALE], colour)
            place = ((WIDTH - RIGHT - 8) * SCALE, (self._top + TOP + 8 + 20 * index) * SCALE)
            self._pen.text(place, curve.name, fill=colour, font=self._font, anchor="ra")

    def _axes(self) -> None:
        for tick in np.arange(0.0, self._end + 1e-9, 0.2):
            across, down = self._place(float(tick), self._panel.floor)
            self._pen.line([(across, (self._top + TOP) * SCALE), (across, down)], fill=GRID, width=SCALE)
            self._pen.text((across, down + 6 * SCALE), f"{tick:.1f}", fill=INK, font=self._font, anchor="ma")
        for decade in range(self._lowest, self._highest + 1):
            across, down = self._place(0.0, 10.0**decade)
            self._pen.line([(across, down), ((WIDTH - RIGHT) * SCALE, down)], fill=GRID, width=SCALE)
            label = f"< {10.0**decade:g}" if decade == self._lowest else f"{10.0**decade:g}"
            self._pen.text((across - 8 * SCALE, down), label, fill=INK, font=self._font, anchor="rm")
        middle = (LEFT + WIDTH - RIGHT) / 2 * SCALE
        below = (self._top + PANEL_HEIGHT - 30) * SCALE
        self._pen.text((middle, below), self._panel.across, fill=INK, font=self._font, anchor="ma")
        self._pen.text((LEFT * SCALE, (self._top + 22) * SCALE), self._panel.title, fill=INK, font=self._font)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        decades = math.log10(max(y, self._panel.floor)) - self._lowest
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / self._end
        height = PANEL_HEIGHT - TOP - BOTTOM
        return across * SCALE, (
            self._top + PANEL_HEIGHT - BOTTOM - height * decades / (self._highest - self._lowest)
        ) * SCALE
