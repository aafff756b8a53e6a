"""Feedback: a loop settles, stays inside its bounds, does not wind up, and stops without a reading."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.clock import Clock
from acquisition.devices import Reading, Readings
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.leaping import run_leaping
from acquisition.recipes.feedback import FeedbackLoop, LoopSettings
from acquisition.recipes.parsing import recipe_of
from acquisition.recipes.steps import Recipe
from acquisition.rehearsal import Rehearsal, rehearse
from service import wiring
from service.settings import load_settings

SETTINGS = LoopSettings(gain=0.008, integral_s=4.0, low=0.0, high=1.3)
STEP_S = 0.25
HOLD = {
    "do": "hold",
    "channel": "pyrometer.temperature_k",
    "by": "heater.current_a",
    "gain": 0.008,
    "integral_s": 4.0,
    "high": 1.3,
    "per_s": 0.5,
}


def lab(clock: Clock) -> Lab:
    return wiring.lab(load_settings(), clock)


def heating(*steps: dict[str, Any]) -> Recipe:
    return recipe_of({"name": "heating", "steps": [{"do": "arm"}, *steps]})


def plant(temperature_k: float, current_a: float) -> float:
    """What the simulated heater does in one step: 805 K/A within 4 s."""
    settled_k = 295 + 805 * max(current_a - 0.2, 0.0)
    return settled_k + (temperature_k - settled_k) * math.exp(-STEP_S / 4.0)


def test_a_loop_settles_at_its_target_with_little_overshoot() -> None:
    loop, temperature_k, seen = FeedbackLoop(SETTINGS, 0.6), 617.0, []
    for _ in range(240):
        temperature_k = plant(temperature_k, loop.update(800.0, temperature_k, STEP_S))
        seen.append(temperature_k)
    assert seen[-1] == pytest.approx(800, abs=0.1)
    assert max(seen) < 815


def test_a_loop_that_was_held_back_for_long_does_not_overshoot_by_what_it_could_not_do() -> None:
    loop, temperature_k = FeedbackLoop(SETTINGS, 0.6), 617.0
    for _ in range(2000):
        temperature_k = plant(temperature_k, loop.update(1290.0, temperature_k, STEP_S))
    assert loop.output == SETTINGS.high
    for count in range(40):
        temperature_k = plant(temperature_k, loop.update(800.0, temperature_k, STEP_S))
        if count == 1:
            assert loop.output < SETTINGS.high
    assert temperature_k == pytest.approx(800, abs=10)


def test_a_loop_begins_at_the_output_in_force() -> None:
    loop = FeedbackLoop(SETTINGS, 0.7)
    assert loop.update(800.0, 800.0, STEP_S) == 0.7


@given(
    readings=st.lists(st.floats(0, 3000), min_size=1, max_size=60),
    target=st.floats(0, 3000),
    start=st.floats(-1, 3),
    per_s=st.floats(0.01, 2),
)
def test_no_reading_drives_a_loop_beyond_its_bounds_or_its_speed(
    readings: list[float], target: float, start: float, per_s: float
) -> None:
    loop = FeedbackLoop(LoopSettings(0.05, 2.0, 0.1, 1.2, per_s), start)
    before = loop.output
    assert 0.1 <= before <= 1.2
    for reading in readings:
        output = loop.update(target, reading, STEP_S)
        assert 0.1 <= output <= 1.2
        assert abs(output - before) <= per_s * STEP_S + 1e-12
        before = output


@pytest.mark.parametrize("reading", [math.nan, math.inf])
def test_a_loop_never_acts_on_what_is_no_number(reading: float) -> None:
    loop = FeedbackLoop(SETTINGS, 0.7)
    with pytest.raises(ValueError, match="cannot act"):
        loop.update(800.0, reading, STEP_S)
    assert loop.output == 0.7


def held_until(fault: Any) -> tuple[str, str, float]:
    """State, reason and seconds until the recipe ended after `fault(host)` at 60 s, when 800 K are held."""

    async def work() -> tuple[str, str, float]:
        async with Rehearsal(lab, InterlockLimits(stale_after_s=30.0)) as host:
            ramp = {"do": "ramp", "temperature_k": 800.0, "temperature_k_per_s": 20.0}
            host.runner.start(heating(HOLD, ramp, {"do": "wait", "seconds": 300.0}))
            await asyncio.sleep(60.0)
            assert host.runner.tree()["holds"][0]["reading"] == pytest.approx(800, abs=5)
            fault(host)
            await host.runner.wait()
            assert host.lab.heater is not None
            status = await host.lab.heater.status()
            assert not status.emission_on
            assert status.current_target_a == 0
            return host.runner.state, host.runner.reason, host.elapsed_s - 60.0

    return run_leaping(work())


def test_an_invalid_reading_stops_the_hold_in_the_safe_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def invalid(host: Rehearsal) -> None:
        async def read() -> Readings:
            return {"temperature_k": Reading(math.nan, False, host.clock.now(), "head hot")}

        monkeypatch.setattr(host.lab.pyrometer, "read", read)

    state, reason, after_s = held_until(invalid)
    assert state == "failed"
    assert "pyrometer.temperature_k is invalid: head hot" in reason
    assert after_s < 1


def test_a_stale_reading_stops_the_hold_in_the_safe_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def frozen(host: Rehearsal) -> None:
        old = host.state.latest()["pyrometer.temperature_k"]

        async def read() -> Readings:
            return {"temperature_k": old}

        monkeypatch.setattr(host.lab.pyrometer, "read", read)

    state, reason, after_s = held_until(frozen)
    assert state == "failed"
    assert "s old, the limit is 3 s" in reason
    assert after_s < 5


def test_a_hold_works_on_while_the_recipe_is_paused() -> None:
    async def work() -> None:
        async with Rehearsal(lab, InterlockLimits()) as host:
            ramp = {"do": "ramp", "temperature_k": 800.0, "temperature_k_per_s": 20.0}
            host.runner.start(heating(HOLD, ramp, {"do": "wait", "seconds": 30.0}))
            await asyncio.sleep(12.0)
            host.runner.pause()
            await asyncio.sleep(60.0)
            held = host.runner.tree()["holds"][0]
            assert 600 < held["target"] < 800
            assert held["reading"] == pytest.approx(held["target"], abs=5)
            host.runner.resume()
            await host.runner.wait()
            assert host.runner.state == "finished"

    run_leaping(work())


def test_a_ramp_whose_reading_does_not_follow_ends_and_never_drives_to_the_utmost() -> None:
    high = 0.4  # settles at 456 K, below what the pyrometer shows
    ramp = {"do": "ramp", "temperature_k": 800.0, "temperature_k_per_s": 20.0}
    timeline = rehearse(heating({**HOLD, "high": high}, ramp), lab, InterlockLimits())
    assert timeline.state == "failed"
    assert "does not follow" in timeline.reason
    currents = [value for value in timeline.channels["heater.current_a"][1] if value is not None]
    assert max(currents) <= high
    targets = [told.text for told in timeline.events if told.name == "hold"]
    assert "target 614" in targets[-1] or "target 615" in targets[-1], targets


def test_a_hold_by_a_laser_that_is_off_is_refused_instead_of_winding_up() -> None:
    timeline = rehearse(recipe_of({"name": "cold", "steps": [HOLD, {"do": "arm"}]}), lab, InterlockLimits())
    assert timeline.state == "failed"
    assert "step 1 (hold): heater is not armed" in timeline.reason
    assert set(timeline.channels["heater.current_target_a"][1]) == {0.0}


def test_a_pressure_is_held_by_a_flow() -> None:
    hold = {"do": "hold", "channel": "gauge.pressure_pa", "by": "hydrogen.flow_sccm", "gain": 2.0, "integral_s": 15.0}
    steps = [
        {**hold, "high": 120.0},
        {"do": "ramp", "pressure_pa": 60.0, "pressure_pa_per_s": 2.0},
        {"do": "wait", "channel": "gauge.pressure_pa", "near": 60.0, "tolerance": 1.0, "for_s": 20.0, "timeout_s": 120},
    ]
    timeline = rehearse(recipe_of({"name": "pressure", "steps": steps}), lab, InterlockLimits())
    assert timeline.good, timeline.reason


def test_setting_the_steered_setpoint_by_a_step_ends_the_hold() -> None:
    async def work() -> None:
        async with Rehearsal(lab, InterlockLimits()) as host:
            host.runner.start(
                heating(HOLD, {"do": "set", "device": "heater", "current_a": 0.5}, {"do": "wait", "seconds": 30.0})
            )
            await asyncio.sleep(20.0)
            assert host.runner.tree()["holds"] == []
            assert host.state.latest()["heater.current_a"].value == 0.5
            await host.runner.abort()

    run_leaping(work())
