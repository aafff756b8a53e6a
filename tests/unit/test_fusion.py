"""Fused frames are worth their dose, drift is found and taken out, and what moves is forgotten instead of smeared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.frames import Frame, Result
from acquisition.instrument import Instrument
from inference.accuracy import normals
from inference.calibration import calibrate
from inference.fused_pipeline import FusedPipeline
from inference.fusion.estimator import Fused, Fusion
from inference.fusion.resampling import resample
from inference.pipeline import Pipeline
from service.benchmarks.fusion import FRAMES, PIXEL_M, Scene, film

SIZE_PX = 96
DOSE = 600.0
STILL = Scene("still", "cu2o-spiral")
DRIFT_PX = (2.4, -1.7)

Floats = NDArray[np.float64]
Shots = list[tuple[Frame, Instrument, Floats]]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline("classical", "cpu", 1)


@pytest.fixture(scope="module")
def still() -> Shots:
    return list(film(STILL, SIZE_PX, DOSE, FRAMES))


@pytest.fixture(scope="module")
def drifting() -> Shots:
    return list(film(Scene("drift", "cu2o-spiral", drift_px=DRIFT_PX), SIZE_PX, DOSE, FRAMES))


def fuse(shots: Shots, most_frames: int = FRAMES) -> list[Fused]:
    fusion = Fusion(most_frames)
    return [
        fusion.add(frame.images, calibrate(instrument, frame.images), frame.header.optics)
        for frame, instrument, _ in shots
    ]


def fused_heights(pipeline: Pipeline, shots: Shots) -> Result:
    """Of the last frame: alone, and fused beside it."""
    fused = FusedPipeline(pipeline, FRAMES)
    return [fused.reconstruct_both(frame, instrument) for frame, instrument, _ in shots][-1]


def off_deg(height_m: NDArray[np.floating], truth_m: Floats) -> Floats:
    """(H - 1, W - 1) angle between the surfaces."""
    cosine = np.sum(normals(height_m, PIXEL_M) * normals(truth_m, PIXEL_M), axis=0)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def changed(shots: Shots, number: int, images: NDArray[np.uint16]) -> Shots:
    frame, instrument, truth_m = shots[number]
    return [*shots[:number], (Frame(frame.header, images), instrument, truth_m), *shots[number + 1 :]]


def test_sixteen_still_frames_act_like_sixteen_times_the_dose(pipeline: Pipeline, still: Shots) -> None:
    fused = fused_heights(pipeline, still)
    bright, instrument, truth_m = next(film(STILL, SIZE_PX, FRAMES * DOSE, 1))
    at_once = pipeline.reconstruct(bright, instrument)
    errors = [rms(off_deg(height_m, truth_m)) for height_m in (fused.layers["fused_height"], at_once.height_m)]
    assert errors[0] < 1.1 * errors[1]
    assert errors[0] < 0.75 * rms(off_deg(fused.height_m, truth_m))


def test_a_pixel_holds_the_frames_whose_noise_it_has(still: Shots) -> None:
    first, second = (fuse(shots)[-1] for shots in (still[:8], still[8:]))
    assert [np.median(fused.frames_held) for fused in (first, second)] == pytest.approx([8.0, 8.0], rel=0.1)
    expected = np.mean(1.0 / first.frames_held + 1.0 / second.frames_held)
    for number, segment in enumerate(still[0][1].detector.segments):
        gain, dark = segment.gain_counts_per_electron, segment.dark_counts
        assert gain is not None and dark is not None
        one, other = ((fused.images[number] - dark) / gain for fused in (first, second))
        assert np.var(one - other) / one.mean() == pytest.approx(expected, rel=0.1)
    assert fuse([*still, *still])[-1].frames_held.max() <= FRAMES * 1.001


def test_one_frame_alone_is_what_a_pipeline_without_memory_says(pipeline: Pipeline, still: Shots) -> None:
    frame, instrument, _ = still[0]
    fused, plain = (
        FusedPipeline(pipeline, FRAMES).reconstruct(frame, instrument),
        pipeline.reconstruct(frame, instrument),
    )
    np.testing.assert_array_equal(fused.height_m, plain.height_m)
    assert (fused.layers["frames_held"] == 1).all()


def test_drift_is_found_to_a_tenth_of_a_pixel(drifting: Shots) -> None:
    found = np.array([fused.drift_px for fused in fuse(drifting)[1:]])
    np.testing.assert_allclose(found, np.broadcast_to(DRIFT_PX, found.shape), atol=0.1)


def test_drifting_frames_fuse_as_well_as_still_ones(pipeline: Pipeline, still: Shots, drifting: Shots) -> None:
    errors = []
    for shots in (still, drifting):
        height_m, truth_m = fused_heights(pipeline, shots).layers["fused_height"], shots[-1][2]
        common = np.s_[40:-8, 8:-32]
        errors.append(rms(off_deg(height_m, truth_m)[common]) / rms(off_deg(height_m * 0, truth_m)[common]))
    assert errors[1] < 1.15 * errors[0]


def test_what_comes_into_view_holds_one_frame(drifting: Shots) -> None:
    *_, last = fuse(drifting)
    assert (last.frames_held[0] < 2).all() and (last.frames_held[:, -1] < 2).all()
    assert np.median(last.frames_held[50:-8, 8:-40]) > 0.9 * FRAMES


@pytest.mark.parametrize("scene", ["cu2o-spiral", "step-bunches"])
def test_moving_steps_are_no_worse_than_in_one_frame_and_the_rest_is_better(pipeline: Pipeline, scene: str) -> None:
    shots = list(film(Scene("growing", scene, growth_m=1.5 * PIXEL_M), 128, DOSE, 12))
    result, truth_m = fused_heights(pipeline, shots), shots[-1][2]
    moving = off_deg(shots[-2][2], truth_m) > 2.0
    fused, alone = (off_deg(height_m, truth_m) for height_m in (result.layers["fused_height"], result.height_m))
    assert moving.mean() > 0.03
    assert rms(fused[moving]) < rms(alone[moving])
    assert rms(fused[~moving]) < 0.6 * rms(alone[~moving])


def test_what_changes_at_once_is_the_new_frame_there_and_nowhere_else(still: Shots) -> None:
    images = still[-1][0].images.copy()
    images[:, 40:52, 30:42] = images[:, 40:52, 30:42] // 2
    last = fuse(changed(still, FRAMES - 1, images))[-1]
    inside = (slice(None), slice(42, 50), slice(32, 40))
    assert np.abs(last.images[inside].astype(float) - images[inside]).mean() < 0.02 * images[inside].mean()
    assert last.frames_held[42:50, 32:40].max() < 1.5
    assert np.median(last.frames_held[60:, 50:]) > 0.9 * FRAMES


def test_saturated_pixels_stay_saturated_and_poison_nothing(still: Shots) -> None:
    images = still[-2][0].images.copy()
    images[1, 20:24, 20:24] = 65535
    *_, flooded, after = fuse(changed(still, FRAMES - 2, images))
    assert (flooded.images[1, 20:24, 20:24] == 65535).all()
    assert (flooded.images == 65535).sum() == 16
    np.testing.assert_array_equal(after.images[:, 20:24, 20:24], still[-1][0].images[:, 20:24, 20:24])
    assert (after.frames_held[20:24, 20:24] == 1).all()


def test_saturated_pixels_do_not_spread_when_the_frame_is_interpolated(drifting: Shots) -> None:
    images = drifting[1][0].images.copy()
    images[:, 50, 50] = 65535
    fused = fuse(changed(drifting[:2], 1, images))[-1]
    assert fused.joined and (fused.images == 65535).sum() == len(images)
    assert fused.images[:, 46:55, 46:55].astype(float).sum() < 1.2 * images[:, 46:55, 46:55].astype(float).sum()


def test_another_shape_or_magnification_begins_anew(still: Shots) -> None:
    fusion, (frame, instrument, _) = Fusion(FRAMES), still[0]
    smaller = np.ascontiguousarray(frame.images[:, :80, :64])
    nearer = replace(frame.header.optics, pixel_size_m=0.5 * frame.header.optics.pixel_size_m)
    for images, optics in (
        (frame.images, frame.header.optics),
        (smaller, frame.header.optics),
        (frame.images, frame.header.optics),
        (frame.images, nearer),
    ):
        fused = fusion.add(images, calibrate(instrument, images), optics)
        assert not fused.joined and (fused.frames_held == 1).all()
        np.testing.assert_array_equal(fused.images, images)


def test_a_turned_up_amplifier_begins_anew_and_a_flickering_beam_does_not(still: Shots) -> None:
    dark = still[0][1].detector.segments[0].dark_counts
    assert dark is not None

    def brighter(by: float) -> Fused:
        images = np.rint((still[3][0].images - dark).clip(0) * by + dark).astype(np.uint16)
        return fuse(changed(still[:4], 3, images))[-1]

    assert not brighter(1.6).joined
    assert np.median(brighter(1.03).frames_held) > 3.9


def test_without_texture_nothing_is_shifted_by_noise() -> None:
    for fused in fuse(list(film(Scene("flat", "flat"), SIZE_PX, DOSE, 6))):
        assert not fused.joined and fused.drift_px == (0.0, 0.0)
        assert (fused.frames_held == 1).all()


def test_late_frames_and_other_runs_leave_the_estimate_alone(pipeline: Pipeline, still: Shots) -> None:
    fused = FusedPipeline(pipeline, FRAMES)
    (first, instrument, _), (second, _, _), (third, _, _) = still[:3]
    other = Frame(replace(first.header, run_id="earlier run"), first.images)
    held = [
        fused.reconstruct_both(frame, instrument).header.figures.get("frames_held")
        for frame in (first, third, second, other, Frame(replace(third.header, sequence=9), second.images))
    ]
    assert held == [1.0, pytest.approx(2.0), None, 1.0, pytest.approx(3.0)]


def test_interpolation_moves_a_wave_and_tells_what_it_does_to_noise() -> None:
    y, x = np.mgrid[:64, :70].astype(float)
    wave = np.cos(2 * np.pi * (x / 8 + y / 11))
    moved, _ = resample(wave[np.newaxis], (0.5, -0.25))
    expected = np.cos(2 * np.pi * ((x - 0.25) / 8 + (y + 0.5) / 11))
    assert np.abs(moved[0] - expected)[8:-8, 8:-8].max() < 0.02
    noise = np.random.default_rng(0).normal(size=(1, 300, 300))
    smoother, left = resample(noise, (0.5, -0.25))
    assert smoother.var() == pytest.approx(left, rel=0.03) and left < 0.8


@pytest.mark.parametrize("frames", [1, 5000])
def test_numbers_of_frames_that_cannot_be_are_refused(frames: int) -> None:
    with pytest.raises(BadInput, match=f"{frames} frames cannot be fused: ask for 2 to 1024"):
        Fusion(frames)
