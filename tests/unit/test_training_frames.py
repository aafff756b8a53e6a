"""Simulated frames agree with their truth, whatever instrument sees them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import shift

from acquisition.instrument import four_quadrant
from inference.calibration import calibrate
from inference.forward_model import expected_electrons
from inference.training.frames import (
    EXPOSURES,
    GEOMETRIES,
    GROUP,
    MARGIN_PX,
    SUBPIXELS,
    Conditions,
    Sample,
    calibration_of,
    expected_frame,
    geometry_of_pool,
    group_of_stream,
    make_sample,
    pixel_means,
    sample_stream,
)
from inference.training.surfaces.canvas import rms_slope

Floats = NDArray[np.float64]

BRIGHT = Conditions(doses=(4e6, 4e6), widest_beam_px=0.0, overexposed_share=0.0, geometry=four_quadrant())


def measured_slopes(sample: Sample) -> tuple[Floats, Floats, Floats]:
    """p and q at the pixels by the calibrated linear inversion, and the standard deviation of p from photon noise."""
    known = calibration_of(sample)
    gain, dark = known.gain_counts_per_electron[:, None, None], known.dark_counts[:, None, None]
    electrons = (sample.images - dark.astype(np.float64)) / gain
    x, y, brightness = np.einsum("cs,shw->chw", known.inversion, electrons)
    p = -x / brightness
    weights = known.inversion[0][:, None, None] + p * known.inversion[2][:, None, None]
    return p, -y / brightness, np.sqrt((weights**2 * np.maximum(electrons, 1)).sum(axis=0)) / brightness


def smooth_samples(conditions: Conditions, count: int) -> Iterator[Sample]:
    """Hills that are neither occluded nor bent within a pixel."""
    for seed in range(100):
        sample = make_sample(np.random.default_rng(seed), 64, "hills", conditions)
        q, p = np.gradient(sample.height)
        bend = max(float(np.abs(np.diff(p, axis=1)).max()), float(np.abs(np.diff(q, axis=0)).max()))
        if bend < 0.03 and rms_slope(sample.height) > 0.01 and float(np.hypot(p, q).max()) < 0.9:
            yield sample
            count -= 1
            if count == 0:
                return


def inner(values: NDArray[np.floating]) -> Floats:
    return np.asarray(values[3:-3, 3:-3], np.float64)


def test_images_invert_to_the_slopes_of_the_truth_within_noise() -> None:
    conditions = Conditions(doses=(3e4, 3e4), widest_beam_px=0.0, overexposed_share=0.0)
    chi2 = []
    for sample in smooth_samples(conditions, 5):
        p, _, sigma = measured_slopes(sample)
        along_x: Floats = np.gradient(sample.height.astype(np.float64), axis=1)
        chi2.append(float(np.mean(inner((p - along_x) / sigma) ** 2)))
    assert len(chi2) == 5
    np.testing.assert_allclose(chi2, 1.0, atol=0.12)


def offset_px(measured: tuple[Floats, Floats], truth: NDArray[np.floating]) -> tuple[float, float]:
    """By how many pixels (right, down) the measured slope maps lie off the truth's: where the match is best."""
    towards, off = [], []
    for slopes, axis in zip(measured, (1, 0), strict=True):
        true: Floats = np.gradient(np.asarray(truth, np.float64), axis=axis)
        bends = [inner(np.asarray(np.gradient(true, axis=along))).ravel() for along in (1, 0)]
        towards.append(-np.stack(bends, axis=1))
        off.append(inner(slopes - true).ravel())
    found, *_ = np.linalg.lstsq(np.concatenate(towards), np.concatenate(off), rcond=None)
    return float(found[0]), float(found[1])


def test_truth_is_not_shifted_against_the_images() -> None:
    sample = next(smooth_samples(BRIGHT, 1))
    p, q, _ = measured_slopes(sample)
    np.testing.assert_allclose(offset_px((p, q), sample.height), 0.0, atol=0.02)
    half_right = shift(sample.height.astype(np.float64), (0, -0.5), order=3, mode="nearest")
    np.testing.assert_allclose(offset_px((p, q), half_right), (0.5, 0.0), atol=0.05)


def test_mean_over_subpixels_leaves_out_the_margin() -> None:
    count = SUBPIXELS * (6 + 2 * MARGIN_PX)
    places = (np.arange(count, dtype=np.float32) + 0.5) / SUBPIXELS - MARGIN_PX
    np.testing.assert_allclose(pixel_means(np.tile(places, (count, 1)))[0], np.arange(6) + 0.5, atol=1e-5)


def test_the_beam_dims_a_wave_as_a_gaussian_of_its_width_in_frame_pixels() -> None:
    period, sigma = 8.0, 1.2
    count = SUBPIXELS * (32 + 2 * MARGIN_PX)
    along = np.arange(count) / SUBPIXELS
    surface = np.tile(0.1 * np.sin(2 * math.pi * along / period), (count, 1))
    sharp, blurred = (expected_frame(surface, four_quadrant(), 1000.0, px) for px in (0.0, sigma))
    transfer = np.ptp(blurred[0, 16]) / np.ptp(sharp[0, 16])
    assert transfer == pytest.approx(math.exp(-2 * (math.pi * sigma / period) ** 2), rel=0.01)


def test_relief_beyond_the_frame_casts_its_shadow_into_it() -> None:
    count = SUBPIXELS * (16 + 2 * MARGIN_PX)
    wall = np.zeros((count, count))
    wall[:, : SUBPIXELS * (MARGIN_PX - 2)] = 12.0
    frame = expected_frame(wall, four_quadrant(), 1000.0)
    left, right = frame[2, 8], frame[0, 8]
    assert left[0] < 0.5 * left[-1] and right[0] == pytest.approx(right[-1], rel=0.01)


@pytest.mark.parametrize("number", range(3))
def test_the_instrument_of_a_sample_states_its_dose_and_its_digitiser(number: int) -> None:
    sample = make_sample(np.random.default_rng(number), 64, "flat")
    level = expected_electrons(np.zeros((3, 3)), sample.instrument)
    assert float(level.sum(axis=0).mean()) == pytest.approx(sample.dose, rel=1e-3)
    gains = np.array([segment.gain_counts_per_electron for segment in sample.instrument.detector.segments])
    darks = np.array([segment.dark_counts for segment in sample.instrument.detector.segments])
    assert len(set(gains)) == len(gains) and len(set(darks)) == len(darks)
    seen = ((sample.images - darks[:, None, None]) / gains[:, None, None]).mean(axis=(1, 2)).sum()
    assert seen == pytest.approx(sample.dose, rel=0.1)


def test_a_mismatch_changes_what_the_instrument_states_and_not_the_images() -> None:
    true, off = (
        make_sample(np.random.default_rng(4), 32, "hills", Conditions(mismatch=mismatch, geometry=four_quadrant()))
        for mismatch in (0.0, 0.02)
    )
    np.testing.assert_array_equal(true.images, off.images)
    gains = [
        np.array([segment.gain_counts_per_electron for segment in sample.instrument.detector.segments])
        for sample in (true, off)
    ]
    errors = np.abs(gains[1] / gains[0] - 1)
    assert 0.001 < errors.max() < 0.1


def test_calibration_of_a_sample_is_that_of_its_instrument() -> None:
    sample = make_sample(np.random.default_rng(5), 32, "hills")
    ours, theirs = calibration_of(sample), calibrate(sample.instrument, sample.images)
    assert ours.calibration_hash == theirs.calibration_hash and ours.estimated == theirs.estimated == ()
    for field in ("response", "inversion", "gain_counts_per_electron", "dark_counts", "pixel_size_m"):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), rtol=1e-6, atol=1e-7)


def test_some_frames_are_overexposed_and_most_are_not() -> None:
    conditions = Conditions(geometry=four_quadrant())
    full = [
        bool((make_sample(np.random.default_rng(seed), 16, "nanograins", conditions).images == 65535).any())
        for seed in range(400)
    ]
    assert 0.005 < np.mean(full) < 0.1


def test_doses_run_over_the_whole_range() -> None:
    conditions = Conditions(geometry=four_quadrant())
    doses = [make_sample(np.random.default_rng(seed), 4, "flat", conditions).dose for seed in range(60)]
    assert 50 <= min(doses) < 200 and 25_000 < max(doses) <= 100_000


def test_the_pool_has_three_to_eight_segments_and_four_half_of_the_time() -> None:
    counts = [len(geometry_of_pool(number).detector.segments) for number in range(GEOMETRIES)]
    assert set(counts) == {3, 4, 5, 6, 7, 8}
    assert counts.count(4) == GEOMETRIES // 2
    distances_m = [geometry_of_pool(number).detector.working_distance_m for number in range(GEOMETRIES)]
    assert 4e-3 <= min(distances_m) < 5e-3 and 14e-3 < max(distances_m) <= 15e-3


def test_a_stream_can_be_resumed_at_any_sample() -> None:
    whole = list(islice(sample_stream(7, 16), 4))
    resumed = next(sample_stream(7, 16, start=3))
    np.testing.assert_array_equal(resumed.images, whole[3].images)
    np.testing.assert_array_equal(resumed.height, whole[3].height)
    assert resumed.instrument == whole[3].instrument
    assert len({sample.images.tobytes() for sample in whole}) == 4


def test_samples_of_a_group_share_their_segments_and_another_seed_gives_others() -> None:
    group = list(group_of_stream(7, 0, 16))
    first, last = group[0], group[-1]
    assert len(group) == GROUP
    assert len(first.images) == len(last.images)
    assert first.instrument.detector.working_distance_m == last.instrument.detector.working_distance_m
    other = next(group_of_stream(8, 0, 16))
    assert other.height.tobytes() != first.height.tobytes()


def test_a_surface_is_exposed_again_at_another_dose() -> None:
    group = list(group_of_stream(7, 0, 16))
    first, again = group[0], group[GROUP // EXPOSURES]
    np.testing.assert_array_equal(first.height, again.height)
    assert first.dose != again.dose and first.images.tobytes() != again.images.tobytes()
    assert len({sample.height.tobytes() for sample in group}) == GROUP // EXPOSURES
