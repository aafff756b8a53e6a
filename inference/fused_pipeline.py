"""Frames of a run in, heights of all that they have in common out: fusion in time before the three slots."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.frames import Frame, Result
from acquisition.instrument import Instrument
from inference.calibration import Calibration
from inference.fusion.estimator import Fused, Fusion
from inference.fusion.resampling import resample
from inference.pipeline import Pipeline, calibrated

KEPT_RUNS = 2

Images = NDArray[np.uint16]


@dataclass(slots=True)
class _Run:
    fusion: Fusion
    last_sequence: int = -1


class FusedPipeline:
    """A `Pipeline` that remembers: each frame is fused with those of its run that came before it.

    Frames must come in order, one process seeing them all: what another worker took is a gap, which only weakens the
    estimate; a frame older than the last is left out of it and reconstructed alone. Each run has an estimate of its
    own, the last two are kept: heights that an earlier run still lacks are made in between. Another `pipeline` goes on
    with the same estimates, which are images. Raises what `Fusion` does.
    """

    def __init__(self, pipeline: Pipeline, most_frames: int) -> None:
        self.pipeline = pipeline
        self.most_frames = most_frames
        self._runs = {"": _Run(Fusion(most_frames))}

    @property
    def model(self) -> str:
        return self.pipeline.model

    @property
    def provider(self) -> str:
        return self.pipeline.provider

    def reconstruct(self, frame: Frame, instrument: Instrument) -> Result:
        """The fused height, on the pixels of this frame, with its residual, sigma and `frames_held` layers; figures
        as of one frame, and `frames_held` (median), `drift_x_px`, `drift_y_px` since the frame before."""
        timing_s: dict[str, float] = {}
        images, calibration = _calibrated(frame, instrument, timing_s)
        found = self._fused(frame, images, calibration, timing_s)
        return found or self._alone(frame, images, calibration, timing_s)

    def reconstruct_both(self, frame: Frame, instrument: Instrument) -> Result:
        """The height of this frame alone, as `Pipeline.reconstruct` gives it, and beside it the layers `fused_height`
        and `frames_held` with the figures of fusion."""
        timing_s: dict[str, float] = {}
        images, calibration = _calibrated(frame, instrument, timing_s)
        alone = self._alone(frame, images, calibration, timing_s)
        fused = self._fused(frame, images, calibration, {})
        if fused is None:
            return alone
        figures = {name: fused.header.figures[name] for name in ("frames_held", "drift_x_px", "drift_y_px")}
        spent_s = {"fuse": fused.header.timing_s["fuse"], "fused_height": _inference_s(fused)}
        header = replace(
            alone.header,
            figures={**alone.header.figures, **figures},
            timing_s={**alone.header.timing_s, **spent_s},
        )
        layers = {"fused_height": fused.height_m, "frames_held": fused.layers["frames_held"]}
        return Result(header, {**alone.layers, **layers})

    def _alone(self, frame: Frame, images: Images, calibration: Calibration, timing_s: dict[str, float]) -> Result:
        return self.pipeline.invert(frame, images, calibration, np.ones(images.shape[1:], np.float32), timing_s)

    def _fused(
        self, frame: Frame, images: Images, calibration: Calibration, timing_s: dict[str, float]
    ) -> Result | None:
        """None for a frame that comes after later ones."""
        run = self._run_of(frame.header.run_id)
        if frame.header.sequence <= run.last_sequence:
            return None
        run.last_sequence = frame.header.sequence
        began = time.perf_counter()
        fused = run.fusion.add(images, calibration, frame.header.optics)
        timing_s = {**timing_s, "fuse": time.perf_counter() - began}
        found = self.pipeline.invert(frame, fused.images, calibration, fused.frames_held, timing_s)
        figures = {
            "frames_held": float(np.median(fused.frames_held)),
            "drift_x_px": fused.drift_px[1],
            "drift_y_px": fused.drift_px[0],
        }
        layers: dict[str, NDArray[Any]] = {
            **found.layers,
            "height": _on_the_frame(found.height_m, fused),
            "frames_held": fused.frames_held.astype(np.float16),
        }
        return Result(replace(found.header, figures={**found.header.figures, **figures}), layers)

    def _run_of(self, run_id: str) -> _Run:
        run = self._runs.pop(run_id, None) or _Run(Fusion(self.most_frames))
        self._runs = {**dict(list(self._runs.items())[1 - KEPT_RUNS :]), run_id: run}
        return run


def _calibrated(frame: Frame, instrument: Instrument, timing_s: dict[str, float]) -> tuple[Images, Calibration]:
    began = time.perf_counter()
    found = calibrated(frame, instrument)
    timing_s["calibrate"] = time.perf_counter() - began
    return found


def _on_the_frame(height_m: NDArray[np.float32], fused: Fused) -> NDArray[np.float32]:
    """The estimate lies up to half a pixel off the frame; its height, which is smooth, is moved onto it."""
    moved, _ = resample(height_m[np.newaxis], (-fused.offset_px[0], -fused.offset_px[1]))
    height: NDArray[np.float32] = moved[0]
    return height


def _inference_s(result: Result) -> float:
    return sum(seconds for name, seconds in result.header.timing_s.items() if name != "fuse")
