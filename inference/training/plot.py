"""How a training goes, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = 4
BOOKKEEPING = ("samples", "hours")


def draw_log(lines: Sequence[Mapping[str, float]], file: Path) -> None:
    """One panel for each number of the log, over the samples seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in lines[-1] if name not in BOOKKEEPING]
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        seen = [(line["samples"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*seen, strict=True), marker=".")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("samples", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.savefig(file, dpi=90)
