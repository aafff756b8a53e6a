"""Step heights from the images: without what edges take from a height map, whatever the tilt does to the yield."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant
from inference.calibration import Calibration, calibrate
from inference.metrology.height_map import HeightMap
from inference.metrology.profiles import line_profile
from inference.metrology.spirals import find_spirals
from inference.metrology.step_fit import step_in_images
from inference.metrology.step_height import StepHeight, step_height
from inference.metrology.steps import find_steps
from inference.metrology.steps_fit import fit_pitches, fit_steps
from inference.plain_inversion import electrons_of, integrated, slopes_of
from inference.training.frames import MARGIN_PX, SUBPIXELS, calibrated, digitised, expected_frame
from surfaces_of_steps import PIXEL_M as STEPS_PIXEL_M
from surfaces_of_steps import STEP_M, TERRACE_M, stairs_m

ROWS, COLUMNS, BEAM_PX, DOSE = 24, 80, 0.8, 20_000.0
PIXEL_M = 10e-9
RISE_PX, FLANK_DEG = 3.0, 30.0
LINE = ((2.0, 11.5), (COLUMNS - 3.0, 11.5))

Floats = NDArray[np.float64]
Seen = tuple[NDArray[np.uint16], Calibration, HeightMap]


def flank(at: Floats, edge: float, rise_px: float = RISE_PX) -> Floats:
    return np.asarray(rise_px * np.clip((at - edge) * math.tan(math.radians(FLANK_DEG)) / RISE_PX + 0.5, 0.0, 1.0))


def frame_of(shape: Callable[[Floats], Floats], seed: int = 0, **effects: float) -> Seen:
    """Images of a surface that changes along x alone, their calibration, and the height from difference over sum."""
    along = (np.arange(SUBPIXELS * (COLUMNS + 2 * MARGIN_PX)) + 0.5) / SUBPIXELS - MARGIN_PX - 0.5
    surface = np.broadcast_to(shape(along), (SUBPIXELS * (ROWS + 2 * MARGIN_PX), len(along)))
    return seen(surface, four_quadrant().with_scan(pixel_size_m=PIXEL_M), seed, **effects)


def seen(surface_px: Floats, geometry: Instrument, seed: int, **effects: float) -> Seen:
    gains, darks = [4.0] * 4, [200.0] * 4
    stated = calibrated(geometry, DOSE, BEAM_PX, gains, darks)
    true = stated.model_copy(update={"effects": stated.effects.model_copy(update=effects)})
    counts = digitised(expected_frame(surface_px, true, DOSE, BEAM_PX), gains, darks, np.random.default_rng(seed))
    calibration = calibrate(stated, counts)
    moments = np.tensordot(calibration.inversion.astype(np.float64), electrons_of(counts, calibration), 1)
    heights_px = integrated(slopes_of(moments, float(calibration.flat_share)))
    pixel_m = geometry.scan.pixel_size_m
    return counts, calibration, HeightMap(pixel_m * heights_px, pixel_m, pixel_m)


def both(frame: Seen) -> tuple[StepHeight, StepHeight]:
    """From the images and from the height map."""
    images, calibration, surface = frame
    on_map = step_height(line_profile(surface, LINE, 17))
    return step_in_images(images, calibration, surface, *LINE, 17, on_map), on_map


@pytest.mark.parametrize("effects", [{}, {"tilt_yield_exponent": 1.67}], ids=["one yield", "copper's yield by tilt"])
def test_a_step_in_the_images_is_as_high_as_it_is(effects: dict[str, float]) -> None:
    found, on_map = both(frame_of(lambda x: flank(x, 40.3), **effects))
    true_m = RISE_PX * PIXEL_M
    assert (found.method, on_map.method) == ("images", "height map")
    # Edges make a map's step lower, and a brighter flank higher.
    assert bool(effects) or on_map.height_m < 0.99 * true_m
    assert found.height_m == pytest.approx(true_m, rel=0.01)
    assert abs(found.height_m - true_m) < 3.0 * found.sigma_m < 0.05 * true_m
    assert found.edges_m == pytest.approx((38.3 * PIXEL_M,), abs=0.1 * PIXEL_M)


def test_a_fall_on_tilted_terraces_is_measured_over_their_slope() -> None:
    found, _ = both(frame_of(lambda x: 0.05 * x - flank(x, 40.3), seed=1))
    # Beside a ground of this slope the flank falls less steeply, so that it begins and ends elsewhere, by as much.
    assert found.height_m == pytest.approx(-RISE_PX * PIXEL_M, rel=0.015)
    assert found.slope == pytest.approx(0.05, abs=0.005)


def test_a_groove_is_the_mean_of_both_its_flanks() -> None:
    found, on_map = both(frame_of(lambda x: flank(x, 54.2) - flank(x, 26.4), seed=2))
    assert len(found.edges_m) == len(found.flank_slopes) == 2
    assert found.height_m == pytest.approx(-RISE_PX * PIXEL_M, rel=0.01)
    assert abs(on_map.height_m) < abs(found.height_m)


def test_a_round_hill_is_no_step_in_the_images() -> None:
    frame = frame_of(lambda x: flank(x, 40.3) + 4.0 * np.exp(-0.5 * ((x - 62.0) / 4.0) ** 2), seed=3)
    images, calibration, surface = frame
    begun = step_height(line_profile(surface, LINE, 17), edges_m=(38.3 * PIXEL_M,))
    with pytest.raises(BadInput, match="don't explain the images"):
        step_in_images(images, calibration, surface, *LINE, 17, begun)


def test_a_spirals_pitch_comes_from_the_images_of_its_whole_arm() -> None:
    at_m = STEPS_PIXEL_M * ((np.arange(SUBPIXELS * (128 + 2 * MARGIN_PX)) + 0.5) / SUBPIXELS - MARGIN_PX - 64.0)
    turn = np.arctan2(at_m[:, None], at_m) / (2 * math.pi)
    surface_m = stairs_m(turn - np.hypot(at_m[:, None], at_m) / TERRACE_M) - STEP_M * turn
    geometry = four_quadrant().with_scan(pixel_size_m=STEPS_PIXEL_M)
    images, calibration, surface = seen(surface_m / STEPS_PIXEL_M, geometry, 4)
    steps = find_steps(surface)
    (core,) = find_spirals(surface, steps)
    (told,) = fit_pitches([core], steps, images, calibration)
    assert (core.pitch_from, told.pitch_from) == ("height map", "images")
    assert core.pitch_m < 0.98 * STEP_M
    assert told.pitch_m == pytest.approx(STEP_M, rel=0.02)
    with pytest.raises(BadInput, match="it takes 200"):
        fit_steps(steps, images, calibration, near_px=(0.0, 0.0), within_m=STEPS_PIXEL_M)
