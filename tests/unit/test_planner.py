"""What the planner says of settings: dose, time, saturation, features, advice, refusals."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from inference.forward_model import linear_response, render
from inference.planner import Feature, plan

STEP = Feature(terrace_m=200e-9, step_m=2e-9)


def with_segments(**changes: Any) -> Instrument:
    tree = four_quadrant().model_dump()
    for segment in tree["detector"]["segments"]:
        segment.update(changes)
    return parse_instrument(tree, "the test's instrument")


def with_part(part: str, **changes: Any) -> Instrument:
    tree = four_quadrant().model_dump()
    tree[part].update(changes)
    return parse_instrument(tree, "the test's instrument")


WITHOUT_RADII = with_segments(inner_radius_m=None, outer_radius_m=None, dark_counts=None, modulation=1.4)


def test_noise_falls_with_the_root_of_the_dose() -> None:
    low, high = (plan(four_quadrant(), STEP, dose=dose) for dose in (500.0, 50_000.0))
    assert low.noise.slope_noise == pytest.approx(10 * high.noise.slope_noise, rel=1e-3)
    assert low.feature is not None and high.feature is not None
    assert low.feature.step_noise_m == pytest.approx(10 * high.feature.step_noise_m, rel=1e-3)
    assert high.dwell_time_s == pytest.approx(100 * low.dwell_time_s)
    assert high.detected == pytest.approx(50_000.0, rel=1e-6)


def test_shorter_working_distance_lowers_noise_and_shadow_free_tilt() -> None:
    far, near = (plan(with_part("detector", working_distance_m=distance)) for distance in (8e-3, 5e-3))
    assert near.noise.slope_noise < 0.6 * far.noise.slope_noise
    assert near.shadow_free_tilt_deg == pytest.approx(math.degrees(math.atan(5 / 6)))
    assert far.shadow_free_tilt_deg == pytest.approx(math.degrees(math.atan(8 / 6)))
    assert far.vision_field_per_relief == pytest.approx(6 / 8)


def test_electrons_and_time_follow_from_the_instrument() -> None:
    made = plan(four_quadrant(), shape=(512, 1024))
    assert made.primaries == pytest.approx(6241.5, rel=1e-4)
    assert made.emitted == pytest.approx(6241.5 * 0.31, rel=1e-4)
    assert made.detected == pytest.approx(608.0, rel=2e-3)
    assert sum(segment.captured_fraction or 0.0 for segment in made.segments) == pytest.approx(0.314, abs=5e-4)
    assert made.frame_time_s == pytest.approx(512 * 1024 * 1e-6 + 512 * 50e-6)
    assert made.primaries_per_nm2 == pytest.approx(6241.5 / 25, rel=1e-4)


def test_a_tilted_specimen_is_planned_at_its_tilt() -> None:
    tilted, level = plan(with_part("specimen", tilt_x_deg=30.0)), plan(four_quadrant())
    assert tilted.noise.tilt_deg == pytest.approx(30.0)
    assert tilted.noise.slope_noise == pytest.approx(level.noise_by_tilt[3].slope_noise, rel=0.01)
    assert tilted.segments[2].electrons > level.segments[2].electrons > tilted.segments[0].electrons


def test_frames_and_dwell_time_needed_reach_five_sigma() -> None:
    noise = plan(four_quadrant(), STEP).feature
    assert noise is not None and noise.signal_to_noise < 5
    assert noise.signal_to_noise * math.sqrt(noise.frames_needed) >= 5
    assert noise.signal_to_noise * math.sqrt(noise.frames_needed - 1) < 5
    longer = plan(four_quadrant().with_scan(dwell_time_s=noise.dwell_time_needed_s), STEP).feature
    assert longer is not None and longer.signal_to_noise == pytest.approx(5.0, rel=1e-3)


def test_saturating_dose_is_where_the_brightest_plane_begins_to_saturate() -> None:
    made = plan(four_quadrant())
    assert made.saturating_dose is not None and made.warnings == ()
    facing_right = linear_response(four_quadrant())[0]
    tilt_deg = math.degrees(math.atan2(facing_right[0], facing_right[2]))
    facing_m = np.tile(-5e-9 * math.tan(math.radians(tilt_deg)) * np.arange(48), (48, 1))
    shares = [
        (render(facing_m, four_quadrant(), np.random.default_rng(0), dose)[0] == 65535).mean()
        for dose in (made.saturating_dose, 1.1 * made.saturating_dose)
    ]
    assert shares[0] < 0.002
    assert shares[1] > 0.9


def test_saturation_is_warned_of_with_a_gain_that_avoids_it() -> None:
    (warning, *_) = plan(with_segments(gain_counts_per_electron=500.0)).warnings
    found = re.search(r"segment A saturates .* lower its gain to ([\d.]+) .* dwell time to ([\d.]+) µs", warning)
    assert found is not None
    gain, dwell_us = 0.999 * float(found[1]), 0.999 * float(found[2])
    assert plan(with_segments(gain_counts_per_electron=gain)).warnings == ()
    shorter = with_segments(gain_counts_per_electron=500.0).with_scan(dwell_time_s=1e-6 * dwell_us)
    assert plan(shorter).warnings == ()


def test_too_coarse_counts_and_steps_that_shade_their_foot_are_warned_of() -> None:
    (coarse, *_) = plan(with_segments(gain_counts_per_electron=0.01)).warnings
    assert "raise its gain above" in coarse
    (shaded,) = plan(four_quadrant(), Feature(200e-9, 10e-9)).warnings
    assert "shades its foot" in shaded


def test_advice_is_ranked_by_gain_at_equal_time_and_keeps_35_degrees() -> None:
    made = plan(four_quadrant())
    gains = [advice.gain for advice in made.advice]
    assert gains == sorted(gains, reverse=True)
    by_change = {advice.change: advice for advice in made.advice}
    nearer = by_change["working distance 8 to 4.8 mm"]
    evaluated = plan(with_part("detector", working_distance_m=4.8e-3))
    assert nearer.noise_ratio == pytest.approx(evaluated.noise.slope_noise / made.noise.slope_noise)
    assert nearer.shadow_free_tilt_deg == pytest.approx(evaluated.shadow_free_tilt_deg)
    assert by_change["average 4 frames"].noise_ratio == pytest.approx(0.5)
    assert by_change["average 4 frames"].gain == pytest.approx(1.0)
    assert by_change["current × 2"].gain == pytest.approx(math.sqrt(2), rel=1e-4)
    low = plan(with_part("detector", working_distance_m=6e-3))
    assert [one.change for one in low.advice if "working" in one.change] == ["working distance 6 to 4.8 mm"]


def test_segments_without_radii_are_planned_from_their_dose_and_say_what_stays_unknown() -> None:
    made = plan(WITHOUT_RADII, STEP, dose=3000.0)
    assert made.shadow_free_tilt_deg is None and made.emitted is None and made.saturating_dose is None
    assert any("shadow-free tilt" in told for told in made.unknown)
    assert made.feature is not None and made.feature.frames_needed >= 1
    changes = {advice.change: advice for advice in made.advice}
    assert not any("working distance" in change for change in changes)
    assert changes["dwell time × 2"].noise_ratio == pytest.approx(1 / math.sqrt(2), rel=1e-3)


def test_a_plan_is_finite_numbers_through_and_through() -> None:
    for made in (plan(four_quadrant(), STEP), plan(WITHOUT_RADII, STEP, dose=500.0)):
        json.dumps(asdict(made), allow_nan=False)


@pytest.mark.parametrize(
    ("instrument", "feature", "dose", "named"),
    [
        (WITHOUT_RADII, None, None, "give the dose"),
        (four_quadrant(), None, -1.0, "dose -1"),
        (four_quadrant(), None, math.nan, "dose nan"),
        (four_quadrant(), Feature(10e-9, 1e-9), None, "narrower than 3 pixels .* at most"),
        (four_quadrant(), Feature(10e-6, 1e-9), None, "wider than the frame"),
        (four_quadrant(), Feature(200e-9, 0.0), None, "step 0 m"),
        (four_quadrant(), Feature(math.nan, 1e-9), None, "terrace nan m"),
        (with_part("specimen", tilt_y_deg=60.0), None, None, "tilted by 60 degrees, into its own shadow"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_way_out(
    instrument: Instrument, feature: Feature | None, dose: float | None, named: str
) -> None:
    with pytest.raises(BadInput, match=named):
        plan(instrument, feature, dose=dose)
