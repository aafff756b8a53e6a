"""Small frames of a rough surface for tests of adaptation, and ways in which frames can be worth nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from acquisition.clock import SystemClock
from acquisition.frames import Exposure, Frame, FrameHeader, RunFinished
from acquisition.instrument import Instrument, four_quadrant
from acquisition.recording import Recorder
from acquisition.stamping import optics_of, stamp, start_run
from inference.forward_model import expected_electrons

SIDE, DOSE = 64, 3_000.0
STATED = four_quadrant()
GAIN, DARK = 8.0, 200.0


def rough_m(steepness: float = 0.5) -> np.ndarray:
    rough = gaussian_filter(np.random.default_rng(3).normal(size=(SIDE, SIDE)), 3.0)
    return rough * (steepness / np.gradient(rough)[0].std() * STATED.scan.pixel_size_m)


def electrons(heights_m: np.ndarray, dose: float = DOSE) -> np.ndarray:
    return np.maximum(expected_electrons(heights_m, STATED, dose), 0.0).astype(float)


def frames_of(expected: np.ndarray, count: int = 4, gain: float = GAIN, instrument: Instrument = STATED) -> list[Frame]:
    """Exposures of the same (S, H, W) mean electrons."""
    rng = np.random.default_rng(9)
    at = SystemClock().now()
    run = start_run(at, "rough", "test", instrument, expected.shape[1:], 1, "")
    images = (np.clip(rng.poisson(expected) * gain + DARK, 0, 65535).astype(np.uint16) for _ in range(count))
    return [
        stamp(run, number, Exposure(image, at, at, optics_of(instrument)), {}) for number, image in enumerate(images)
    ]


def record_rough(folder: Path, steepness: float = 0.8, count: int = 4, every_s: float = 0.0) -> Path:
    """A finished run of `frames_of` in `folder`, taken one `every_s`."""
    frames = frames_of(electrons(rough_m(steepness)), count)
    run = start_run(SystemClock().now(), folder.name, "test", STATED, (SIDE, SIDE), count, "")
    recorder = Recorder(folder, run, STATED, lambda _: None, simulated=True)
    for frame in frames:
        recorder.write_frame(Frame(_later(frame.header, folder.name, every_s), frame.images), None)
    last = RunFinished(folder.name, "test", 0, 0, 0, count, count - 1, "asked", recorder.digest)
    recorder.finish_frames(last)
    recorder.close("complete")
    return folder


def _later(header: FrameHeader, run_id: str, every_s: float) -> FrameHeader:
    by_ns = round(1e9 * every_s * header.sequence)
    times = ("monotonic_ns", "utc_ns", "exposure_start_ns", "exposure_end_ns")
    return replace(header, run_id=run_id, **{name: getattr(header, name) + by_ns for name in times})
