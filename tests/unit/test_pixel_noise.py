"""The noise that the planner foretells, against frames rendered and inverted as the product inverts them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.instrument import Instrument, Segment, four_quadrant, parse_instrument
from inference.calibration import Calibration, calibrate
from inference.forward_model import expected_electrons, linear_response, render
from inference.planner import Feature, plan

Floats = NDArray[np.float64]

SIDE = 48
FRAMES = 50
PIXEL_M = 5.0e-9


def with_segments(**changes: Any) -> Instrument:
    tree = four_quadrant().model_dump()
    for segment in tree["detector"]["segments"]:
        segment.update(changes)
    return parse_instrument(tree, "the test's instrument")


def with_part(part: str, **changes: Any) -> Instrument:
    tree = four_quadrant().model_dump()
    tree[part].update(changes)
    return parse_instrument(tree, "the test's instrument")


def ring(segments: int, working_distance_m: float = 8e-3) -> Instrument:
    """An annulus cut into equal segments."""
    width = 360.0 / segments
    parts = [
        Segment(
            name=f"S{n}",
            inner_radius_m=1.5e-3,
            outer_radius_m=6e-3,
            azimuth_from_deg=10 + n * width,
            azimuth_to_deg=10 + (n + 1) * width,
            gain_counts_per_electron=8.0,
            dark_counts=200.0,
        ).model_dump()
        for n in range(segments)
    ]
    tree = {"detector": {"working_distance_m": working_distance_m, "segments": parts}}
    return parse_instrument(tree, "the test's instrument")


def modulated(**changes: Any) -> Instrument:
    parts = [
        {"name": name, "azimuth_from_deg": centre - 60, "azimuth_to_deg": centre + 60, "modulation": 1.4, **changes}
        for name, centre in (("A", 208.0), ("B", 89.4), ("C", 333.5))
    ]
    return parse_instrument({"detector": {"segments": parts}}, "the test's instrument")


def plane(tilt_deg: float, azimuth_deg: float = 0.0) -> Floats:
    row, column = np.mgrid[:SIDE, :SIDE]
    rise = PIXEL_M * math.tan(math.radians(tilt_deg))
    along = math.cos(math.radians(azimuth_deg)), -math.sin(math.radians(azimuth_deg))
    return np.asarray(rise * (along[0] * column + along[1] * row), np.float64)


def measured_slopes(images: NDArray[np.uint16], calibration: Calibration) -> tuple[Floats, Floats]:
    """Per-pixel slopes (H, W) by the product's linear inversion."""
    gain, dark = (
        np.asarray(values, np.float64)[:, None, None]
        for values in (calibration.gain_counts_per_electron, calibration.dark_counts)
    )
    x, y, z = np.einsum("cs,shw->chw", calibration.inversion.astype(np.float64), (images - dark) / gain)
    return -x / z, -y / z


def simulated_slopes(heights_m: Floats, instrument: Instrument, dose: float | None = None) -> Floats:
    """(FRAMES, 2, H, W) slopes of frames of different seeds."""
    calibration = calibrate(instrument, np.zeros((len(instrument.detector.segments), 2, 2), np.uint16))
    frames = (render(heights_m, instrument, np.random.default_rng(seed), dose) for seed in range(FRAMES))
    return np.stack([measured_slopes(images, calibration) for images in frames])


def scatter(slopes: Floats) -> float:
    """sqrt(var p + var q) over frames and pixels."""
    return float(np.sqrt(slopes.var(axis=0, ddof=1).mean(axis=(1, 2)).sum()))


@pytest.mark.parametrize(
    ("instrument", "dose"),
    [(four_quadrant(), None), (ring(4, 5e-3), 3000.0), (ring(3), 10_000.0), (ring(3, 12e-3), 1500.0)],
    ids=["4 segments, 8 mm", "4 segments, 5 mm", "3 segments, 8 mm", "3 segments, 12 mm"],
)
def test_predicted_slope_noise_is_the_scatter_of_simulated_frames(instrument: Instrument, dose: float | None) -> None:
    made = plan(instrument, dose=dose)
    by_tilt = {round(noise.tilt_deg): noise.slope_noise for noise in made.noise_by_tilt}
    assert scatter(simulated_slopes(plane(0.0), instrument, dose)) == pytest.approx(made.noise.slope_noise, rel=0.05)
    assert scatter(simulated_slopes(plane(20.0, 80.0), instrument, dose)) == pytest.approx(by_tilt[20], rel=0.05)


def test_rounding_to_coarse_counts_is_part_of_the_noise() -> None:
    fine, coarse = with_segments(gain_counts_per_electron=8.0), with_segments(gain_counts_per_electron=0.012)
    finely, coarsely = (plan(one, dose=10_000.0).noise.slope_noise for one in (fine, coarse))
    assert coarsely > 1.08 * finely
    assert scatter(simulated_slopes(plane(0.0), coarse, 10_000.0)) == pytest.approx(coarsely, rel=0.05)


def test_normal_noise_is_the_rms_angle_between_measured_and_true_normals() -> None:
    """At 100 electrons, where angles are well below what the slopes' noise alone would say."""
    calibration = calibrate(four_quadrant(), np.zeros((4, 2, 2), np.uint16))
    images = render(np.zeros((300, 300)), four_quadrant(), np.random.default_rng(0), 100.0)
    angles_deg = np.degrees(np.arctan(np.hypot(*measured_slopes(images, calibration))))
    noise = plan(four_quadrant(), dose=100.0).noise
    assert np.sqrt(np.mean(angles_deg**2)) == pytest.approx(noise.normal_noise_deg, rel=0.02)
    assert noise.normal_noise_deg < 0.92 * noise.slope_noise_deg


@pytest.mark.parametrize(("dose", "expected_deg"), [(100.0, 23.0), (1000.0, 8.0), (10_000.0, 2.55)])
def test_normal_noise_is_what_the_design_says_a_dose_allows(dose: float, expected_deg: float) -> None:
    assert plan(four_quadrant(), dose=dose).noise.normal_noise_deg == pytest.approx(expected_deg, rel=0.01)


@pytest.mark.parametrize(("distance_mm", "expected_deg"), [(4, 1.95), (6, 3.07), (8, 4.56), (12, 8.77)])
def test_slope_noise_is_what_the_design_says_of_working_distances(distance_mm: float, expected_deg: float) -> None:
    """10 000 emitted electrons on a detector without gaps; those of 0.2 mm add 0.8 %."""
    once = plan(ring(4, 1e-3 * distance_mm))
    assert once.emitted is not None
    made = plan(ring(4, 1e-3 * distance_mm), dose=once.detected * 1e4 / once.emitted)
    assert made.noise.slope_noise_deg == pytest.approx(expected_deg, rel=3e-3)


def test_step_noise_is_the_scatter_of_steps_summed_from_middle_to_middle() -> None:
    """A row of 400 squares of one terrace's width, the step in the middle of each."""
    instrument, side = four_quadrant(), 24
    heights_m = np.zeros((400 * side, side))
    heights_m[:, side // 2 :] = 2e-9
    calibration = calibrate(instrument, np.zeros((4, 2, 2), np.uint16))
    p, _ = measured_slopes(render(heights_m, instrument, np.random.default_rng(3)), calibration)
    steps_m = PIXEL_M * p.sum(axis=1).reshape(400, side).mean(axis=1)
    noise = plan(instrument, Feature(side * PIXEL_M, 2e-9)).feature
    assert noise is not None
    assert steps_m.std() == pytest.approx(noise.step_noise_m, rel=0.1)
    assert steps_m.mean() == pytest.approx(noise.signal_kept * noise.step_m, rel=0.05)


def test_beam_and_tail_take_their_share_of_a_step() -> None:
    instrument = with_part("beam", sigma_px=4.0, tail_fraction=0.3, tail_sigma_m=100e-9)
    heights_m = np.zeros((16, 320))
    heights_m[:, 160:] = 0.5e-9
    electrons = expected_electrons(heights_m, instrument).astype(np.float64)
    x, _, z = np.einsum("cs,shw->chw", np.linalg.pinv(linear_response(instrument)), electrons)
    seen_m = PIXEL_M * (-x / z)[8, 150:170].sum()
    noise = plan(instrument, Feature(20 * PIXEL_M, 0.5e-9)).feature
    assert noise is not None and noise.signal_kept < 0.85
    assert seen_m == pytest.approx(noise.signal_kept * 0.5e-9, rel=0.01)


def test_segments_without_radii_scatter_as_their_modulation_says() -> None:
    """Poisson electrons of the modulation's equation, inverted by the unit length of the normal."""
    made = plan(modulated(), dose=3000.0)
    electrons = np.random.default_rng(0).poisson(1000.0, (3, 40_000))
    frame = np.full((3, 2, 2), 1000, np.uint16)
    x, y, brightness = calibrate(modulated(), frame).inversion.astype(np.float64) @ electrons
    sines = np.hypot(x, y) / brightness
    p, q = (-n / brightness / np.sqrt(1 - sines**2) for n in (x, y))
    assert math.sqrt(p.var() + q.var()) == pytest.approx(made.noise.slope_noise, rel=0.02)
