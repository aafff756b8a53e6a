"""Steps, facets, step flow and the sides of crystals at three doses: what is measured against what was simulated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant
from inference.calibration import Calibration, calibrate
from inference.metrology.directions import in_plane_directions
from inference.metrology.facet_angle import facet_angle
from inference.metrology.facet_fit import facets_along
from inference.metrology.height_map import FrameMap, HeightMap
from inference.metrology.kymograph import kymograph, step_motion
from inference.metrology.profiles import line_profile
from inference.metrology.step_fit import step_in_images
from inference.metrology.step_height import StepHeight, step_height
from inference.pipeline import Pipeline
from inference.training.frames import MARGIN_PX, SUBPIXELS, calibrated, digitised, expected_frame
from service.benchmarks.frames import frame_of
from service.benchmarks.measured import Measured, tell_progress

DOSES, QUICK_DOSES = (600.0, 3000.0, 10000.0), (3000.0,)
SIZE_PX, PIXEL_M, BEAM_SIGMA_PX = 160, 10e-9, 0.7
FLAT_COUNTS, DARK_COUNTS = 8000.0, 300.0
STEP_PX, FLANK_DEG, WIDTH_PX = 2.0, 25.0, 15
STEP_FRAMES, NOISY_STEP_FRAMES, NOISY_DOSE = 10, 40, 1000.0
FACETS, FACET_ROWS, FRAMES, SPEED_PX, TERRACE_PX = 12, 65, 24, 0.6, 48.0
SECOND_NS = 1_000_000_000

Floats = NDArray[np.float64]
ALONG = (np.arange(SUBPIXELS * (SIZE_PX + 2 * MARGIN_PX)) + 0.5) / SUBPIXELS - MARGIN_PX - 0.5 * SIZE_PX
"""Pixels from the middle of the frame, on the grid on which frames are simulated."""


def shape_rows(model: str, quick: bool) -> Mapping[str, Measured]:
    """All rows by name; `quick` measures one dose."""
    pipeline = Pipeline(model)
    rows: dict[str, Measured] = {}
    for dose in QUICK_DOSES if quick else DOSES:
        tell_progress(f"steps, facets, step flow and sides at {dose:g} electrons a pixel")
        rows |= {
            **_step(pipeline, dose),
            **_facet(pipeline, dose),
            **_velocity(pipeline, dose),
            **_sides(pipeline, dose),
        }
    return rows


def _step(pipeline: Pipeline, dose: float) -> dict[str, Measured]:
    """Heights of one straight step, over bands that do not touch, as `eclips measure` has them: from the
    images, beside the same from the height map."""
    flank_px = STEP_PX / math.tan(math.radians(FLANK_DEG))
    surface = np.broadcast_to(STEP_PX * np.clip(ALONG / flank_px + 0.5, 0.0, 1.0), (len(ALONG),) * 2)
    frames = NOISY_STEP_FRAMES if dose < NOISY_DOSE else STEP_FRAMES
    found = [pair for seen in _views(pipeline, surface, dose, frames) for pair in _step_heights(seen)]
    told_m = np.array([step.sigma_m for step, _ in found])
    errors_pct, map_errors_pct = (_errors_pct([pair[place].height_m for pair in found]) for place in (0, 1))
    within = np.abs(errors_pct) <= 100.0 * told_m / (STEP_PX * PIXEL_M)
    refused = sum(step.method != "images" for step, _ in found)
    bias, spread = float(errors_pct.mean()), float(np.std(errors_pct, ddof=1))
    map_bias, map_spread = float(map_errors_pct.mean()), float(np.std(map_errors_pct, ddof=1))
    conditions = (
        f"{STEP_PX * PIXEL_M * 1e9:g} nm, flank {FLANK_DEG:g}°, {len(found)} profiles of {WIDTH_PX} pixels, images "
        f"({refused} refused)"
    )
    told_pct = 100.0 * math.sqrt(float(np.mean(told_m**2))) / (STEP_PX * PIXEL_M)
    return {
        f"step_height_bias_n{dose:.0f}_pct": Measured(
            abs(bias),
            f"{conditions}; {bias:+.2g} ± {spread / math.sqrt(len(found)):.1g} %",
            "height map",
            abs(map_bias),
        ),
        f"step_height_spread_n{dose:.0f}_pct": Measured(
            spread, f"{conditions}; told {told_pct:.2g} %", "height map", map_spread
        ),
        f"step_height_covered_n{dose:.0f}_pct": Measured(
            100.0 * float(within.mean()), f"{conditions}; share of the errors within one told standard error"
        ),
    }


def _step_heights(seen: View) -> list[tuple[StepHeight, StepHeight]]:
    """From the images, or from heights where these do not tell; and from heights."""
    found = []
    for row in range(WIDTH_PX, SIZE_PX - WIDTH_PX, 2 * WIDTH_PX):
        line = ((8.0, float(row)), (SIZE_PX - 9.0, float(row)))
        on_map = step_height(line_profile(seen.map, line, WIDTH_PX))
        try:
            in_images = step_in_images(seen.images, seen.calibration, seen.map, *line, WIDTH_PX, on_map)
        except BadInput:
            in_images = on_map
        found.append((in_images, on_map))
    return found


def _errors_pct(heights_m: list[float]) -> Floats:
    return np.asarray(100.0 * (np.array(heights_m) / (STEP_PX * PIXEL_M) - 1.0), np.float64)


def _facet(pipeline: Pipeline, dose: float) -> dict[str, Measured]:
    """Inclinations of facets 8 to 30 pixels wide, of 10 to 45 degrees between flat ground and top, along one line
    across them as an operator draws it: from the images, beside those of the height map."""
    rng, errors, map_errors, told, refused = np.random.default_rng(1), [], [], [], 0
    for number in range(FACETS):
        angle_deg, width_px = rng.uniform(10.0, 45.0), rng.uniform(8.0, 30.0)
        from_px = -0.5 * width_px + rng.uniform(-0.5, 0.5)
        surface = math.tan(math.radians(angle_deg)) * np.clip(ALONG - from_px, 0.0, width_px)
        (seen,) = _views(pipeline, np.broadcast_to(surface, (len(ALONG),) * 2), dose, 1, seed=number)
        line = ((8.0, 0.5 * SIZE_PX), (SIZE_PX - 9.0, 0.5 * SIZE_PX))
        foot_px = from_px + 0.5 * SIZE_PX - 0.5 - 8.0
        on_map = facet_angle(line_profile(seen.map, line, FACET_ROWS), foot_px * PIXEL_M, width_px * PIXEL_M)
        map_errors.append(on_map.external_deg - (180.0 - angle_deg))
        try:
            found = facets_along(seen.images, seen.calibration, seen.map, *line, FACET_ROWS)
        except BadInput:
            refused += 1
            continue
        foot = int(np.argmin(np.abs(found.edges_px - foot_px)))
        errors.append(found.external_deg[foot] - (180.0 - angle_deg))
        told.append(found.external_sigma_deg[foot])
    conditions = (
        f"rms of {len(errors)} of {FACETS} facets of 10 to 45°, 8 to 30 pixels wide, {FACET_ROWS} pixels beside the "
        f"line, images ({refused} refused); median {np.median(errors):+.2g}°, told "
        f"{np.sqrt(np.mean(np.square(told))):.2g}°"
    )
    name = f"facet_angle_error_n{dose:.0f}_deg"
    return {name: Measured(_rms(errors), conditions, "height map, edge stated", _rms(map_errors))}


def _velocity(pipeline: Pipeline, dose: float) -> dict[str, Measured]:
    """A step in a train of steps that moves by a fraction of a pixel from frame to frame."""
    flank_px = STEP_PX / math.tan(math.radians(FLANK_DEG))
    frames = []
    for number in range(FRAMES):
        turns = (ALONG - SPEED_PX * number) / TERRACE_PX
        stairs = np.floor(turns) + np.clip((turns - np.floor(turns)) * TERRACE_PX / flank_px, 0.0, 1.0)
        (seen,) = _maps(pipeline, np.broadcast_to(-STEP_PX * stairs, (len(ALONG),) * 2), dose, 1, seed=number)
        frames.append(FrameMap(number, 0, number * SECOND_NS, seen, {}))
    errors, told = [], []
    for row in range(WIDTH_PX, SIZE_PX - WIDTH_PX, 2 * WIDTH_PX):
        profiles = kymograph(frames, [(8.0, row), (SIZE_PX - 9.0, row)], WIDTH_PX)
        found = step_motion(profiles, (0.5 * SIZE_PX - 8.0) * PIXEL_M, 16.0 * PIXEL_M)
        errors.append(100.0 * (found.velocity_m_per_s / (SPEED_PX * PIXEL_M) - 1.0))
        told.append(100.0 * found.sigma_m_per_s / (SPEED_PX * PIXEL_M))
    conditions = f"rms of {len(errors)} profiles through {FRAMES} frames, {SPEED_PX:g} pixels a frame, start stated"
    told_pct = np.sqrt(np.mean(np.square(told)))
    return {f"step_velocity_error_n{dose:.0f}_pct": Measured(_rms(errors), f"{conditions}; told {told_pct:.2g} %")}


def _sides(pipeline: Pipeline, dose: float) -> dict[str, Measured]:
    """Angles at which the sides of a square and an octagon meet, inclined by 45 degrees, turned by a drawn angle."""
    rng, errors = np.random.default_rng(2), []
    for sides in (4, 8, 4, 8):
        turns = rng.uniform(0.0, 2.0 * math.pi) + np.arange(sides) * 2.0 * math.pi / sides
        out = np.max([np.cos(turn) * ALONG - np.sin(turn) * ALONG[:, None] for turn in turns], axis=0)
        (seen,) = _maps(pipeline, np.clip(0.36 * SIZE_PX - out, 0.0, 10.0), dose, 1, seed=sides)
        met = in_plane_directions(seen, steeper_deg=25.0).meetings
        if len(met) != sides:
            raise BadInput(f"{len(met)} of {sides} sides were found at {dose:g} electrons a pixel")
        errors += [one.angle_deg - (180.0 - 360.0 / sides) for one in met]
    conditions = f"rms of {len(errors)} angles of squares (90°) and octagons (135°), sides 10 pixels wide"
    return {f"in_plane_angle_error_n{dose:.0f}_deg": Measured(_rms(errors), conditions)}


@dataclass(frozen=True, slots=True)
class View:
    """One frame as a user has it: its images with their calibration, and its heights."""

    images: NDArray[np.uint16]
    calibration: Calibration
    map: HeightMap


def _maps(pipeline: Pipeline, surface_px: Floats, dose: float, count: int, seed: int = 0) -> list[HeightMap]:
    return [view.map for view in _views(pipeline, surface_px, dose, count, seed)]


def _views(pipeline: Pipeline, surface_px: Floats, dose: float, count: int, seed: int = 0) -> list[View]:
    """`count` frames of a surface in units of the pixel, on the grid of `ALONG`."""
    geometry = four_quadrant().with_scan(pixel_size_m=PIXEL_M)
    segments = len(geometry.detector.segments)
    gains, darks = [FLAT_COUNTS * segments / dose] * segments, [DARK_COUNTS] * segments
    instrument = calibrated(geometry, dose, BEAM_SIGMA_PX, gains, darks)
    mean = expected_frame(surface_px, instrument, dose, BEAM_SIGMA_PX)
    rng, views = np.random.default_rng([seed, round(dose)]), []
    for _ in range(count):
        counts = digitised(mean, gains, darks, rng)
        height_m = pipeline.reconstruct(frame_of(counts, instrument, "metrology"), instrument).height_m
        map = HeightMap(height_m.astype(np.float64), PIXEL_M, PIXEL_M)
        views.append(View(counts, calibrate(instrument, counts), map))
    return views


def _rms(errors: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))
