"""The planner: what an instrument's settings will be able to show, told before a frame is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, Segment
from inference.calibration import FULL_SCALE_COUNTS
from inference.pixel_noise import (
    AZIMUTHS_RAD,
    Feature,
    FeatureNoise,
    PixelSignal,
    SlopeNoise,
    feature_noise,
    length,
    pixel_sides_m,
    pixel_signal,
    primaries_per_pixel,
    slope_noise,
)

__all__ = ["Advice", "Feature", "Plan", "SegmentPlan", "plan"]

LINE_FLYBACK_S = 50.0e-6
LEAST_TILT_DEG = 35.0
TILT_STEP_DEG = 10.0
SHORTER_DISTANCES = (0.8, 0.6)
SATURATION_SIGMAS = 4.0
FINEST_NOISE_COUNTS = 0.5
ORIENTATION_STEPS = 20


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """A segment on the specimen's mean plane and, `brightest_...`, at its brightest shadow-free orientation.

    `saturating_electrons`: mean at which four sigmas of noise touch full scale. None is what the file leaves unknown.
    """

    name: str
    captured_fraction: float | None
    electrons: float
    brightest_electrons: float
    counts: float | None
    brightest_counts: float | None
    saturating_electrons: float | None


@dataclass(frozen=True, slots=True)
class Advice:
    """One change, evaluated as a plan of its own. `noise_ratio`: slope noise after over before; `gain`: how many times
    less noise at equal time. `time_s`: of all its frames; `dose_ratio`: of primaries per area."""

    change: str
    cost: str
    noise_ratio: float
    gain: float
    time_s: float
    dose_ratio: float
    shadow_free_tilt_deg: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One frame of `shape` (rows, columns). Electrons are per pixel, `detected` is summed over the segments.

    `noise`: of the mean plane; `noise_by_tilt`: at the worst azimuth, from 0 to the shadow-free tilt.
    `vision_field_per_relief`: how far something can shade a pixel, per rise above it (r* = rise x tan(theta_out)).
    `saturating_dose`: `detected` at which a segment saturates at its brightest shadow-free orientation.
    """

    shape: tuple[int, int]
    pixel_size_m: float
    working_distance_m: float
    current_a: float
    dwell_time_s: float
    frame_time_s: float
    primaries: float
    primaries_per_nm2: float
    emitted: float | None
    detected: float
    segments: tuple[SegmentPlan, ...]
    noise: SlopeNoise
    noise_by_tilt: tuple[SlopeNoise, ...]
    shadow_free_tilt_deg: float | None
    vision_field_per_relief: float | None
    saturating_dose: float | None
    feature: FeatureNoise | None
    unknown: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()


def plan(
    instrument: Instrument,
    feature: Feature | None = None,
    shape: tuple[int, int] = (512, 512),
    dose: float | None = None,
) -> Plan:
    """What a frame will show (forward_model.md, Planner). `dose`: detected electrons per pixel on a level specimen,
    summed over the segments; the dwell time follows from it, and where radii are unknown, the captured fraction.
    Raises `BadInput` for lengths that fit neither pixel nor frame, a dose that is no positive number, and as
    `pixel_signal` does."""
    if dose is not None and not 0 < dose < math.inf:
        raise BadInput(f"dose {dose:g} electrons per pixel must be a number above 0")
    if min(shape) < 2:
        raise BadInput(f"a frame of {shape[1]} x {shape[0]} pixels has no slopes: give at least 2 x 2")
    per_primary = None if dose is None else dose / primaries_per_pixel(instrument)
    pixel = pixel_signal(instrument, per_primary)
    if dose is not None and pixel.emitted is not None:
        longer = dose / float(pixel.response[:, 2].sum())
        instrument = instrument.with_scan(dwell_time_s=longer * instrument.beam.dwell_time_s)
    if feature is not None and feature.terrace_m > min(np.multiply(shape, pixel_sides_m(instrument)[::-1])):
        raise BadInput(f"a terrace of {length(feature.terrace_m)} is wider than the frame: take more or larger pixels")

    def evaluate(changed: Instrument) -> Plan:
        return _evaluate(changed, pixel_signal(changed, per_primary), feature, shape)

    made = evaluate(instrument)
    return replace(made, advice=_advice(instrument, made, evaluate))


def _evaluate(instrument: Instrument, pixel: PixelSignal, feature: Feature | None, shape: tuple[int, int]) -> Plan:
    beam, primaries = instrument.beam, primaries_per_pixel(instrument)
    width_m, height_m = pixel_sides_m(instrument)
    limit_deg, known = math.degrees(math.atan(pixel.steepest)), pixel.captured is not None
    tilts_deg = [*np.arange(0.0, limit_deg, TILT_STEP_DEG).tolist(), limit_deg]
    segments = _segments(instrument, pixel)
    detected = sum(segment.electrons for segment in segments)
    room = [one.saturating_electrons / one.brightest_electrons for one in segments if one.saturating_electrons]
    made = Plan(
        shape=shape,
        pixel_size_m=width_m,
        working_distance_m=instrument.detector.working_distance_m,
        current_a=beam.current_a,
        dwell_time_s=beam.dwell_time_s,
        frame_time_s=shape[0] * shape[1] * beam.dwell_time_s + shape[0] * LINE_FLYBACK_S,
        primaries=primaries,
        primaries_per_nm2=primaries / (width_m * height_m * 1e18),
        emitted=pixel.emitted,
        detected=detected,
        segments=segments,
        noise=slope_noise(pixel),
        noise_by_tilt=tuple(slope_noise(pixel, tilt_deg) for tilt_deg in tilts_deg),
        shadow_free_tilt_deg=limit_deg if known else None,
        vision_field_per_relief=1.0 / pixel.steepest if known else None,
        saturating_dose=detected * min(room) if len(room) == len(segments) else None,
        feature=None if feature is None else feature_noise(pixel, feature, instrument),
        unknown=_unknown(instrument, pixel),
    )
    return replace(made, warnings=_warnings(made, instrument))


def _segments(instrument: Instrument, pixel: PixelSignal) -> tuple[SegmentPlan, ...]:
    tilts = np.linspace(0.0, math.atan(pixel.steepest), ORIENTATION_STEPS)[:, None]
    brightest = pixel.electrons(np.tan(tilts) * np.cos(AZIMUTHS_RAD), np.tan(tilts) * np.sin(AZIMUTHS_RAD))
    found = zip(pixel.electrons(*pixel.mean_plane).tolist(), brightest.max(axis=(0, 1)).tolist(), strict=True)
    captured = None if pixel.captured is None else pixel.captured.tolist()
    return tuple(
        _segment(segment, captured and captured[index], *electrons)
        for index, (segment, electrons) in enumerate(zip(instrument.detector.segments, found, strict=True))
    )


def _segment(segment: Segment, captured: float | None, electrons: float, brightest: float) -> SegmentPlan:
    gain, dark = segment.gain_counts_per_electron, segment.dark_counts
    if gain is None or dark is None:
        return SegmentPlan(segment.name, captured, electrons, brightest, None, None, None)
    half = 0.5 * SATURATION_SIGMAS
    saturating = (math.sqrt(half**2 + max(FULL_SCALE_COUNTS - dark, 0.0) / gain) - half) ** 2
    level, bright = gain * electrons + dark, gain * brightest + dark
    return SegmentPlan(segment.name, captured, electrons, brightest, level, bright, saturating)


def _warnings(made: Plan, instrument: Instrument) -> tuple[str, ...]:
    told, feature = [], made.feature
    for planned, segment in zip(made.segments, instrument.detector.segments, strict=True):
        gain, brightest = segment.gain_counts_per_electron, planned.brightest_electrons
        if planned.saturating_electrons is not None and brightest > planned.saturating_electrons:
            room = max(FULL_SCALE_COUNTS - (segment.dark_counts or 0.0), 0.0)
            most = room / (brightest + SATURATION_SIGMAS * math.sqrt(brightest))
            dwell_us = 1e6 * made.dwell_time_s * planned.saturating_electrons / brightest
            told.append(
                f"segment {segment.name} saturates at its brightest orientation ({planned.brightest_counts:.0f} of "
                f"{FULL_SCALE_COUNTS:.0f} counts): lower its gain to {most:.3g} counts per electron, or the dwell time "
                f"to {dwell_us:.3g} µs and average frames"
            )
        if gain is not None and gain * math.sqrt(planned.electrons) < FINEST_NOISE_COUNTS:
            told.append(
                f"segment {segment.name} rounds its noise away at {gain:g} counts per electron: raise its gain above "
                f"{FINEST_NOISE_COUNTS / math.sqrt(planned.electrons):.3g}"
            )
    if feature is None:
        return tuple(told)
    rise = feature.step_m / min(pixel_sides_m(instrument))
    if made.vision_field_per_relief is not None and rise * made.vision_field_per_relief > 1.0:
        told.append(f"the step rises {rise:.2g} pixels: if sharp it shades its foot; go for a longer working distance")
    longer = feature.dwell_time_needed_s / made.dwell_time_s
    if made.saturating_dose is not None and made.detected < made.saturating_dose < made.detected * longer:
        told.append(f"a dwell time of {1e6 * feature.dwell_time_needed_s:.3g} µs saturates: average frames instead")
    return tuple(told)


def _unknown(instrument: Instrument, pixel: PixelSignal) -> tuple[str, ...]:
    told, segments = [], instrument.detector.segments
    if pixel.captured is None:
        told.append("captured fraction, shadow-free tilt and what the working distance does: segments have no radii")
        told.append("tilt of the specimen as a whole: by modulation only, a frame is shown level on average")
    if any(segment.gain_counts_per_electron is None for segment in segments):
        told.append("noise of rounding to counts: segments have no gain_counts_per_electron")
    if any(segment.gain_counts_per_electron is None or segment.dark_counts is None for segment in segments):
        told.append("saturation: segments need gain_counts_per_electron and dark_counts")
    return tuple(told)


def _advice(instrument: Instrument, made: Plan, evaluate: Callable[[Instrument], Plan]) -> tuple[Advice, ...]:
    """The changes that are open, the largest gain at equal time first."""
    distance_m, found = made.working_distance_m, []
    for factor in SHORTER_DISTANCES if made.shadow_free_tilt_deg is not None else ():
        tilt_deg = math.degrees(math.atan(factor / (made.vision_field_per_relief or 1.0)))
        if tilt_deg >= LEAST_TILT_DEG and tilt_deg > made.noise.tilt_deg:
            after = evaluate(instrument.with_scan(working_distance_m=factor * distance_m))
            change = f"working distance {1e3 * distance_m:.3g} to {1e3 * factor * distance_m:.3g} mm"
            cost = f"shadow-free tilt {made.shadow_free_tilt_deg:.0f} to {tilt_deg:.0f}°, less room below the detector"
            found.append(_judged(change, cost, made, after, 1))
    after = evaluate(instrument.with_scan(dwell_time_s=2.0 * made.dwell_time_s))
    found.append(_judged("dwell time × 2", "time and dose", made, after, 1))
    after = evaluate(instrument.with_scan(current_a=2.0 * made.current_a))
    found.append(_judged("current × 2", "dose, and a wider probe", made, after, 1))
    found.append(_judged("average 4 frames", "time and dose; drift between frames must be taken out", made, made, 4))
    return tuple(sorted(found, key=lambda one: -one.gain))


def _judged(change: str, cost: str, before: Plan, after: Plan, frames: int) -> Advice:
    noise_ratio = after.noise.slope_noise / before.noise.slope_noise / math.sqrt(frames)
    time_s = frames * after.frame_time_s
    gain, dose_ratio = (
        math.sqrt(before.frame_time_s / time_s) / noise_ratio,
        frames * after.primaries / before.primaries,
    )
    if len(after.warnings) > len(before.warnings):
        cost += f"; then {after.warnings[0]}"
    return Advice(change, cost, noise_ratio, gain, time_s, dose_ratio, after.shadow_free_tilt_deg)
