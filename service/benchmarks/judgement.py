"""All verdicts of one pass over the fixed test set, and how cases become families and families one figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.benchmarks.crosschecks import Cycle
from service.benchmarks.judged import SPECIAL, Seen, Verdict

LEAST_DOSE = 600.0
"""What lies below is in table and chart, not in the rows."""
WORST_SHOWN = 6


class Shown(NamedTuple):
    """One of the worst cases, for its picture: sum of the segments, heights in pixels, angle error in degrees."""

    name: str
    ratio: float
    slope_deg: float
    image: NDArray[np.float32]
    truth: NDArray[np.float32]
    found: NDArray[np.float32]
    error_deg: NDArray[np.float32]


@dataclass(slots=True)
class Judgement:
    """What one pass found about `models`, the first of which is judged and the others show its spread."""

    models: tuple[str, ...]
    verdicts: list[Verdict] = field(default_factory=list)
    cycles: dict[str, list[Cycle]] = field(default_factory=dict)
    worst: dict[str, Shown] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.models[0]

    def of_families(self, dose: float | None = None) -> list[Verdict]:
        """Cases of the families at one dose, or at all doses that count for rows."""
        return [
            one
            for one in self.verdicts
            if one.family not in SPECIAL and (one.dose == dose if dose else one.dose >= LEAST_DOSE)
        ]

    def of_special(self, family: str, dose: float | None = None) -> list[Verdict]:
        return [one for one in self.verdicts if one.family == family and dose in (None, one.dose)]

    def doses(self) -> list[float]:
        return sorted({one.dose for one in self.verdicts if one.family not in SPECIAL})

    def keep_if_bad(self, verdict: Verdict, seen: Seen) -> None:
        """For the pictures: of every surface its worst dose, of all surfaces the worst ratios to classical; among equal
        ratios the larger error."""
        if verdict.family in SPECIAL or verdict.dose < LEAST_DOSE:
            return
        name, rank = seen.scene.name, (verdict.ratio(self.model), verdict.figures[self.model].slope_deg)
        if name in self.worst and self.worst[name][1:3] >= rank:
            return
        pictures = (
            seen.case.sample.images.sum(axis=0),
            seen.truth,
            seen.heights[self.model],
            seen.slope_error_deg(self.model),
        )
        self.worst[name] = Shown(verdict.name, *rank, *(np.asarray(one, np.float32) for one in pictures))
        if len(self.worst) > WORST_SHOWN:
            del self.worst[min(self.worst, key=lambda one: self.worst[one][1:3])]


def family_medians(verdicts: Iterable[Verdict], of: Callable[[Verdict], float]) -> dict[str, float]:
    """By family the median over its cases."""
    found: dict[str, list[float]] = {}
    for one in verdicts:
        found.setdefault(one.family, []).append(of(one))
    return {family: median(values) for family, values in found.items()}


def over_families(verdicts: Iterable[Verdict], of: Callable[[Verdict], float]) -> float:
    """The median over the families of the medians over their cases."""
    return median(family_medians(verdicts, of).values())


def worst_of(values: Mapping[str, float]) -> tuple[str, float]:
    """The largest with its name."""
    name = max(values, key=lambda one: values[one])
    return name, values[name]
