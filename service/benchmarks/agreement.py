"""How far BSESM lies from the independent Monte Carlo, on one surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import Instrument
from inference.forward_model import captured_fractions, linear_response
from service.benchmarks.monte_carlo import Cut, monte_carlo_fractions

BORDER_PX = 2


@dataclass(frozen=True, slots=True)
class Agreement:
    """Differences in % of each segment's signal on a flat specimen. `rms_pct` and `max_pct` are over all pixels and
    segments, `bias_pct` is the mean difference of the segment that is worst off. `reference_error_pct` is the rms of
    the reference's own standard errors: nothing is subtracted for it."""

    rms_pct: float
    max_pct: float
    bias_pct: float
    reference_error_pct: float

    def within(self, rms_pct: float, max_pct: float, bias_pct: float) -> bool:
        return self.rms_pct <= rms_pct and self.max_pct <= max_pct and abs(self.bias_pct) <= bias_pct


def agreement(
    heights_m: NDArray[np.floating],
    instrument: Instrument,
    pixels: NDArray[np.integer],
    rays: int,
    rng: np.random.Generator,
    cut: Cut = "lower",
) -> Agreement:
    """`captured_fractions` of the whole surface against `rays` cone-sampled rays from each of `pixels` (P, 2).

    Raises `BadInput` as `monte_carlo_fractions` does.
    """
    row, column = pixels.T
    rendered = captured_fractions(heights_m, instrument)[:, row, column]
    reference, error = monte_carlo_fractions(heights_m, instrument, pixels, rays, rng, "cone", cut=cut)
    to_pct = 100.0 / linear_response(instrument)[:, 2:]
    difference = (rendered - reference) * to_pct
    bias = difference.mean(axis=1)
    return Agreement(
        rms_pct=_rms(difference),
        max_pct=float(np.abs(difference).max()),
        bias_pct=float(bias[np.argmax(np.abs(bias))]),
        reference_error_pct=_rms(error * to_pct),
    )


def random_pixels(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(count, 2) rows and columns away from the border, where normals are one-sided."""
    return rng.integers(BORDER_PX, np.array(shape) - BORDER_PX, (count, 2))


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
