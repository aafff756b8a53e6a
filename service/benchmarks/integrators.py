"""`eclips bench integrators`: the same slopes into every integrator, height errors side by side."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from rich.table import Table

from inference.accuracy import compare
from service.benchmarks.accuracy import installed
from service.benchmarks.integrator_bounds import BOUND_DOSE, bounds, shadowed_pixels
from service.benchmarks.judged import CLASSICAL, SPECIAL, model_sets, seen_cases
from service.benchmarks.judgement import LEAST_DOSE
from service.benchmarks.measured import Measured, Report, Request
from service.benchmarks.peers import INTEGRATORS
from service.benchmarks.theory import OCCLUDED_DEG

DCT = "DCT Poisson"


class Condition(NamedTuple):
    source: str
    family: str
    dose: float

    def __str__(self) -> str:
        return f"{self.source} slopes, {self.family}, N = {self.dose:g}"


@dataclass(frozen=True, slots=True)
class Errors:
    """Rms height errors in pixels of one case by integrator, plane removed; the set's own under its name. `bounds` of
    occluded ones, over the exact solver's."""

    occluded: bool
    by_integrator: dict[str, float]
    bounds: Mapping[str, float] = field(default_factory=dict)


Found = dict[Condition, list[Errors]]


def measure(request: Request) -> Report:
    """Rows of [integrators] for the first of the request's sets, others of its recipe as a spread.

    Raises `BadInput` for a data folder without usable maps.
    """
    usable, missing = installed(request.models)
    if request.models[0] not in usable:
        return Report({}, left_out=missing)
    found = _errors(request._replace(models=usable))
    rows = {"pinn_vs_best_classical_worst": _worst(found, usable, missing)}
    occluded = [
        one
        for condition, cases in found.items()
        for one in cases
        if condition.source == CLASSICAL and condition.dose >= LEAST_DOSE and one.occluded
    ]
    if occluded:
        rows["pinn_vs_dct_occluded"] = _occluded(occluded, usable[0], _bounds(found, usable[0]))
    return Report(rows, table=_table(found, usable[0]), draw=lambda folder: [_write_csv(folder, found)])


def _errors(request: Request) -> Found:
    """Every integrator on every condition: all sets' on classical slopes, and on its own slopes each set's alone."""
    sets, found = model_sets(request.models), Found()
    for seen in seen_cases(request.data, request.quick, sets, lambda scene: scene.family not in SPECIAL):
        for source, slopes in seen.slopes.items():
            heights = {name: integrate(slopes) for name, integrate in INTEGRATORS.items()}
            for name in request.models:
                if source in (CLASSICAL, name):
                    heights[name] = sets[name].height_px(slopes, seen.case.sample.images, seen.calibration)
            errors = {name: compare(height, seen.truth, 1.0).height_error_m for name, height in heights.items()}
            condition = Condition(source, seen.scene.family, seen.case.sample.dose)
            told = bounds(seen, slopes, shadowed_pixels(seen)) if seen.occluded and condition.dose == BOUND_DOSE else {}
            found.setdefault(condition, []).append(Errors(seen.occluded, errors, told))
    return found


def ratio_to_best(cases: list[Errors], name: str) -> tuple[float, str]:
    """Geometric mean over the cases of a condition of an integrator's error, over that of the classical integrator
    that is best on the whole condition; and which that is."""
    best = min(INTEGRATORS, key=lambda peer: _mean(cases, peer))
    return _mean(cases, name) / _mean(cases, best), best


def _mean(cases: list[Errors], name: str) -> float:
    return math.exp(fmean(math.log(max(one.by_integrator[name], 1e-12)) for one in cases))


def _worst(found: Found, models: tuple[str, ...], missing: str) -> Measured:
    def of(name: str, noisy: bool = False) -> dict[Condition, float]:
        return {
            condition: ratio_to_best(cases, name)[0]
            for condition, cases in found.items()
            if name in cases[0].by_integrator and (condition.dose < LEAST_DOSE) == noisy
        }

    ratios = of(models[0])
    worst = max(ratios, key=lambda condition: ratios[condition])
    spread = ", ".join(f"{name} {max(of(name).values()):.3g}" for name in models)
    noisy = of(models[0], noisy=True)
    told = [f"set {models[0]}", f"sets: {spread}" if len(models) > 1 else "", missing]
    told.append(f"{worst}, best there {ratio_to_best(found[worst], models[0])[1]}")
    told.append(f"median {median(ratios.values()):.3f} of {len(ratios)} conditions")
    told.append(f"{sum(ratio > 1.02 for ratio in ratios.values())} above 1.02")
    told.append(f"at N = 100 up to {max(noisy.values()):.3g}" if noisy else "")
    conditions = "; ".join(one for one in told if one)
    peers = {peer: max(of(peer).values()) for peer in INTEGRATORS}
    steadiest = min(peers, key=lambda peer: peers[peer])
    return Measured(ratios[worst], conditions, steadiest, peers[steadiest])


def _bounds(found: Found, model: str) -> str:
    """What is possible at all, in words."""
    told = []
    for source in dict.fromkeys((CLASSICAL, model)):
        of = [
            one.bounds
            for condition, cases in found.items()
            if condition.source == source
            for one in cases
            if one.bounds
        ]
        if of:
            figures = ", ".join(f"{name} {median(one[name] for one in of):.2f}" for name in of[0])
            told.append(f"at N = {BOUND_DOSE:g} on {source} slopes told the truth ({len(of)} cases): {figures}")
    return "; ".join(told)


def _occluded(cases: list[Errors], model: str, told: str) -> Measured:
    def of(name: str) -> float:
        return median(one.by_integrator[name] / one.by_integrator[DCT] for one in cases)

    peers = {peer: of(peer) for peer in INTEGRATORS if peer != DCT}
    best = min(peers, key=lambda peer: peers[peer])
    conditions = (
        f"set {model}; median of {len(cases)} cases from N = 600, classical slopes, surfaces on which shadows alone "
        f"turn the classical normals without noise by more than {OCCLUDED_DEG:g} deg rms; {told}"
    )
    return Measured(of(model), conditions, best, peers[best])


def _table(found: Found, model: str) -> Table:
    shown = Table(title="height error over the best classical integrator's of the condition")
    shown.add_column("slopes, family", no_wrap=True)
    for heading in ("N", "cases", *INTEGRATORS, f"set {model}"):
        shown.add_column(heading, justify="right")
    for condition, cases in found.items():
        if model not in cases[0].by_integrator:
            continue
        ratios = (ratio_to_best(cases, name)[0] for name in (*INTEGRATORS, model))
        told = (f"{condition.source}, {condition.family}", f"{condition.dose:.0f}", f"{len(cases)}")
        shown.add_row(*told, *(f"{ratio:.3f}" for ratio in ratios))
    return shown


def _write_csv(folder: Path, found: Found) -> Path:
    """Geometric means over the cases, in pixels."""
    path = folder / "integrators.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("slopes", "family", "dose", "cases", "integrator", "height_error_px"))
        for condition, cases in found.items():
            for name in cases[0].by_integrator:
                numbers = (f"{condition.dose:g}", len(cases), name, f"{_mean(cases, name):.5g}")
                lines.writerow((condition.source, condition.family, *numbers))
    return path
