"""Frame -> slopes -> re-rendered frame -> height: the three slots of a model set, run one after the other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import SystemClock
from acquisition.frames import Frame, Optics, Result, ResultHeader
from acquisition.instrument import Instrument
from inference.calibration import Calibration, calibrate
from inference.consistency import CHECKED_EVERY, checked, residual_median
from inference.faulty_segments import without_faulty
from inference.registry import CALIBRATION, DEFAULT_MODEL, SLOTS, find_model_set
from inference.session import OnnxSession

SOURCE = "inference"
WARM_UP_PX = 32
FIGURES_STEP = 4


class Pipeline:
    """Stateless between frames: the same frame, instrument and models give the same height bit for bit.

    `folders` are where model sets are looked for, if not among those that came with the program. Raises `BadInput` for
    an unknown model set, `ComponentFailed` when a graph or provider cannot be used.
    """

    def __init__(
        self, model: str = DEFAULT_MODEL, provider: str = "auto", threads: int = 0, folders: tuple[Path, ...] = ()
    ) -> None:
        self._card = find_model_set(model, *folders)
        self._sessions = {
            name: OnnxSession(self._card.graph(name), slot, provider, threads) for name, slot in SLOTS.items()
        }
        self.model = model
        self.provider: str = self._sessions["slopes"].provider
        self._warm_up()

    def reconstruct(self, frame: Frame, instrument: Instrument) -> Result:
        """Height, residual and sigma of one frame, with figures and timing. The frame's own optics win; segments that
        show nothing are left out. Raises `BadInput` when those left are too few."""
        began = time.perf_counter()
        images, calibration = calibrated(frame, instrument)
        timing_s = {"calibrate": time.perf_counter() - began}
        return self.invert(frame, images, calibration, np.ones(images.shape[1:], np.float32), timing_s)

    def invert(
        self,
        frame: Frame,
        images: NDArray[np.uint16],
        calibration: Calibration,
        frames_held: NDArray[np.float32],
        timing_s: dict[str, float],
    ) -> Result:
        """The same for `images` in the place of the frame's, of a known calibration, that are the mean of
        `frames_held` (H, W) frames at each pixel; `timing_s` is what was spent on them so far."""
        timing_s = dict(timing_s)
        layers = self._run(images, calibration, frames_held, timing_s)
        figures = _figures(layers, calibration)
        if frame.header.sequence % CHECKED_EVERY == 0:
            began = time.perf_counter()
            figures |= checked(self._run, self._rerendered, layers, calibration)
            timing_s["check"] = time.perf_counter() - began
        at = SystemClock().now()
        header = ResultHeader(
            run_id=frame.header.run_id,
            source=SOURCE,
            sequence=frame.header.sequence,
            monotonic_ns=at.monotonic_ns,
            utc_ns=at.utc_ns,
            model=self.model,
            model_hashes=self._card.sha256,
            provider=self.provider,
            calibration_hash=calibration.calibration_hash,
            pixel_size_m=frame.header.optics.pixel_size_m,
            figures=figures,
            timing_s=timing_s,
            estimated=calibration.estimated,
        )
        kept = {
            "height": layers["height"],
            "residual": _half(layers["residual"]),
            "sigma": _half(_slope_sigma(layers)),
        }
        return Result(header, kept)

    def _run(
        self,
        images: NDArray[np.uint16],
        calibration: Calibration,
        frames_held: NDArray[np.float32],
        timing_s: dict[str, float] | None = None,
    ) -> dict[str, NDArray[Any]]:
        values: dict[str, Any] = {"images": images, "frames_held": frames_held}
        values |= {name: getattr(calibration, name) for name in CALIBRATION}
        for name, session in self._sessions.items():
            began = time.perf_counter()
            values |= session.run(values)
            if timing_s is not None:
                timing_s[name] = time.perf_counter() - began
        return values

    def _rerendered(self, values: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        predicted: NDArray[np.float32] = self._sessions["rerender"].run(values)["predicted"]
        return predicted

    def _warm_up(self) -> None:
        """Run once, so that the first frame of a run does not pay for what is made on first use."""
        size = (WARM_UP_PX, WARM_UP_PX)
        calibration = Calibration(
            response=np.eye(3, dtype=np.float32),
            inversion=np.eye(3, dtype=np.float32),
            gain_counts_per_electron=np.ones(3, np.float32),
            dark_counts=np.zeros(3, np.float32),
            flat_share=np.float32(1),
            saturation_counts=np.float32(65535),
            pixel_size_m=np.float32(1),
            pixel_size_y_m=np.float32(1),
            beam_sigma_px=np.float32(0),
            calibration_hash="",
            estimated=(),
        )
        self._run(np.ones((3, *size), np.uint16), calibration, np.ones(size, np.float32))


def calibrated(frame: Frame, instrument: Instrument) -> tuple[NDArray[np.uint16], Calibration]:
    """Images and calibration of the segments that work, the frame's own optics winning. Raises `BadInput` when the
    frame doesn't fit the instrument and when too few segments work."""
    used = with_optics(instrument, frame.header.optics)
    names = tuple(segment.name for segment in used.detector.segments)
    return without_faulty(frame.images, calibrate(used, frame.images), names)


def with_optics(instrument: Instrument, optics: Optics) -> Instrument:
    """The instrument with what a frame says of itself.

    `detector.rotation_deg` is the detector against the scan as the instrument file has it; a scan that a frame turned
    further counter-clockwise shows the detector turned clockwise by as much (the other way round when mirrored).
    """
    used = instrument.with_scan(
        pixel_size_m=optics.pixel_size_m,
        working_distance_m=optics.working_distance_m,
        dwell_time_s=optics.dwell_time_s,
        energy_ev=optics.landing_energy_ev,
    )
    turned_deg = optics.scan_rotation_deg - used.scan.scan_rotation_deg
    if turned_deg == 0.0:
        return used
    seen_deg = -turned_deg if used.scan.mirrored else turned_deg
    detector = used.detector.model_copy(update={"rotation_deg": used.detector.rotation_deg - seen_deg})
    scan = used.scan.model_copy(update={"scan_rotation_deg": optics.scan_rotation_deg})
    return used.model_copy(update={"detector": detector, "scan": scan})


def _figures(layers: dict[str, NDArray[Any]], calibration: Calibration) -> dict[str, float]:
    """Numbers for journal and page. `consistency_residual`: rms of measured against re-rendered counts in units of
    expected noise, `residual_median` its median in the frame's middle, with what `consistency.checked` adds to every
    32nd frame; `slope_misfit`: rms of the slopes that no height can explain; `height_range_m`: 0.5 to 99.5 % of
    the pixels. Percentile and median are taken of some pixels only: of all they would cost a fifth of the frame."""
    kept = layers["rejected"] == 0
    residual = layers["residual"][kept]
    some = (slice(None, None, FIGURES_STEP), slice(None, None, FIGURES_STEP))
    low, high = np.percentile(layers["height"][some], [0.5, 99.5])
    return {
        "consistency_residual": float(np.sqrt(np.mean(residual**2))) if residual.size else 0.0,
        "residual_median": residual_median(layers["residual"], layers["rejected"]),
        "rejected_share": float(1.0 - kept.mean()),
        "sigma_slope": float(np.median(layers["sigma_p"][some])),
        "slope_misfit": float(layers["misfit"]),
        "height_range_m": float(high - low),
    }


def _slope_sigma(layers: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """(H, W): the larger of the two slopes' standard deviations, at the pixel left of and above each edge."""
    sigma = np.zeros(layers["rejected"].shape, np.float32)
    sigma[:, :-1] = layers["sigma_p"]
    sigma[:-1, :] = np.maximum(sigma[:-1, :], layers["sigma_q"])
    sigma[:, -1] = sigma[:, -2]
    sigma[-1, :] = sigma[-2, :]
    return sigma


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """For viewing: half the bytes, clipped to what half precision holds."""
    return np.clip(values, -60000.0, 60000.0).astype(np.float16)
