"""Heights along a line of a map whose heights and noise are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap
from inference.metrology.profiles import line_profile
from inference.metrology.scatter import robust_line, scatter_of, sigma_of_mean

Y, X = np.mgrid[:20, :30].astype(np.float64)
NM = 1e-9


@pytest.mark.parametrize("width_px", [1, 2, 5])
@pytest.mark.parametrize("end_px", [(25.0, 10.0), (5.0, 16.0), (20.0, 15.0), (2.5, 4.0)])
def test_a_plane_is_a_straight_line_in_any_direction_and_width(end_px: tuple[float, float], width_px: int) -> None:
    found = line_profile(HeightMap(2 * X + 3 * Y, 1.0, 1.0), [(5.0, 5.0), end_px], width_px).height_m
    np.testing.assert_allclose(found, np.linspace(25.0, 2 * end_px[0] + 3 * end_px[1], len(found)), rtol=1e-5)


def test_width_averages_across_the_line_and_not_along_it() -> None:
    comb = HeightMap(np.where(Y == 10, 3.0, 0.0), 1.0, 1.0)
    np.testing.assert_allclose(line_profile(comb, [(5.0, 10.0), (15.0, 10.0)], 1).height_m, np.full(11, 3.0))
    np.testing.assert_allclose(line_profile(comb, [(5.0, 10.0), (15.0, 10.0)], 3).height_m, np.full(11, 1.0))
    assert line_profile(comb, [(5.0, 5.0), (5.0, 15.0)], 3).height_m.tolist() == [0] * 5 + [3] + [0] * 5


def test_distances_are_metres_on_pixels_that_are_higher_than_wide() -> None:
    surface = HeightMap(4e-9 * X + 3 * 2e-9 * Y, 4 * NM, 3 * NM)
    found = line_profile(surface, [(2.0, 2.0), (12.0, 12.0)], 5)
    assert found.distance_m[-1] == pytest.approx(50 * NM)
    across = np.ptp(line_profile(HeightMap(X * 4 * 3 - Y * 3 * 4, 4.0, 3.0), [(2.0, 2.0), (12.0, 12.0)], 1).height_m)
    assert across < 1e-9  # 45 degrees in pixels is not 45 degrees in metres: this height is the same along the line


def test_a_polyline_goes_round_its_corners() -> None:
    found = line_profile(HeightMap(X, 2.0, 2.0), [(5.0, 5.0), (15.0, 5.0), (15.0, 12.0)])
    assert found.corners_m == (0.0, 20.0, 34.0) and len(found.distance_m) == 18
    assert found.height_m[:11].tolist() == list(range(5, 16)) and (found.height_m[10:] == 15).all()


@pytest.mark.parametrize("smoothing_px", [0.0, 1.0])
@pytest.mark.parametrize("noise_m", [0.1 * NM, 1 * NM, 5 * NM])
def test_the_told_uncertainty_is_that_of_the_mean_also_when_neighbours_are_correlated(
    noise_m: float, smoothing_px: float
) -> None:
    rng = np.random.default_rng(1)
    noise = gaussian_filter(rng.normal(size=(400, 400)), smoothing_px)
    surface = HeightMap(noise_m * noise / noise.std(), NM, NM)
    profiles = [line_profile(surface, [(5.0, y), (395.0, y)], 9) for y in range(10, 390, 10)]
    spread_m = np.sqrt(np.mean([np.mean(found.height_m**2) for found in profiles]))
    told_m = np.sqrt(np.mean([np.mean(found.sigma_m**2) for found in profiles]))
    assert told_m == pytest.approx(spread_m, rel=0.15)


def test_a_tilt_to_the_side_is_no_uncertainty_and_a_narrow_line_has_none_to_tell() -> None:
    assert line_profile(HeightMap(7 * Y, 1.0, 1.0), [(5.0, 10.0), (25.0, 10.0)], 5).sigma_m.max() < 1e-9
    assert np.isnan(line_profile(HeightMap(7 * Y, 1.0, 1.0), [(5.0, 10.0), (25.0, 10.0)], 3).sigma_m).all()


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_scatter_is_found_through_the_fit_that_took_some_of_it(correlation: float) -> None:
    rng = np.random.default_rng(2)
    series = rng.normal(size=(4000, 12))
    for i in range(1, 12):
        series[:, i] = correlation * series[:, i - 1] + np.sqrt(1 - correlation**2) * series[:, i]
    design = np.vander(np.arange(12.0), 2)
    found = scatter_of(series - series @ np.linalg.pinv(design).T @ design.T, design)
    assert found.correlation[1] == pytest.approx(correlation, abs=0.1)
    assert found.variance == pytest.approx(1.0, rel=0.25)


def test_the_mean_of_a_few_rows_is_known_as_well_as_told() -> None:
    series = gaussian_filter(np.random.default_rng(4).normal(size=(300, 16)), (0.0, 1.0))
    told = np.sqrt(np.mean([sigma_of_mean(row) ** 2 for row in series]))
    assert 0.8 < told / series.mean(axis=1).std() < 1.5  # so few rows cannot tell their correlation well: rather more


def test_a_line_holds_outliers_back() -> None:
    x = np.arange(60.0)
    y = 0.5 * x + np.random.default_rng(3).normal(0, 0.01, 60)
    y[[5, 30, 50]] += 30.0
    found = robust_line(x, y)
    assert found.slope == pytest.approx(0.5, abs=2e-3)
    assert found.at(10.0) == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize("points", [[(5.0, 5.0)], [(5.0, 5.0), (5.0, 5.5)], [(5.0, 5.0), (30.0, 5.0)]])
def test_a_line_that_is_none_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(BadInput, match=r"at least 1|leaves the frame"):
        line_profile(HeightMap(X, 1.0, 1.0), points)


def test_csv_has_units_in_its_heading() -> None:
    lines = line_profile(HeightMap(X, 1.0, 1.0), [(5.0, 5.0), (8.0, 5.0)]).csv().splitlines()
    assert lines[0] == "distance_m,height_m,sigma_m,x_px,y_px" and len(lines) == 5
    assert lines[1].split(",")[2] == ""
