"""The specimen's drift is found to a twentieth of a pixel, growth is not taken for it, and what is unknown is so
called; heights are compared only against a datum."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from skimage.registration import phase_cross_correlation

from acquisition.errors import BadInput
from inference.calibration import calibrate
from inference.metrology.drift import View, find_drift
from inference.metrology.height_map import HeightMap
from inference.metrology.volume import Levelling, Region, change, parse_region
from service.benchmarks.fusion import PIXEL_M, Scene, film
from surfaces_of_steps import as_map, straight_m

SIZE_PX = 128
DRIFT_PX = (1.37, -0.81)
DATUM = Region(4, 4, 24, 24)


def views(
    scene: Scene, dose: float = 600.0, frames: int = 3, heights: bool = True, size_px: int = SIZE_PX
) -> list[View]:
    """Heights are the truth."""
    return [
        View(
            number,
            float(number),
            frame.images,
            calibrate(instrument, frame.images),
            HeightMap(truth_m, PIXEL_M, PIXEL_M) if heights else None,
        )
        for number, (frame, instrument, truth_m) in enumerate(film(scene, size_px, dose, frames))
    ]


@pytest.fixture(scope="module")
def drifting() -> list[View]:
    return views(Scene("drift", "cu2o-spiral", drift_px=DRIFT_PX))


@pytest.mark.parametrize("dose", [600.0, 2500.0, 10000.0])
def test_drift_is_found_to_a_twentieth_of_a_pixel(dose: float) -> None:
    found = find_drift(views(Scene("drift", "oxide-islands", drift_px=DRIFT_PX), dose, 2))
    assert [drift.source for drift in found] == ["reference", "images"]
    assert found[1].drift_px == pytest.approx(DRIFT_PX, abs=0.05)


def test_phase_correlation_of_the_sum_image_finds_the_same(drifting: list[View]) -> None:
    first, last = (view.images.sum(axis=0).astype(float) for view in (drifting[0], drifting[2]))
    other = phase_cross_correlation(last, first, upsample_factor=50, normalization=None)[0]
    assert find_drift(drifting)[2].drift_px == pytest.approx(other, abs=0.3)


def test_growth_is_not_taken_for_drift() -> None:
    found = find_drift(views(Scene("growth", "cu2o-spiral", drift_px=DRIFT_PX, growth_m=60e-9), size_px=256))
    assert [drift.source for drift in found[1:]] == ["heights", "heights"]
    assert found[2].apart_px is not None and found[2].apart_px > 3.0
    assert found[2].drift_px == pytest.approx(2 * np.array(DRIFT_PX), abs=2.0)


def test_images_that_no_height_confirms_are_so_called() -> None:
    found = find_drift(views(Scene("drift", "oxide-islands", drift_px=DRIFT_PX), frames=2, heights=False))
    assert {drift.source for drift in found[1:]} == {"unchecked"}


def test_what_the_stage_moved_is_no_drift(drifting: list[View]) -> None:
    moved = [replace(view, stage_px=(1.37 * view.sequence, 0.0)) for view in drifting]
    assert find_drift(moved)[2].drift_px == pytest.approx((0.0, -1.62), abs=0.05)


def test_a_frame_that_shows_nothing_is_undetermined_and_interpolated(drifting: list[View]) -> None:
    blank = np.random.default_rng(1).poisson(1000.0, drifting[1].images.shape).astype(np.uint16)
    found = find_drift([drifting[0], replace(drifting[1], images=blank, map=None), drifting[2]])
    assert found[1].source == "undetermined"
    assert found[1].drift_px == pytest.approx(DRIFT_PX, abs=0.05)
    assert min(found[1].error_px) > 0.5


def test_the_reference_is_renewed_when_it_leaves_the_view() -> None:
    found = find_drift(views(Scene("far", "oxide-islands", drift_px=(0.3, 14.4)), frames=5))
    assert len({drift.reference for drift in found}) > 1
    assert found[4].drift_px == pytest.approx((1.2, 57.6), abs=0.1)


def test_a_declared_region_alone_tells_the_drift(drifting: list[View]) -> None:
    found = find_drift(drifting, Region(32, 32, 64, 64))
    assert found[2].source == "images"
    assert found[2].drift_px == pytest.approx(2 * np.array(DRIFT_PX), abs=0.1)


def test_growth_without_a_datum_is_refused() -> None:
    flat = as_map(np.zeros((64, 64)))
    with pytest.raises(BadInput, match="declare it with --reference"):
        change(flat, flat, 1.0, Levelling())


@pytest.mark.parametrize("dose", [600.0, 2500.0, 10000.0])
def test_volume_is_what_grew_beyond_the_datum_whatever_tilt_and_offset(dose: float) -> None:
    row, column = np.mgrid[:64, :64].astype(np.float64)
    island = np.where(np.hypot(row - 40, column - 40) < 15, 30e-9, 0.0)
    tilt = 1e-9 * row - 0.5e-9 * column + 4e-6
    found = change(as_map(0.0 * row, dose, 1), as_map(island + tilt, dose, 2), 10.0, Levelling((DATUM,)))
    assert abs(found.volume_m3 - island.sum() * 25e-18) < max(5 * found.volume_error_m3, 0.1 * island.sum() * 25e-18)
    assert found.rate_m_per_s[40, 40] == pytest.approx(3e-9, rel=0.3)


def test_terraces_are_levelled_alike_and_the_first_is_zero() -> None:
    row, column = np.mgrid[:96, :96].astype(np.float64)
    height = straight_m(96, 0.0) + 2e-9 * row - 1e-9 * column
    level = Levelling((Region(6, 4, 30, 60), Region(48, 4, 28, 60))).level(as_map(height)).height_m
    assert np.ptp(level[4:64, 6:36]) < 1e-12
    assert level[20, 20] - level[20, 60] == pytest.approx(20e-9, rel=1e-6)
    assert level[20, 20] == pytest.approx(0.0, abs=1e-15)


def test_a_region_out_of_view_is_refused_with_its_place() -> None:
    with pytest.raises(BadInput, match=r"lies at \(-6, 4\)"):
        DATUM.within((64, 64), (0.0, -10.0))
    with pytest.raises(BadInput, match="'1,2,3' is no region"):
        parse_region("1,2,3")


def test_unknown_at_the_end_has_no_error_bound(drifting: list[View]) -> None:
    blank = np.random.default_rng(1).poisson(1000.0, drifting[1].images.shape).astype(np.uint16)
    found = find_drift([*drifting[:2], replace(drifting[2], images=blank, map=None)])
    assert found[2].source == "undetermined" and math.isinf(found[2].error_px[0])
