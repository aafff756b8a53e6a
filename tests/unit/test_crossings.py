"""Steps that cross, on surfaces whose angle is known and on the simulated crystal."""

from __future__ import annotations

import math

import numpy as np
import pytest

from acquisition.clock import Instant, VirtualClock
from acquisition.instrument import four_quadrant
from hardware_drivers.simulated.world import World
from inference.metrology.crossings import Crossing, find_crossings, usual_angle
from inference.metrology.height_map import HeightMap
from inference.metrology.steps import find_steps

PIXEL_M = 5e-9
STEP_M, TERRACE_M = 16e-9, 400e-9


def two_trains(turn_deg: float, noise_m: float = 0.3e-9) -> HeightMap:
    """Trains of 45 degree steps that fall to 20 degrees and to `turn_deg` beyond that."""
    y, x = np.mgrid[:300, :300] * PIXEL_M
    surface = np.random.default_rng(3).normal(0.0, noise_m, x.shape)
    for azimuth in (math.radians(20.0), math.radians(20.0 + turn_deg)):
        phase = -(x * math.cos(azimuth) - y * math.sin(azimuth)) / TERRACE_M
        whole = np.floor(phase)
        surface += STEP_M * (whole + np.minimum((phase - whole) * TERRACE_M / STEP_M, 1.0))
    return HeightMap(surface, PIXEL_M, PIXEL_M)


def crossed(surface: HeightMap) -> list[Crossing]:
    return [one for one in find_crossings(find_steps(surface)) if one.arms >= 3 and one.sigma_deg < 1.0]


@pytest.mark.parametrize("angle_deg", [90.0, 105.0, 135.0])
def test_trains_cross_at_the_angle_they_were_made_with(angle_deg: float) -> None:
    angle, sigma = usual_angle(found := crossed(two_trains(180.0 - angle_deg)))
    assert len(found) >= 4
    assert angle == pytest.approx(angle_deg, abs=0.5)
    assert 0.0 < sigma < 0.5


def test_a_crossing_lies_where_both_steps_go_through() -> None:
    for one in crossed(two_trains(45.0)):
        x, y = one.place_px[1] * PIXEL_M, one.place_px[0] * PIXEL_M
        for azimuth in (math.radians(20.0), math.radians(65.0)):
            phase = -(x * math.cos(azimuth) - y * math.sin(azimuth)) / TERRACE_M - 0.5 * STEP_M / TERRACE_M
            assert abs(phase - round(phase)) * TERRACE_M < 2.0 * PIXEL_M


def test_one_train_crosses_nothing() -> None:
    assert crossed(two_trains(0.0)) == []
    assert all(math.isnan(value) for value in usual_angle([]))


async def test_the_simulated_crystal_has_a_side_of_45_degrees_and_steps_that_cross_at_135() -> None:
    clock = VirtualClock(Instant(0, 0))
    world = World("cu2o-crystal", four_quadrant(), clock)
    surface = HeightMap(world.heights_m(512, 512, (PIXEL_M, PIXEL_M), clock.now()), PIXEL_M, PIXEL_M)
    down, right = np.gradient(surface.height_m, PIXEL_M)
    inclination = np.degrees(np.arctan(np.hypot(down, right)))
    assert np.mean(np.abs(inclination - 45.0) < 1.0) > 0.05
    found = [one for one in crossed(surface) if one.angle_deg > 120.0]
    assert len(found) >= 5
    assert usual_angle(found)[0] == pytest.approx(135.0, abs=0.2)
