"""What tracking a run left in its `track.json`: its tables as curves, its single numbers as they are named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np

from service.report.facts import Facts
from service.report.numbers import UNITS, named, told
from service.report.plots import Curve, plot
from service.report.section import Section

PASSED_OVER = ("format", "run_id", "computed_from", "current")
TIMES = ("time_s", "sequence")
LEAST_POINTS = 3
TOLD_ELSEWHERE = ("looks", "reference", "temperature_k", "pressure_pa")
"""Conditions have a section of their own; the rest is bookkeeping."""


def motion(facts: Facts) -> Section | None:
    """Drift, steps, spirals and kinetics, where the run was tracked."""
    if facts.track is None:
        return None
    tree = {name: value for name, value in facts.track.items() if name not in PASSED_OVER}
    plots = "".join(_plots(tree, ""))
    rows = "".join(f"<tr><th>{escape(words)}</th><td>{value}</td></tr>" for words, value in _single(tree, ""))
    table = f"<table class='words'>{rows}</table>" if rows else ""
    return Section(
        "Motion",
        "What <code>eclips track</code> found; bands are one standard error.",
        f'{table}<div class="plots">{plots}</div>',
    )


def _plots(tree: Mapping[str, Any], path: str) -> Iterator[str]:
    """Of lists of numbers, and of lists of rows, which are turned into columns; against time where that is told."""
    columns = {name: _numbers(value) for name, value in tree.items()}
    times = next((columns[name] for name in TIMES if columns.get(name) is not None), None)
    errors = {_error_of(name, columns) for name in columns}
    label = "time / s" if columns.get("time_s") is not None else "number"
    for name, value in tree.items():
        y = columns[name]
        if {name.split()[0], name.split()[-1]} & set(TOLD_ELSEWHERE) or name in errors:
            continue
        if y is not None and name not in TIMES:
            x = times if times is not None and len(times) == len(y) else np.arange(len(y), dtype=np.float64)
            words, unit = named(f"{path} {name}".strip())
            sigma = columns.get(_error_of(name, columns))
            band = sigma if sigma is not None and len(sigma) == len(y) else None
            yield plot(words, unit, [Curve("", x, y, band)], label)
        elif isinstance(value, Mapping):
            yield from _plots(value, f"{path} {name}".strip())
        elif isinstance(value, list) and len(value) >= LEAST_POINTS and all(isinstance(row, Mapping) for row in value):
            flat = [dict(_flat(row, "")) for row in value]
            names = dict.fromkeys(name for row in flat for name in row)
            yield from _plots({name: [row.get(name) for row in flat] for name in names}, path)


def _single(tree: Any, path: str) -> Iterator[tuple[str, str]]:
    """Numbers and words that stand alone, with the way to them in words."""
    flat = dict(_flat(tree, path))
    errors = {_error_of(name, flat) for name in flat}
    for name, value in flat.items():
        words, unit = named(name)
        if name in errors:
            continue
        if isinstance(value, bool) or value is None:
            yield words, "yes" if value else "no" if value is False else "undetermined"
        elif isinstance(value, (int, float)):
            sigma = flat.get(_error_of(name, flat))
            yield words, told(float(value), unit, sigma if isinstance(sigma, float) else None)
        elif isinstance(value, str):
            yield words, escape(value)
        elif isinstance(value, list) and len(value) < 2 * LEAST_POINTS and _numbers(value) is None:
            for number, one in enumerate(value, start=1):
                if isinstance(one, Mapping):
                    yield from _single(one, f"{name} {number}")


def _flat(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Names joined on the way to everything that is no mapping."""
    for name, value in tree.items():
        whole = f"{path} {name}".strip()
        if isinstance(value, Mapping):
            yield from _flat(value, whole)
        else:
            yield whole, value


def _error_of(name: str, names: Mapping[str, Any]) -> str:
    """The one among `names` that tells the error of `name`: `step_height_error_m` of `step_height_m`; else nothing."""
    places = [f"{name.removesuffix(end)}_error{end}" for end in UNITS if name.endswith(end)]
    return next((one for one in (*places, name.replace("value_", "error_")) if one != name and one in names), "")


def _numbers(value: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """A list of three or more numbers, what is null as NaN; None for all else."""
    if not isinstance(value, list) or len(value) < LEAST_POINTS:
        return None
    if not all(one is None or (isinstance(one, (int, float)) and not isinstance(one, bool)) for one in value):
        return None
    numbers = np.array([np.nan if one is None else one for one in value], np.float64)
    return numbers if np.isfinite(numbers).sum() >= LEAST_POINTS else None
