"""Simulated frames agree with their truth, and the held-out set stays what it is and out of training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import shift

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant
from inference.calibration import calibrate
from inference.forward_model import expected_electrons
from inference.training.frames import (
    GEOMETRIES,
    GROUP,
    MARGIN_PX,
    SUBPIXELS,
    Conditions,
    Sample,
    calibration_of,
    expected_frame,
    geometry_of_pool,
    group_key,
    make_sample,
    pixel_means,
    sample_key,
    sample_of_stream,
    sample_stream,
)
from inference.training.height_maps import fine_map, levelled, read_levelled_map
from inference.training.held_out import (
    DOSES,
    VERSION,
    across_facets_px,
    exposures,
    held_out_cases,
    held_out_key,
    held_out_scenes,
)
from inference.training.surfaces import FAMILIES
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
        chi2.append(float(np.mean(inner((p - np.gradient(sample.height, axis=1)) / sigma) ** 2)))
    assert len(chi2) == 5
    np.testing.assert_allclose(chi2, 1.0, atol=0.12)


def offset_px(measured: tuple[Floats, Floats], truth: NDArray[np.floating]) -> tuple[float, float]:
    """By how many pixels (right, down) the measured slope maps lie off the truth's: where the match is best."""
    towards, off = [], []
    for slopes, axis in zip(measured, (1, 0), strict=True):
        true = np.gradient(np.asarray(truth, np.float64), axis=axis)
        down, right = np.gradient(true)
        towards.append(np.stack([inner(-right).ravel(), inner(-down).ravel()], axis=1))
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
        for seed in range(80)
    ]
    assert 0.01 < np.mean(full) < 0.4


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
    first, last = (sample_of_stream(7, index, 16) for index in (0, GROUP - 1))
    assert len(first.images) == len(last.images)
    assert first.instrument.detector.working_distance_m == last.instrument.detector.working_distance_m
    other = sample_of_stream(8, 0, 16)
    assert other.height.tobytes() != first.height.tobytes()


@given(
    st.integers(0, 2**64), st.integers(0, 2**40), st.sampled_from([*FAMILIES, "facet", "afm"]), st.integers(0, 2**32)
)
def test_held_out_seeds_never_meet_training_seeds(seed: int, index: int, family: str, number: int) -> None:
    """Entropy is compared as the generator takes it, in words of 32 bits: the first word alone tells them apart."""
    held_out = np.random.SeedSequence(held_out_key(family, number, 600))
    for key in (sample_key(seed, index), group_key(seed, index)):
        assert key[0] != held_out_key(family, number)[0] and 0 < key[0] < 2**32
        training = np.random.SeedSequence(key)
        assert training.generate_state(8).tolist() != held_out.generate_state(8).tolist()


def test_the_quick_set_holds_every_family_and_special_case_and_is_part_of_the_whole() -> None:
    quick = {scene.name: scene for scene in held_out_scenes(quick=True)}
    assert {scene.family for scene in quick.values()} == {*FAMILIES, "facet", "chirp", "known_spectrum"}
    for scene in held_out_scenes():
        if scene.name in quick:
            np.testing.assert_array_equal(scene.surface, quick.pop(scene.name).surface)
    assert not quick


def test_the_held_out_set_is_the_one_of_its_version() -> None:
    """Deviations over first pixels and whole surfaces. Differs? Restore it, or raise VERSION: figures don't compare."""
    found: dict[str, list[float]] = {}
    for scene in held_out_scenes():
        found.setdefault(scene.family, []).extend((float(np.std(scene.surface[:8, :8])), float(np.std(scene.surface))))
    assert VERSION == 1
    assert {family: len(values) // 2 for family, values in found.items()} == {
        **dict.fromkeys(FAMILIES, 4),
        "facet": 24,
        "chirp": 2,
        "known_spectrum": 4,
    }
    assert {family: sum(values) for family, values in found.items()} == pytest.approx(HELD_OUT_V1, rel=1e-4)


HELD_OUT_V1: dict[str, float] = {}


def test_held_out_frames_come_at_every_dose_unsaturated_and_each_time_the_same() -> None:
    scene = next(scene for scene in held_out_scenes(quick=False) if scene.family == "hills")
    first, again = list(exposures(scene)), list(exposures(scene))
    assert [case.sample.dose for case in first] == list(DOSES)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.sample.images, same.sample.images)
        assert one.sample.images.max() < 65535 and one.sample.images.shape == (4, 256, 256)


def test_facets_have_the_angle_they_are_known_for() -> None:
    scene = next(scene for scene in held_out_scenes(quick=True) if scene.family == "facet")
    case = next(exposures(scene))
    across, known = across_facets_px(case), case.known
    q, p = np.gradient(case.sample.height)
    azimuth = math.radians(known["azimuth_deg"])
    rise = p * math.cos(azimuth) - q * math.sin(azimuth)
    for start, sign in ((0.0, 1.0), (0.5 * known["pitch_px"], -1.0)):
        on_facet = (across > start + 2) & (across < start + known["width_px"] - 2)
        np.testing.assert_allclose(rise[on_facet], sign * math.tan(math.radians(known["angle_deg"])), rtol=1e-3)


def test_known_spectra_have_the_slope_they_are_known_for() -> None:
    scenes = [scene for scene in held_out_scenes(quick=True) if scene.family == "known_spectrum"]
    for scene in scenes:
        slope = 2 * scene.known["deviation_px"] / scene.known["correlation_px"]
        assert rms_slope(scene.surface * SUBPIXELS) == pytest.approx(slope, rel=0.12)


def test_real_maps_are_levelled_and_seen_with_their_own_pixels(tmp_path: Path) -> None:
    row, column = np.mgrid[:100, :90]
    truth_m = 3e-9 * np.sin(column / 7) * np.sin(row / 9)
    lines = np.random.default_rng(0).normal(0, 2e-9, (100, 1))
    (tmp_path / "afm").mkdir()
    np.savez(tmp_path / "afm" / "hills.npz", height_m=truth_m + lines + 1e-9 * row, pixel_m=[2e-8, 2e-8])
    (scene,) = (scene for scene in held_out_scenes(tmp_path, quick=True) if scene.family == "afm")
    case = next(exposures(scene))
    assert case.sample.height.shape == (100 - 2 * MARGIN_PX, 90 - 2 * MARGIN_PX)
    assert case.sample.instrument.scan.pixel_size_m == 2e-8
    inside_m = truth_m[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    assert np.std(case.sample.height_m - inside_m) < 0.25 * np.std(inside_m)


def test_a_map_of_oblong_pixels_is_made_square() -> None:
    row, column = np.mgrid[:80, :80]
    fine = fine_map(1e-9 * row + 0.0 * column, (1e-9, 2e-9), 256)
    assert fine.shape == (SUBPIXELS * 40, SUBPIXELS * 80)
    np.testing.assert_allclose(np.diff(fine[4:-4], axis=0), 1 / SUBPIXELS, atol=1e-5)


def test_levelling_takes_lines_spikes_and_plane_and_leaves_relief() -> None:
    row, column = np.mgrid[:64, :64]
    relief = np.sin(column / 5.0) * np.cos(row / 6.0)
    spoilt = relief + 0.3 * row + np.random.default_rng(1).normal(0, 1, (64, 1))
    spoilt[20, 30] += 50.0
    assert np.abs(levelled(spoilt) - relief).max() < 0.6 and np.std(levelled(spoilt) - relief) < 0.2


def test_unusable_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no height maps"):
        next(case for case in held_out_cases(tmp_path, quick=True) if case.sample.family == "afm")
    np.savez(tmp_path / "small.npz", height_m=np.zeros((20, 20)), pixel_m=1e-9)
    with pytest.raises(BadInput, match="at least 56 x 56"):
        read_levelled_map(tmp_path / "small.npz")
    np.savez(tmp_path / "nameless.npz", heights=np.zeros((90, 90)))
    with pytest.raises(BadInput, match=r"nameless.npz cannot be read"):
        read_levelled_map(tmp_path / "nameless.npz")
