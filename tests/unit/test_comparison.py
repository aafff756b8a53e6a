"""A surface found again on the map that a probe made of it: turned, sheared, with lines, noise and a blunt tip."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, grey_dilation, map_coordinates

from acquisition.errors import BadInput
from inference.metrology.comparison import Comparison, compare
from inference.metrology.cross_section import compare_cut, read_section
from inference.metrology.height_map import HeightMap
from inference.metrology.probe import bluntest_tip, touched

PIXEL_M, AFM_PIXEL_M = 5e-9, 6e-9
TURN_DEG, SHIFT_M = 23.0, np.array([40e-9, -25e-9])
MATRIX = (
    1.03
    * np.array(
        [
            [math.cos(math.radians(TURN_DEG)), -math.sin(math.radians(TURN_DEG))],
            [math.sin(math.radians(TURN_DEG)), math.cos(math.radians(TURN_DEG))],
        ]
    )
    @ np.array([[1.0, 0.02], [0.0, 1.0]])
)
TIP_M = 15e-9


def hills(seed: int = 3, side: int = 160) -> np.ndarray:
    """Facets of different heights and directions."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] * PIXEL_M
    height = np.zeros((side, side))
    for _ in range(14):
        at, direction = rng.uniform(0, side * PIXEL_M, 2), rng.uniform(0, math.pi)
        u = (x - at[0]) * math.cos(direction) + (y - at[1]) * math.sin(direction)
        v = (y - at[1]) * math.cos(direction) - (x - at[0]) * math.sin(direction)
        tall = rng.uniform(20e-9, 60e-9)
        height = np.maximum(height, tall - 0.4 * np.maximum(abs(u), rng.uniform(0.5, 1.0) * abs(v)))
    return gaussian_filter(height, 1.0)


def probed(height_m: np.ndarray, tip_m: float = TIP_M) -> np.ndarray:
    """As an AFM sees it, with a blunt tip, on its own pixels and turned by `MATRIX`, its lines jumping."""
    half = np.arange(-8, 9) * PIXEL_M
    blunt = grey_dilation(height_m, structure=-(half[:, None] ** 2 + half**2) / (2 * tip_m), mode="nearest")
    side = 132
    middle = (np.arange(side) - 0.5 * (side - 1)) * AFM_PIXEL_M
    points = np.stack(np.meshgrid(middle, middle)).reshape(2, -1) - SHIFT_M[:, None]
    x_m, y_m = np.linalg.inv(MATRIX) @ points
    centre = 0.5 * (len(height_m) - 1)
    places = (y_m / PIXEL_M + centre, x_m / PIXEL_M + centre)
    rng = np.random.default_rng(5)
    there = map_coordinates(blunt, places, order=1, mode="mirror").reshape(side, side)
    tilt = 2e-10 * np.arange(side)
    return there + rng.normal(0, 1e-9, (side, 1)) + rng.normal(0, 0.5e-9, there.shape) + tilt[:, None]


@pytest.fixture(scope="module")
def found() -> Comparison:
    afm = HeightMap(probed(hills()), AFM_PIXEL_M, AFM_PIXEL_M)
    return compare(HeightMap(hills() + 3e-10 * np.arange(160), PIXEL_M, PIXEL_M), afm)


def test_the_place_is_found_within_a_third_of_a_pixel(found: Comparison) -> None:
    corners = 0.35 * 160 * PIXEL_M * np.array([[1, 1, -1, -1], [1, -1, 1, -1]])
    off_m = (found.placement.matrix - MATRIX) @ corners + (found.placement.shift_m - SHIFT_M)[:, None]
    assert np.hypot(*off_m).max() < 0.3 * PIXEL_M
    assert found.placement.rotation_deg == pytest.approx(TURN_DEG, abs=0.2)
    assert found.placement.scale == (pytest.approx(1.03, abs=2e-3), pytest.approx(1.03, abs=2e-3))
    assert found.placement.shear_deg == pytest.approx(math.degrees(math.atan(0.02)), abs=0.2)


def test_the_inverse_placement_leads_back(found: Comparison) -> None:
    there = found.placement.matrix @ np.array([40e-9, -70e-9]) + found.placement.shift_m
    back = found.placement.inverse()
    np.testing.assert_allclose(back.matrix @ there + back.shift_m, [40e-9, -70e-9], rtol=1e-9)


def test_what_is_left_is_the_tip_and_the_noise_and_no_lines(found: Comparison) -> None:
    assert found.rms_m < 0.12 * found.relief_m
    lines = np.nanmedian(found.difference_m, axis=1)
    assert np.nanstd(lines) < 0.2e-9
    assert found.probe.line_offset_m == pytest.approx(math.sqrt(2) * 1e-9, rel=0.3)
    assert found.probe.noise_m == pytest.approx(0.5e-9, rel=0.4)
    assert "blind estimate" in found.probe.statement()


def test_the_same_facets_meet_at_the_same_angles(found: Comparison) -> None:
    assert found.angles is not None
    assert found.angles.turn_deg > 10.0
    assert abs(found.angles.deviation_deg) < 2.0


def test_a_flattened_frame_shows_in_the_angles_and_in_the_height_ratio() -> None:
    flat = HeightMap(0.8 * hills(), PIXEL_M, PIXEL_M)
    told = compare(flat, HeightMap(hills(), PIXEL_M, PIXEL_M), TIP_M)
    assert told.placement.height_ratio == pytest.approx(0.8, abs=0.01)
    assert told.angles is not None
    assert told.angles.deviation_deg == pytest.approx(-0.18 * told.angles.turn_deg, rel=0.2)
    assert told.probe.tip_stated


def test_another_place_is_refused() -> None:
    afm = HeightMap(hills(seed=8), AFM_PIXEL_M, AFM_PIXEL_M)
    with pytest.raises(BadInput, match="do not fit each other"):
        compare(HeightMap(hills(), PIXEL_M, PIXEL_M), afm)


@pytest.mark.parametrize("radius_m", [10e-9, 30e-9, 120e-9])
def test_blind_tip_is_the_one_that_made_the_map(radius_m: float) -> None:
    rng = np.random.default_rng(2)
    rough = gaussian_filter(rng.normal(0, 20e-9, (160, 160)), 1.0)
    seen = touched(rough, (PIXEL_M, PIXEL_M), radius_m) + rng.normal(0, 0.1e-9, rough.shape)
    found = bluntest_tip(HeightMap(seen, PIXEL_M, PIXEL_M))
    assert 0.65 * radius_m < found < 1.5 * radius_m


def test_a_section_lies_on_its_cut(tmp_path: Path) -> None:
    surface = HeightMap(hills(), PIXEL_M, PIXEL_M)
    x_px = np.arange(20.0, 140.0, 0.7)
    height_m = map_coordinates(surface.height_m, (np.full_like(x_px, 70.0), x_px), order=3)
    with (tmp_path / "tem.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x_um", "z_nm"])
        tilted = height_m * 1e9 + 0.05 * x_px
        writer.writerows(zip((x_px * PIXEL_M * 1e6).tolist(), tilted.tolist(), strict=True))
    found = compare_cut(surface, (10.0, 70.0, 150.0, 70.0), *read_section(tmp_path / "tem.csv"))
    assert found.shift_m == pytest.approx(10 * PIXEL_M, abs=0.1 * PIXEL_M)
    assert found.rms_m < 0.05 * np.std(height_m)


def test_a_section_without_units_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tem.csv").write_text("x,z\n" + "1,2\n" * 20)
    with pytest.raises(BadInput, match=r"tem\.csv cannot be read.*x_um,z_nm"):
        read_section(tmp_path / "tem.csv")
