"""A calibration drawn: how numbers and their errors converged, and what was left of the images before and after."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from inference.refinement.calibrated import Calibrated

MOST_SHOWN = 24


def draw_calibration(fit: Calibrated, path: Path) -> None:
    """A PNG: a panel per parameter (value with its standard error by step, the prior as a band), then the first
    segment's residual of each view, before and after, in units of its noise."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = fit.findings[:MOST_SHOWN]
    rows = math.ceil(len(shown) / 4) + len(fit.residuals)
    figure = Figure(figsize=(14, 2.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 4)
    steps = [one.number for one in fit.history]
    for number, one in enumerate(shown):
        axes = figure.add_subplot(grid[number // 4, number % 4])
        values = np.array([at.values[one.label] for at in fit.history])
        sigmas = np.array([at.sigmas[one.label] for at in fit.history])
        axes.axhspan(one.prior - one.prior_sigma, one.prior + one.prior_sigma, color="0.92")
        axes.errorbar(steps, values, sigmas, color="C0" if one.identifiable else "C3", marker=".", capsize=2)
        told = "" if one.identifiable else " (not identifiable)"
        axes.set_title(f"{one.label} = {one.value:.4g} ± {one.sigma:.1g}{told}", fontsize=8)
        axes.tick_params(labelsize=7)
    first = math.ceil(len(shown) / 4)
    for number, (name, (before, after)) in enumerate(fit.residuals.items()):
        for side, (when, residual) in enumerate((("before", before), ("after", after))):
            for segment in range(min(2, len(residual))):
                axes = figure.add_subplot(grid[first + number, 2 * side + segment])
                drawn = axes.imshow(residual[segment], cmap="RdBu", vmin=-4, vmax=4)
                axes.set_title(f"{name}, segment {segment}, residual {when} (sigma)", fontsize=8)
                axes.set_axis_off()
                figure.colorbar(drawn, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=80)
