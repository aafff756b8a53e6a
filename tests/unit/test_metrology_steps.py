"""Step lines and spirals of known surfaces come back with their figures, at three doses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap
from inference.metrology.spirals import Track, find_spirals, join
from inference.metrology.step_advance import find_advance
from inference.metrology.steps import find_steps
from surfaces_of_steps import DOSES, PIXEL_M, RISER_M, STEP_M, TERRACE_M, as_map, spiral_m, straight_m

SIZE_PX = 160
CORE_PX = (83.0, 74.0)


@pytest.mark.parametrize("dose", DOSES)
def test_straight_steps_have_their_height_spacing_and_density(dose: float) -> None:
    found = find_steps(as_map(straight_m(SIZE_PX, 25.0), dose))
    assert found.height_m == pytest.approx(STEP_M, rel=0.03)
    assert found.spacing_m == pytest.approx(TERRACE_M, rel=0.03)
    assert found.density_per_m == pytest.approx(1.0 / TERRACE_M, rel=0.1)


def test_a_step_lies_in_the_middle_of_its_riser() -> None:
    found = find_steps(as_map(straight_m(SIZE_PX, 0.0)))
    places_m = np.concatenate([line.places_px[:, 1] for line in found.lines]) * PIXEL_M
    off_m = (places_m + 0.5 * RISER_M) % TERRACE_M
    assert np.minimum(off_m, TERRACE_M - off_m).max() < 0.1 * PIXEL_M


def test_normals_point_downhill_and_bulging_is_positive_curvature() -> None:
    row, column = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float64)
    radius_m = np.hypot(row - 80.0, column - 80.0) * PIXEL_M
    island = np.clip(250e-9 - radius_m, 0.0, STEP_M)
    (line,) = find_steps(as_map(island)).lines
    outwards = (line.places_px - 80.0) / np.hypot(*(line.places_px - 80.0).T)[:, None]
    assert line.closed
    assert np.sum(line.downhill * outwards, axis=1).min() > 0.98
    assert np.median(line.curvature_per_m) == pytest.approx(1.0 / 240e-9, rel=0.03)
    assert line.length_m == pytest.approx(2 * math.pi * 240e-9, rel=0.02)


@pytest.mark.parametrize("dose", DOSES)
def test_noise_alone_has_no_steps(dose: float) -> None:
    assert find_steps(as_map(np.zeros((SIZE_PX, SIZE_PX)), dose)).density_per_m < 2e5


@pytest.mark.parametrize("dose", DOSES)
def test_steps_advance_by_what_grew_whatever_the_drift(dose: float) -> None:
    first = find_steps(as_map(straight_m(SIZE_PX, 25.0)[:, 3:], dose, 1))
    second = find_steps(as_map(straight_m(SIZE_PX, 25.0, 45e-9)[:, :-3], dose, 2))
    assert find_advance(first, second, (0.0, 3.0)).mean_m == pytest.approx(45e-9, rel=0.03)


def test_steps_that_are_not_there_do_not_advance() -> None:
    flat, stepped = (find_steps(as_map(height)) for height in (np.zeros((64, 64)), straight_m(64, 0.0)))
    with pytest.raises(BadInput, match="nothing to see advance"):
        find_advance(flat, stepped)


def test_too_little_smoothing_is_refused() -> None:
    with pytest.raises(BadInput, match="1 or more"):
        find_steps(as_map(np.zeros((64, 64))), 0.5)


@pytest.mark.parametrize("dose", DOSES)
@pytest.mark.parametrize("sense", [1.0, -1.0])
def test_a_spiral_has_its_core_sense_pitch_and_spacing(dose: float, sense: float) -> None:
    map = as_map(spiral_m(SIZE_PX, CORE_PX, sense), dose)
    (found,) = find_spirals(map, find_steps(map))
    assert found.sense == ("counter-clockwise" if sense > 0 else "clockwise")
    assert found.place_px == pytest.approx(CORE_PX, abs=6.0)
    assert found.pitch_m == pytest.approx(STEP_M, rel=0.06)
    assert found.arm_spacing_m == pytest.approx(TERRACE_M, rel=0.06)


def test_a_spiral_seen_in_a_mirror_turns_the_other_way() -> None:
    height_m = spiral_m(SIZE_PX, CORE_PX, 1.0)
    senses = [find_spirals(as_map(one), find_steps(as_map(one)))[0].sense for one in (height_m, height_m[:, ::-1])]
    assert senses == ["counter-clockwise", "clockwise"]


def test_straight_steps_and_islands_are_no_spirals() -> None:
    row, column = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float64)
    cone = as_map(np.floor(-np.hypot(row - 80, column - 80) / 40.0) * STEP_M)
    straight = as_map(straight_m(SIZE_PX, 25.0), 600.0)
    assert [find_spirals(map, find_steps(map)) for map in (cone, straight)] == [[], []]


@pytest.mark.parametrize("sense", [1.0, -1.0])
def test_a_growing_spiral_keeps_its_identity_and_turns_at_its_rate(sense: float) -> None:
    tracks: list[Track] = []
    for number in range(5):
        shift_px = (2.0 * number, -1.0 * number)
        core_px = (CORE_PX[0] + shift_px[0], CORE_PX[1] + shift_px[1])
        map = as_map(spiral_m(SIZE_PX, core_px, sense, 45e-9 * number), 2500.0, number)
        join(tracks, number, 5.0 * number, find_spirals(map, find_steps(map)), shift_px, 20.0)
    (track,) = tracks
    rate, error = track.rotation_rad_per_s()
    assert len(track.seen) == 5
    assert track.place_px() == pytest.approx(CORE_PX, abs=2.5)
    assert rate == pytest.approx(sense * 2 * math.pi * 45e-9 / TERRACE_M / 5.0, rel=0.04)
    assert error < 0.05 * abs(rate)


def test_pixels_that_are_not_square_keep_distances() -> None:
    height_m = straight_m(SIZE_PX, 90.0)[::2]
    found = find_steps(HeightMap(height_m, PIXEL_M, 2 * PIXEL_M), 1.5)
    assert found.spacing_m == pytest.approx(TERRACE_M, rel=0.03)


def test_a_view_that_slipped_unseen_is_told_from_growth_where_steps_go_several_ways() -> None:
    slipped = find_steps(as_map(spiral_m(SIZE_PX, (85.0, 74.0), 1.0, 40e-9)))
    found = find_advance(find_steps(as_map(spiral_m(SIZE_PX, CORE_PX, 1.0))), slipped, (0.0, 0.0), (3.0, 3.0))
    assert found.mean_m == pytest.approx(40e-9, rel=0.02)
    assert found.slipped_m == pytest.approx((10e-9, 0.0), abs=1e-9)


def test_a_view_that_may_have_slipped_makes_steps_of_one_way_as_uncertain() -> None:
    first, second = (find_steps(as_map(straight_m(SIZE_PX, 0.0, grown_m), 600.0)) for grown_m in (0.0, 40e-9))
    assert find_advance(first, second, (0.0, 0.0), (1.0, 2.0)).error_m == pytest.approx(2 * PIXEL_M, rel=0.05)
