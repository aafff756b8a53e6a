"""Whether uncertainty budgets cover: steps measured with an instrument file that is wrong by what it says it may be."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import CalibratedNumber, CalibrationRecord, Instrument, four_quadrant, parse_instrument
from inference.calibration import calibrate
from inference.metrology.budget import Circumstances, blur_of, step_budget
from inference.metrology.height_map import HeightMap
from inference.metrology.instrument_error import instrument_error, pixel_error
from inference.metrology.profiles import line_profile
from inference.metrology.step_fit import step_in_images
from inference.metrology.step_height import step_height
from inference.plain_inversion import electrons_of, integrated, slopes_of
from inference.training.frames import MARGIN_PX, SUBPIXELS, calibrated, digitised, expected_frame
from service.benchmarks.measured import Measured, tell_progress

DRAWS, QUICK_DRAWS = 60, 12
ROWS_PX, COLUMNS_PX, LINE_ROWS = 20, 72, 16
PIXEL_M, STEP_PX, FLANK_DEG, BEAM_SIGMA_PX = 10e-9, 3.0, 30.0, 0.8
DOSE, GAIN, DARK_COUNTS = 3000.0, 8.0, 300.0
SIGMAS: Mapping[str, float] = {
    "working_distance_m": 0.15e-3,
    "rotation_deg": 1.0,
    "offset_x_m": 0.05e-3,
    "offset_y_m": 0.05e-3,
}
GAIN_SHARE, DARK_SIGMA = 0.01, 10.0

Floats = NDArray[np.float64]


def budget_rows(model: str, quick: bool) -> Mapping[str, Measured]:
    """The share of steps whose error lies within the combined standard uncertainty of their budget."""
    tell_progress("uncertainty budgets")
    off = errors_over_sigma(QUICK_DRAWS if quick else DRAWS)
    told = (
        f"{len(off)} steps of {STEP_PX * PIXEL_M * 1e9:g} nm, each with its own gains, dark levels, working distance, "
        f"rotation, offset, pixel and noise at {DOSE:g} electrons a pixel; within two: "
        f"{100 * np.mean(np.abs(off) < 2):.0f} %, rms {np.sqrt(np.mean(off**2)):.2f} standard uncertainties"
    )
    return {"budget_covered_pct": Measured(100.0 * float(np.mean(np.abs(off) < 1)), told)}


def errors_over_sigma(draws: int, seed: int = 3) -> Floats:
    """(draws,) errors of step heights over their combined standard uncertainty. The file that measures is the same each
    time; the instrument that makes the frame differs from it by what the file's record states."""
    rng = np.random.default_rng(seed)
    stated = _stated()
    along = (np.arange(SUBPIXELS * (COLUMNS_PX + 2 * MARGIN_PX)) + 0.5) / SUBPIXELS - MARGIN_PX - 0.5 * COLUMNS_PX
    rise = STEP_PX * np.clip(along * math.tan(math.radians(FLANK_DEG)) / STEP_PX + 0.5, 0.0, 1.0)
    surface = np.broadcast_to(rise, (SUBPIXELS * (ROWS_PX + 2 * MARGIN_PX), len(along)))
    pixel_share, pixel_told = pixel_error(stated)
    found = []
    for _ in range(draws):
        true, gains, darks = _drawn(stated, rng)
        counts = digitised(expected_frame(surface, true, DOSE, BEAM_SIGMA_PX), gains, darks, rng)
        at = Circumstances(instrument_error(stated, counts), pixel_share, pixel_told, 0.0, "none")
        calibration = calibrate(stated, counts)
        electrons = electrons_of(counts, calibration)
        slopes = slopes_of(np.tensordot(calibration.inversion, electrons, 1), float(calibration.flat_share))
        seen = HeightMap(PIXEL_M * integrated(slopes), PIXEL_M, PIXEL_M)
        line = ((2.0, 0.5 * ROWS_PX - 0.5), (COLUMNS_PX - 3.0, 0.5 * ROWS_PX - 0.5))
        begun = step_height(line_profile(seen, line, LINE_ROWS))
        step = step_in_images(counts, calibration, seen, *line, LINE_ROWS, begun)
        budget = step_budget(step, (1.0, 0.0), blur_of(BEAM_SIGMA_PX), PIXEL_M, at)
        true_m = STEP_PX * PIXEL_M * (1.0 + pixel_share * rng.normal())
        found.append((budget.value - true_m) / budget.sigma)
    return np.array(found)


def _stated() -> Instrument:
    geometry = four_quadrant().with_scan(pixel_size_m=PIXEL_M)
    segments = len(geometry.detector.segments)
    instrument = calibrated(geometry, DOSE, BEAM_SIGMA_PX, [GAIN] * segments, [DARK_COUNTS] * segments)
    sigmas = dict(SIGMAS)
    for number in range(segments):
        sigmas |= {f"gain_counts_per_electron[{number}]": GAIN_SHARE * GAIN, f"dark_counts[{number}]": DARK_SIGMA}
    numbers = {
        name: CalibratedNumber(value=0.0, sigma=sigma, prior=0.0, prior_sigma=1.0, identifiable=True)
        for name, sigma in sigmas.items()
    }
    record = CalibrationRecord(version=1, date="", based_on="", runs={}, reduced_chi2={}, parameters=numbers)
    return instrument.model_copy(update={"calibration": record})


def _drawn(stated: Instrument, rng: np.random.Generator) -> tuple[Instrument, list[float], list[float]]:
    tree = stated.model_dump(exclude={"calibration"})
    for name, sigma in SIGMAS.items():
        tree["detector"][name] += sigma * rng.normal()
    segments = len(stated.detector.segments)
    gains = GAIN * (1.0 + GAIN_SHARE * rng.normal(size=segments))
    darks = DARK_COUNTS + DARK_SIGMA * rng.normal(size=segments)
    return parse_instrument(tree, "the drawn instrument"), gains.tolist(), darks.tolist()
