"""Step heights of surfaces whose steps are known, at three doses of noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from inference.metrology.edges import fit_edge
from inference.metrology.height_map import HeightMap
from inference.metrology.profiles import Profile, line_profile
from inference.metrology.step_height import single_step_height, step_height

NM = 1e-9
PIXEL_M = 5 * NM
STEP_M = 10 * NM
Y, X = np.mgrid[:300, :120].astype(np.float64)
NOISES_M = (0.1 * NM, 0.5 * NM, 2 * NM)


def noisy(height_m: np.ndarray, noise_m: float, seed: int = 1) -> HeightMap:
    """On a tilt of 3 degrees, seen by a beam of a pixel, with noise that neighbours share."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=height_m.shape), 1.0)
    tilted = gaussian_filter(height_m, 1.0) + 0.05 * PIXEL_M * X
    return HeightMap(tilted + noise_m * noise / noise.std(), PIXEL_M, PIXEL_M)


def profiles(surface: HeightMap, width_px: int) -> list[Profile]:
    rows = range(width_px, 300 - width_px, width_px + 4)
    return [line_profile(surface, [(5.0, y), (115.0, y)], width_px) for y in rows]


@pytest.mark.parametrize("noise_m", NOISES_M)
@pytest.mark.parametrize(
    ("shape_m", "height_m", "rule"),
    [
        (STEP_M * (X > 57.3), STEP_M, "single edge"),
        (-STEP_M * (X > 57.3), -STEP_M, "single edge"),
        (-STEP_M * ((X > 40) & (X < 75)), -STEP_M, "ISO 5436-1 W/3"),
        (STEP_M * ((X > 40) & (X < 75)), STEP_M, "ISO 5436-1 W/3"),
    ],
    ids=["rise", "fall", "groove", "ridge"],
)
def test_heights_are_right_to_a_percent_and_scatter_as_told(
    shape_m: np.ndarray, height_m: float, rule: str, noise_m: float
) -> None:
    found = [step_height(profile) for profile in profiles(noisy(shape_m, noise_m), 9)]
    assert {one.rule for one in found} == {rule}
    errors = np.array([one.height_m for one in found]) - height_m
    assert abs(errors.mean()) < max(0.01 * STEP_M, 3 * errors.std() / np.sqrt(len(errors)))
    told = np.sqrt(np.mean([one.sigma_m**2 for one in found]))
    assert 0.6 < told / errors.std() < 2.0


def test_a_narrow_profile_takes_its_uncertainty_from_the_lines_alone() -> None:
    found = [step_height(profile) for profile in profiles(noisy(STEP_M * (X > 57), 0.5 * NM), 1)]
    assert {one.sigma_from for one in found} == {"scatter along the lines"}
    told = np.sqrt(np.mean([one.sigma_m**2 for one in found]))
    assert 0.6 < told / np.std([one.height_m for one in found]) < 2.0


def test_rough_flanks_are_told_as_uncertainty_even_when_all_rows_agree() -> None:
    corrugated = STEP_M * (X > 57) + 2 * NM * np.sin(X / 7.0)
    profile = line_profile(HeightMap(corrugated, PIXEL_M, PIXEL_M), [(5.0, 100.0), (115.0, 100.0)], 9)
    found = step_height(profile, edges_m=(52.5 * PIXEL_M,))
    assert found.sigma_m > 0.3 * NM and found.sigma_from == "scatter along the lines"


def test_flanks_can_be_kept_short_of_the_next_step() -> None:
    staircase = STEP_M * np.floor(X / 30.0)
    profile = line_profile(noisy(staircase, 0.1 * NM), [(5.0, 100.0), (115.0, 100.0)], 9)
    found = single_step_height(profile, edge_m=54.5 * PIXEL_M, flank_m=20 * PIXEL_M)
    assert found.height_m == pytest.approx(STEP_M, rel=0.05)
    assert found.outer_parts_m[0][1] < 52 * PIXEL_M and found.inner_parts_m[0][1] < 84 * PIXEL_M


@pytest.mark.parametrize("noise_m", NOISES_M)
def test_an_edge_is_placed_between_pixels(noise_m: float) -> None:
    ramp_m = STEP_M * np.clip(X - 57.3, 0, 1)  # its middle at 57.8
    found = [fit_edge(one.distance_m, one.height_m) for one in profiles(noisy(ramp_m, noise_m), 9)]
    places_px = np.array([edge.at_m for edge in found]) / PIXEL_M + 5
    assert places_px.mean() == pytest.approx(57.8, abs=0.02 + 3 * places_px.std() / np.sqrt(len(places_px)))
    assert found[0].blur_m == pytest.approx(1.05 * PIXEL_M, rel=0.1 + noise_m / STEP_M)


def test_what_has_no_edge_or_no_flank_is_refused_with_a_way_out() -> None:
    flat = line_profile(HeightMap(0.1 * X * NM, PIXEL_M, PIXEL_M), [(5.0, 100.0), (115.0, 100.0)])
    with pytest.raises(BadInput, match="no edge"):
        step_height(flat)
    stepped = line_profile(noisy(STEP_M * (X > 57), 0.1 * NM), [(5.0, 100.0), (115.0, 100.0)])
    with pytest.raises(BadInput, match="draw it longer"):
        step_height(stepped, edges_m=(5 * NM,))
