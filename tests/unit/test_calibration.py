"""What a calibration takes from the instrument file, and what it finds in the frame where the file is silent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from inference.calibration import calibrate, flat_levels, noise_gain
from inference.forward_model import linear_response, render

Floats = NDArray[np.float64]

AZIMUTHS_RAD = np.radians([208.0, 89.4, 333.5])
MODULATIONS = np.array([1.38, 1.47, 1.32])
FLAT_COUNTS = np.array([22_000.0, 20_000.0, 25_000.0])
SIDE = 360


def modulated(**segment: Any) -> Instrument:
    segments = [
        {
            "name": name,
            "azimuth_from_deg": centre - 60,
            "azimuth_to_deg": centre + 60,
            "modulation": modulation,
            **segment,
        }
        for name, centre, modulation in zip("ABC", np.degrees(AZIMUTHS_RAD), MODULATIONS, strict=True)
    ]
    return parse_instrument({"detector": {"segments": segments}}, "the test's instrument")


def modulated_images(p: Floats, q: Floats, flat_counts: Floats = FLAT_COUNTS) -> NDArray[np.uint16]:
    """(3, H, W): what segments of known modulation see of a surface with these slopes."""
    length = np.sqrt(1 + p**2 + q**2)
    toward = [-p / length * np.cos(a) + q / length * np.sin(a) for a in AZIMUTHS_RAD]
    counts = [flat * (1 + m * t) for flat, m, t in zip(flat_counts, MODULATIONS, toward, strict=True)]
    return np.rint(np.clip(counts, 0, 65535)).astype(np.uint16)


def false_tilt_deg(levels: Floats) -> float:
    """The tilt that flat levels give to a specimen that is flat."""
    directions = MODULATIONS[:, None] * np.stack([np.cos(AZIMUTHS_RAD), -np.sin(AZIMUTHS_RAD)], axis=1)
    x, y, brightness = np.linalg.solve(np.column_stack([directions, np.ones(3)]), FLAT_COUNTS / levels)
    return float(np.degrees(np.hypot(x, y) / brightness))


def without_digitiser() -> Instrument:
    tree = four_quadrant().model_dump()
    for segment in tree["detector"]["segments"]:
        segment["gain_counts_per_electron"] = segment["dark_counts"] = None
    return parse_instrument(tree, "the test's instrument")


def test_a_complete_instrument_file_leaves_nothing_to_estimate() -> None:
    instrument = four_quadrant()
    calibration = calibrate(instrument, np.zeros((4, 8, 8), np.uint16))
    assert calibration.estimated == ()
    assert calibration.flat_share == 1.0
    linear = linear_response(instrument)
    np.testing.assert_allclose(calibration.response, linear / linear[:, 2].sum(), rtol=1e-6)
    np.testing.assert_allclose(calibration.inversion @ calibration.response, np.eye(3), atol=1e-5)


def test_what_the_instrument_file_leaves_open_is_named() -> None:
    images = render(np.zeros((64, 64)), four_quadrant(), np.random.default_rng(0))
    named = " ".join(calibrate(without_digitiser(), images).estimated)
    assert "gain_counts_per_electron" in named and "dark_counts" in named


@pytest.mark.parametrize("instrument", [four_quadrant(), modulated()])
def test_a_turned_detector_turns_the_response_as_seen_in_the_image(instrument: Instrument) -> None:
    tree = instrument.model_dump()
    tree["detector"]["rotation_deg"] = 30.0
    images = np.full((len(instrument.detector.segments), 8, 8), 1000, np.uint16)
    straight = calibrate(instrument, images).response
    turned = calibrate(parse_instrument(tree, "turned"), images).response
    expected = np.exp(1j * np.radians(30)) * (straight[:, 0] - 1j * straight[:, 1])
    np.testing.assert_allclose(turned[:, 0] - 1j * turned[:, 1], expected, atol=2e-4)


@settings(deadline=None, max_examples=25)
@given(
    period=st.sampled_from([6, 12, 20, 24, 36, 40, 60]),
    steep_share=st.floats(0.2, 0.5),
    angle_deg=st.floats(2, 12),
    upright=st.booleans(),
)
def test_gratings_of_any_asymmetry_are_shown_level(
    period: int, steep_share: float, angle_deg: float, upright: bool
) -> None:
    """No pixel of a sawtooth is flat, and most of them lean to one side; only its mean slope is zero."""
    steep = max(1, round(period * steep_share))
    tooth = np.full(period, np.tan(np.radians(angle_deg)))
    tooth[:steep] *= -(period - steep) / steep
    along = np.broadcast_to(np.tile(tooth, SIDE // period), (SIDE, SIDE))
    slopes = (along, np.zeros_like(along))
    p, q = (slope.T for slope in slopes[::-1]) if upright else slopes
    assert false_tilt_deg(flat_levels(modulated_images(p, q), AZIMUTHS_RAD, MODULATIONS)) < 0.2


def test_a_flat_majority_with_a_deep_pit_is_shown_level() -> None:
    x = np.linspace(-3, 3, SIDE)
    p = np.where(np.hypot(x[:, None], x) < 1, np.sign(x) * 0.4, 0.0)
    levels = flat_levels(modulated_images(p, np.zeros_like(p)), AZIMUTHS_RAD, MODULATIONS)
    assert false_tilt_deg(levels) < 0.1


def test_a_segment_twice_as_bright_has_twice_the_flat_level() -> None:
    p = np.random.default_rng(1).normal(0, 0.1, (90, 90))
    images = modulated_images(p, p.T)
    levels = flat_levels(images, AZIMUTHS_RAD, MODULATIONS)
    brighter = flat_levels(images * np.array([1, 2, 1], np.uint16)[:, None, None], AZIMUTHS_RAD, MODULATIONS)
    np.testing.assert_allclose(brighter / levels, [1, 2, 1], rtol=1e-3)


@pytest.mark.parametrize("relief_m", [0.0, 40e-9])
def test_gain_is_found_in_the_noise_of_one_frame(relief_m: float) -> None:
    instrument = four_quadrant()
    y, x = np.mgrid[:256, :256] / 15.0
    images = render(relief_m * np.sin(x) * np.cos(y), instrument, np.random.default_rng(2), dose=8000)
    assert noise_gain(images, np.full(4, 200.0)) == pytest.approx(8.0, rel=0.1)


@pytest.mark.parametrize("level", [0, 1, 65535])
@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (2, 400)])
def test_frames_without_contrast_calibrate_to_finite_numbers(level: int, shape: tuple[int, int]) -> None:
    for instrument in (modulated(), without_digitiser()):
        images = np.full((len(instrument.detector.segments), *shape), level, np.uint16)
        calibration = calibrate(instrument, images)
        for values in (calibration.response, calibration.inversion, calibration.gain_counts_per_electron):
            assert np.isfinite(values).all()


def test_what_cannot_be_calibrated_is_refused_with_the_reason() -> None:
    with pytest.raises(BadInput, match="4 segments"):
        calibrate(four_quadrant(), np.zeros((3, 8, 8), np.uint16))
    with pytest.raises(BadInput, match="at least 2 x 2"):
        calibrate(four_quadrant(), np.zeros((4, 1, 8), np.uint16))
    tree = four_quadrant().model_dump()
    tree["detector"]["segments"][2].update(inner_radius_m=None, outer_radius_m=None, modulation=1.0)
    with pytest.raises(BadInput, match="radii and others only a modulation"):
        calibrate(parse_instrument(tree, "mixed"), np.zeros((4, 8, 8), np.uint16))
    tree = modulated().model_dump()
    for n, segment in enumerate(tree["detector"]["segments"]):
        segment.update(azimuth_from_deg=180.0 * n, azimuth_to_deg=180.0 * n + 90.0)
    with pytest.raises(BadInput, match="spread their azimuths"):
        calibrate(parse_instrument(tree, "in line"), np.full((3, 8, 8), 1000, np.uint16))
