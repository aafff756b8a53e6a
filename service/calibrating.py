"""Recorded runs to a new instrument file with standard errors: what `eclips calibrate` does.

Noise and dark frames need no torch; a fit does, so it is imported where it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import CalibratedNumber, CalibrationRecord, Instrument
from acquisition.recording import RecordedRun
from acquisition.recording.verification import digest_of
from inference.pipeline import Pipeline, with_optics
from inference.refinement.known_samples import parse_sample
from inference.refinement.parameters import STATED_SIGMA, UNKNOWN_GAIN_SIGMA, Priors
from inference.refinement.photon_transfer import DarkLevels, PhotonTransfer, dark_levels, photon_transfer
from service.checking import residual_band

if TYPE_CHECKING:
    from inference.refinement.calibrated import Calibrated, Iteration

AVERAGED = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """`runs` in order; `samples` by run name; `sigma` replaces stated priors; `frames` are averaged of each run."""

    runs: tuple[Path, ...]
    samples: Mapping[str, str] = field(default_factory=dict)
    dark: Path | None = None
    pairs: Path | None = None
    sigma: Mapping[str, float] = field(default_factory=dict)
    frames: int = AVERAGED


@dataclass(frozen=True, slots=True)
class Made:
    """The new `instrument`, its record inside; `fit` is None when only noise and dark frames were asked for."""

    instrument: Instrument
    fit: Calibrated | None
    gains: PhotonTransfer | None
    darks: DarkLevels | None


def calibrate_runs(asked: Asked, base: Instrument | None, progress: Callable[[Iteration], None]) -> Made:
    """With `base`, or the instrument recorded with the first run. Raises `BadInput` without any run, for runs of
    different settings of the optics, and as the fits do."""
    named = [*asked.runs, *(path for path in (asked.dark, asked.pairs) if path is not None)]
    if not named:
        raise BadInput("there is nothing to calibrate on: name a run, or give --dark or --pairs")
    recorded = {path: RecordedRun(path) for path in named}
    strangers = set(asked.samples) - {path.name for path in asked.runs}
    if strangers:
        raise BadInput(f"--sample names {', '.join(sorted(strangers))}, which is none of the runs given")
    instrument = base or recorded[named[0]].instrument
    darks = None if asked.dark is None else dark_levels(_images(recorded[asked.dark]))
    gains = None if asked.pairs is None else photon_transfer(_images(recorded[asked.pairs]), darks)
    priors = Priors(asked.sigma, gains, darks)
    fit = _fitted(asked, base, instrument, recorded, priors, progress) if asked.runs else None
    changed = fit.instrument if fit is not None else _with_levels(instrument, gains, darks)
    record = _record(asked, instrument, recorded, fit, gains, darks)
    seen = [recorded[path] for path in (*asked.runs, asked.pairs) if path is not None]
    frames = (frame for run in seen for frame in run.frame_iterator(run.sequences[: asked.frames]))
    record = record.model_copy(update={"residual_band": residual_band(frames, changed, Pipeline())})
    return Made(changed.model_copy(update={"calibration": record}), fit, gains, darks)


def _fitted(
    asked: Asked,
    base: Instrument | None,
    instrument: Instrument,
    recorded: Mapping[Path, RecordedRun],
    priors: Priors,
    progress: Callable[[Iteration], None],
) -> Calibrated:
    try:
        from inference.refinement.calibrate import calibrate
        from inference.refinement.views import view_of
    except ModuleNotFoundError as error:
        raise BadInput(f"{error.name} is not installed: install eclips-live with the extra `train`") from error
    views = []
    for path in asked.runs:
        run = recorded[path]
        if not run.sequences:
            raise BadInput(f"{path} holds no frames")
        sample = parse_sample(asked.samples[path.name]) if path.name in asked.samples else None
        seen = with_optics(instrument, run.read_frame(run.sequences[0]).header.optics)
        if base is None and seen.detector.working_distance_m != instrument.detector.working_distance_m:
            raise BadInput(f"{path} was taken at another working distance than the first run: calibrate each by itself")
        views.append(view_of(path.name, _images(run, asked.frames), seen, sample))
    return calibrate(views, instrument, priors, progress)


def _images(run: RecordedRun, most: int = 64) -> Sequence[NDArray[np.uint16]]:
    return [frame.images for frame in run.frame_iterator(run.sequences[:most])]


def _with_levels(instrument: Instrument, gains: PhotonTransfer | None, darks: DarkLevels | None) -> Instrument:
    segments = []
    for number, segment in enumerate(instrument.detector.segments):
        update: dict[str, Any] = {}
        if gains is not None:
            update["gain_counts_per_electron"] = float(gains.gain_counts_per_electron[number])
        if darks is not None:
            update["dark_counts"] = float(darks.dark_counts[number])
        segments.append(segment.model_copy(update=update))
    detector = instrument.detector.model_copy(update={"segments": tuple(segments)})
    effects = instrument.effects
    if darks is not None:
        effects = effects.model_copy(update={"read_noise_counts": float(np.mean(darks.read_noise_counts))})
    return instrument.model_copy(update={"detector": detector, "effects": effects})


def _record(
    asked: Asked,
    base: Instrument,
    recorded: Mapping[Path, RecordedRun],
    fit: Calibrated | None,
    gains: PhotonTransfer | None,
    darks: DarkLevels | None,
) -> CalibrationRecord:
    numbers: dict[str, CalibratedNumber] = {}
    for number, segment in enumerate(base.detector.segments):
        if gains is not None:
            found, sigma = gains.gain_counts_per_electron[number], gains.gain_sigma[number]
            prior = segment.gain_counts_per_electron
            spread = UNKNOWN_GAIN_SIGMA if prior is None else STATED_SIGMA["gain_counts_per_electron"]
            label = f"gain_counts_per_electron[{number}]"
            numbers[label] = _number(found, sigma, prior or found, spread * (prior or found))
        if darks is not None:
            found, sigma = darks.dark_counts[number], darks.dark_sigma_counts[number]
            prior = segment.dark_counts or 0.0
            numbers[f"dark_counts[{number}]"] = _number(found, sigma, prior, STATED_SIGMA["dark_counts"])
    if fit is not None:
        for one in fit.findings:
            measured = one.label in numbers
            numbers[one.label] = CalibratedNumber(
                value=one.value,
                sigma=one.sigma,
                prior=one.prior,
                prior_sigma=one.prior_sigma,
                # what noise or dark frames have pinned need not be pinned again
                identifiable=one.identifiable or measured,
            )
    before = base.calibration
    return CalibrationRecord(
        version=1 if before is None else before.version + 1,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        based_on=base.calibration_hash,
        runs={path.name: digest_of(run) for path, run in recorded.items()},
        samples=dict(asked.samples),
        reduced_chi2={} if fit is None else fit.reduced_chi2,
        parameters=numbers,
        notes=_notes(asked, fit),
    )


def _notes(asked: Asked, fit: Calibrated | None) -> tuple[str, ...]:
    if fit is None:
        return ()
    notes = [fit.reason, "radii and azimuths of the segments are taken as the file has them"]
    if not asked.samples:
        notes.append("no known sample: rotation is known modulo 180 degrees, the file's value chose which half")
    notes += [f"{name}: pose {_told(surface.pose)}" for name, surface in fit.surfaces.items() if surface.pose]
    return tuple(notes)


def _told(pose: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in pose.items())


def _number(value: float, sigma: float, prior: float, prior_sigma: float) -> CalibratedNumber:
    return CalibratedNumber(
        value=float(value),
        sigma=float(sigma),
        prior=float(prior),
        prior_sigma=float(prior_sigma),
        identifiable=bool(sigma <= 0.7 * prior_sigma),
    )
