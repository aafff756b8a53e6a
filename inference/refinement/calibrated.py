"""What a joint calibration says: while it runs, and in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import Instrument
from inference.refinement.identifiability import Finding
from inference.refinement.views import Surface

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Iteration:
    """Where the fit stood: values and standard errors by label, and the reduced chi squared of each view."""

    number: int
    values: dict[str, float]
    sigmas: dict[str, float]
    reduced_chi2: dict[str, float]


Progress = Callable[[Iteration], None]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """`instrument`: the file's with the new numbers. `surfaces`,
    `residuals` (before, after; each (S, H, W) in units of the noise) by view. `settled` and `reason`: why it ended."""

    instrument: Instrument
    findings: tuple[Finding, ...]
    reduced_chi2: dict[str, float]
    history: tuple[Iteration, ...]
    surfaces: dict[str, Surface]
    residuals: dict[str, tuple[Floats, Floats]]
    settled: bool
    reason: str
