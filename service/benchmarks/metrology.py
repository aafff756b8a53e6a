"""Metrology where the answer is known: figures of simulated frames, reconstructed and measured as users do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.benchmarks.measured import Measured, NotMeasured, Report, Request
from service.benchmarks.metrology_budget import budget_rows
from service.benchmarks.metrology_motion import confusion_table, motion_rows
from service.benchmarks.metrology_shapes import shape_rows

Rows = Mapping[str, Measured | NotMeasured]

ROWS: tuple[Callable[[str, bool], Rows], ...] = (shape_rows, budget_rows, motion_rows)
"""Each measures its rows with a model set, quick or not."""


def measure(request: Request) -> Report:
    """The rows of the first model set that is asked about, and what descriptors take each kind of patch for."""
    rows: dict[str, Measured | NotMeasured] = {}
    for group in ROWS:
        rows |= group(request.models[0], request.quick)
    return Report(rows, table=confusion_table())
