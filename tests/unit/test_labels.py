"""A simulated frame and what a probe made of the same surface: labels that lie on the surface, where they can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import recordings
from acquisition.errors import BadInput
from acquisition.frames import Frame, checksum
from acquisition.instrument import four_quadrant
from inference.forward_model import expected_counts
from inference.metrology import labels as labels_module
from inference.metrology.comparison import compare
from inference.metrology.height_map import HeightMap
from inference.metrology.labels import Labels, correct, label, load_labels, save_labels
from inference.metrology.placement import Placement
from inference.metrology.probe import touched
from inference.pipeline import Pipeline
from probed import PIXEL_M, grains, probed, true_places
from service.commands.label import told

TIP_M, SHARP_M = 30e-9, 10e-9
SIDE = 96
PIXELS = (PIXEL_M, PIXEL_M)


@pytest.fixture(scope="module")
def seen() -> Frame:
    instrument = four_quadrant().with_scan(pixel_size_m=PIXEL_M)
    counts = expected_counts(grains(SIDE), instrument, 20_000.0)
    images = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
    header = replace(recordings.frame(0).header, shape=images.shape, xxh3=checksum(images))
    return Frame(header, images)


@pytest.fixture(scope="module")
def labels(seen: Frame) -> Labels:
    instrument = four_quadrant().with_scan(pixel_size_m=PIXEL_M)
    height_m = Pipeline("classical").reconstruct(seen, instrument).height_m.astype(float)
    afm = probed(grains(SIDE), TIP_M)
    return label(seen, HeightMap(height_m, PIXEL_M, PIXEL_M), afm, instrument, "of the map", TIP_M)


def off_px(placement: Placement) -> float:
    """By how much the frame is misplaced, rms in its pixels."""
    afm = probed(grains(SIDE), TIP_M)
    places = placement.places(HeightMap(grains(SIDE), *PIXELS), afm)
    rows, columns = (found - true for found, true in zip(places, true_places(SIDE, afm), strict=True))
    return float(np.sqrt(np.mean(rows**2 + columns**2))) * afm.pixel_size_m / PIXEL_M


def test_the_frame_is_found_on_the_map_to_a_tenth_of_a_pixel_and_what_is_told_is_true(labels: Labels) -> None:
    told_px = labels.placement.sigma_m(HeightMap(labels.height_m, *PIXELS)) / PIXEL_M
    assert off_px(labels.placement) < 0.1
    assert off_px(labels.placement) < 3.0 * told_px < 0.3
    assert any(f"misplaced by {told_px:.2f} pixels" in line for line in told(labels))


def test_a_tip_moves_the_place_unless_it_is_taken_out(labels: Labels) -> None:
    blunt = compare(HeightMap(grains(SIDE), *PIXELS), probed(grains(SIDE), TIP_M), TIP_M)
    assert off_px(labels.placement) < 0.5 * off_px(blunt.placement)


def test_a_place_that_is_not_known_to_a_part_of_a_pixel_gives_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "MOST_MISPLACED_PX", 1e-4)
    with pytest.raises(BadInput, match=r"known to 0\.\d\d pixels only, the limit for labels is 0\.0001: fuse more"):
        correct(HeightMap(grains(SIDE), *PIXELS), probed(grains(SIDE), TIP_M), TIP_M)


def test_labels_are_the_true_slopes_and_tip_correction_is_why(labels: Labels) -> None:
    known = labels.mask[:, 1:] & labels.mask[:, :-1]
    true, blunt = (np.diff(map_m, axis=1) / PIXEL_M for map_m in (grains(SIDE), touched(grains(SIDE), PIXELS, TIP_M)))
    left, before = (float(np.sqrt(np.mean((p - true)[where] ** 2))) for p, where in ((labels.p, known), (blunt, ...)))
    assert labels.mask.mean() > 0.3
    assert left < 0.6 * before


def test_what_no_tip_reaches_is_masked_even_where_the_frame_agrees() -> None:
    groove = np.where(np.abs(np.arange(128) - 64) < 4, -30e-9, 0.0)
    blunt = HeightMap(touched(grains(128) + groove, PIXELS, SHARP_M), *PIXELS)
    mask = correct(blunt, blunt, SHARP_M).mask[10:-10]
    assert mask[:, 62:67].mean() < 0.1 < 0.4 < mask.mean()


def test_borders_are_masked_and_masked_labels_are_zero(labels: Labels) -> None:
    assert not labels.mask[:4].any() and not labels.mask[:, -4:].any()
    assert not labels.height_m[~labels.mask].any()
    assert not labels.p[~(labels.mask[:, 1:] & labels.mask[:, :-1])].any()


def test_labels_come_back_as_they_were_written(labels: Labels, tmp_path: Path) -> None:
    save_labels(labels, tmp_path / "labels.npz")
    back = load_labels(tmp_path / "labels.npz")
    np.testing.assert_array_equal(back.height_m, labels.height_m)
    np.testing.assert_array_equal(back.images, labels.images)
    np.testing.assert_array_equal(back.q, labels.q)
    assert back.hashes == labels.hashes and back.tip_radius_m == TIP_M and back.tip_stated
    np.testing.assert_array_equal(back.placement.matrix_sigma, labels.placement.matrix_sigma)


def test_a_file_of_something_else_is_told_with_the_way_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", height_m=np.zeros((4, 4)))
    with pytest.raises(BadInput, match=r"other.npz holds no labels.*`eclips label`"):
        load_labels(tmp_path / "other.npz")


def test_a_map_of_another_place_is_refused() -> None:
    with pytest.raises(BadInput, match=r"do not fit each other|can be labelled"):
        strange = np.random.default_rng(0).normal(0, 1e-9, (96, 96))
        correct(HeightMap(grains(SIDE), PIXEL_M, PIXEL_M), HeightMap(strange, PIXEL_M, PIXEL_M), TIP_M)
