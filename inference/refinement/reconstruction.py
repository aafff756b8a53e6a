"""Frame -> height by maximum a posteriori: the offline judge of what the networks answer live."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import SystemClock
from acquisition.frames import Frame, Result
from acquisition.instrument import Instrument
from inference.pipeline import Pipeline, with_optics
from inference.refinement.map_solver import MapSolution, solve_map

MODEL = "map"


class MapReconstruction:
    """Starts from what `pipeline` answers and fits the height to the frame's electrons; see `solve_map`.

    `progress(done, most)` counts the iterations of a frame; `tell` gets one line about each.
    """

    model = MODEL
    provider = "CPU"

    def __init__(
        self, pipeline: Pipeline, tell: Callable[[str], None], progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._pipeline = pipeline
        self._tell = tell
        self._progress = progress or (lambda done, most: None)

    def reconstruct(self, frame: Frame, instrument: Instrument) -> Result:
        """Height, residual and sigma of one frame as `Pipeline.reconstruct` gives them; figures of the fit beside.

        Raises `BadInput` for an instrument whose radii, gains or dark levels are unknown.
        """
        start = self._pipeline.reconstruct(frame, instrument)
        began = time.perf_counter()
        found = solve_map(frame.images, with_optics(instrument, frame.header.optics), start.height_m, self._progress)
        seconds = time.perf_counter() - began
        self._tell(f"frame {frame.header.sequence}: {found.iterations} iterations, {found.reason}")
        at = SystemClock().now()
        header = replace(
            start.header,
            monotonic_ns=at.monotonic_ns,
            utc_ns=at.utc_ns,
            model=MODEL,
            provider=self.provider,
            figures=_figures(found),
            timing_s={**start.header.timing_s, "map": seconds},
        )
        sigma = np.full(found.height_m.shape, found.sigma_slope, np.float16)
        layers: dict[str, NDArray[Any]] = {
            "height": found.height_m.astype(np.float32),
            "residual": found.residual,
            "sigma": sigma,
        }
        return Result(header, layers)


def _figures(found: MapSolution) -> dict[str, float]:
    low, high = np.percentile(found.height_m, [0.5, 99.5])
    return {
        "reduced_chi2": found.reduced_chi2,
        "consistency_residual": float(np.sqrt(np.mean(np.square(found.residual, dtype=np.float64)))),
        "sigma_slope": found.sigma_slope,
        "height_range_m": float(high - low),
        "iterations": float(found.iterations),
    }
