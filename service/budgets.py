"""Under what circumstances a frame was taken, and uncertainty budgets as trees and as lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

from acquisition.recording import RecordedRun
from inference.metrology.budget import Budget, Circumstances
from inference.metrology.instrument_error import instrument_error, pixel_error

DRIFT_PX = 256
FINER = 20
LEAST_SHOWN = 0.03
SHOWN = {"m": (1e9, "nm"), "deg": (1.0, "°"), "m2": (1e12, "µm²"), "m/s": (1e9, "nm/s")}


def circumstances(run: RecordedRun, sequence: int, images: NDArray[np.uint16]) -> Circumstances:
    """Of one frame of `run`: what its instrument file leaves open, its pixel's error, and how far the specimen moved
    while it was scanned, by the frame next to it."""
    pixel_share, pixel_told = pixel_error(run.instrument)
    drift_share, drift_told = _drift(run, sequence, images)
    return Circumstances(instrument_error(run.instrument, images), pixel_share, pixel_told, drift_share, drift_told)


def budget_trees(budgets: Iterable[Budget]) -> list[dict[str, Any]]:
    """For JSON: the value, its combined standard uncertainty, the largest term and what to do about it, and all
    terms."""
    return [
        {
            "name": one.name,
            "value": one.value,
            "sigma": one.sigma,
            "unit": one.unit,
            "method": one.method,
            "largest": one.largest.name,
            "advice": one.advice,
            "terms": [{"name": term.name, "sigma": term.sigma, "told": term.told} for term in one.terms],
        }
        for one in budgets
    ]


def budget_lines(budgets: Iterable[Budget]) -> list[str]:
    """A table: each figure with its combined standard uncertainty and its terms, largest first, as far as they count;
    then where the terms are from, and what makes the largest smaller."""
    lines, told, advice = ["uncertainty in all, and what it is made of:"], dict[str, str](), dict[str, None]()
    for budget in budgets:
        factor, unit = SHOWN[budget.unit]
        terms = sorted(budget.terms, key=lambda one: -one.sigma)
        terms = [term for term in terms if term.sigma > LEAST_SHOWN * budget.sigma]
        parts = ", ".join(f"{term.name} {factor * term.sigma:.2g}" for term in terms)
        figure = f"{factor * budget.value:.5g} ± {factor * budget.sigma:.2g} {unit}"
        lines.append(f"  {budget.name} ({budget.method})  {figure}: {parts}")
        told |= {term.name: term.told for term in terms}
        advice[f"{budget.largest.name}: {budget.advice}"] = None
    lines += [f"  {name}: {where}" for name, where in told.items()]
    return [*lines, *(f"  smaller with less of {one}" for one in advice)]


def _drift(run: RecordedRun, sequence: int, images: NDArray[np.uint16]) -> tuple[float, str]:
    """By which share lengths are stretched or sheared, at most."""
    numbers = sorted(run.frames)
    place = numbers.index(sequence)
    beside = [number for number in numbers[max(0, place - 1) : place + 2] if number != sequence]
    if not beside:
        return 0.0, "not known: one frame alone"
    other = run.read_frame(beside[0])
    if other.images.shape != images.shape:
        return 0.0, "not known: the frame beside it has another size"
    header, there = run.frames[sequence].header, other.header
    between_ns = abs(header.exposure_start_ns - there.exposure_start_ns)
    taken_ns = header.exposure_end_ns - header.exposure_start_ns
    rows, columns = images.shape[1:]
    middle = slice(max(0, (rows - DRIFT_PX) // 2), (rows + DRIFT_PX) // 2)
    across = slice(max(0, (columns - DRIFT_PX) // 2), (columns + DRIFT_PX) // 2)
    one, two = (each.sum(axis=0, dtype=np.float64)[middle, across] for each in (images, other.images))
    shift_px = phase_cross_correlation(one, two, upsample_factor=FINER)[0]
    meanwhile = min(1.0, taken_ns / between_ns) if between_ns > 0 else 1.0
    share = float(np.hypot(*shift_px)) * meanwhile / rows
    return share, f"{np.hypot(*shift_px):.2g} px from frame {beside[0]}, {100 * meanwhile:.0f} % of it while scanning"
