"""Recipes that are refused whole: for what means nothing, what this lab does not have, and what it does not allow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from acquisition.clock import SystemClock
from acquisition.errors import BadInput, LimitExceeded
from acquisition.recipes.checks import check_recipe
from acquisition.recipes.parsing import parse_recipe, recipe_of
from acquisition.recipes.steps import MOL_PER_S_PER_SCCM
from acquisition.rehearsal import Rehearsal
from hardware_drivers import catalog
from rehearsed import LIMITS, at_rest, hold, lab, performed, recipe

CHANNELS = ("pyrometer.temperature_k", "gauge.pressure_pa", "heater.current_a")


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        ({"do": "sett"}, r"step 2: do = 'sett' is unknown; did you mean set\?"),
        ({"device": "heater"}, r'step 2: do is missing; begin the step with do = "..." of set, ramp'),
        (
            {"do": "set", "device": "heater", "curent_a": 1.0, "current_a": 1.0},
            r"step 2 \(set\): curent_a = 1.0 is unknown; did you mean current_a\?",
        ),
        ({"do": "set", "device": "heater", "current_a": "1"}, r"step 2 \(set\): current_a = '1': .*valid number"),
        ({"do": "set", "device": "heater", "current_a": float("nan")}, r"step 2 \(set\): current_a = nan: .*finite"),
        ({"do": "set", "device": "heater"}, r"step 2 \(set\): give exactly one of current_a, .*got none"),
        ({"do": "set", "temperature_k": 900, "device": "heater"}, "set on a hold: leave device out"),
        ({"do": "ramp", "temperature_k": 900, "flow_sccm_per_s": 1}, "exactly one of temperature_k_per_s, over_s"),
        ({"do": "wait", "channel": "gauge.pressure_pa", "above": 1.0}, "may never come true: give timeout_s"),
        ({"do": "wait", "seconds": 5.0, "above": 1.0}, "give seconds alone"),
        ({"do": "mark"}, r"step 2 \(mark\): text is missing; add it"),
        ({"do": "hold", "channel": "x.y", "by": "heater.power", "gain": 1, "integral_s": 1}, "names no setpoint"),
    ],
)
def test_a_bad_step_is_told_with_its_number_key_value_and_the_way_out(step: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        recipe({"do": "arm"}, step)


def test_what_is_no_recipe_at_all_is_refused() -> None:
    for text in ("steps = [", "{", "", 'name = "x"', "[1]", 'name = "x"\nsteps = []', "x" * 50_000):
        with pytest.raises(BadInput):
            parse_recipe(text)


def test_toml_json_and_tree_mean_the_same() -> None:
    toml = parse_recipe('name = "test"\n[[steps]]\ndo = "wait"\nseconds = 5\n')
    assert toml == parse_recipe('{"name": "test", "steps": [{"do": "wait", "seconds": 5}]}')
    assert toml == recipe({"do": "wait", "seconds": 5.0})
    assert recipe_of(toml.tree()) == toml


def test_flows_are_converted_as_the_labs_limits_are() -> None:
    assert MOL_PER_S_PER_SCCM == catalog.MOL_PER_S_PER_SCCM


@pytest.mark.parametrize(
    ("step", "value", "limit", "setting"),
    [
        ({"do": "set", "device": "heater", "current_a": 1.8}, 1.8, 1.5, "limits.heater_current_a"),
        ({"do": "set", "device": "heater", "power_w": 27}, 27, 26, "limits.heater_power_w"),
        (hold(by="heater.power_w", high=27), 27, 26, "limits.heater_power_w"),
        ({"do": "ramp", "device": "oxygen", "flow_sccm": 40, "over_s": 5}, 40, 30, "limits.flow_sccm.oxygen"),
        ({"do": "move", "x_um": 6000}, 6e-3, 5e-3, "limits.stage_travel_m"),
        ({"do": "set", "device": "pyrometer", "emissivity": 1.2}, 1.2, 1.0, "the pyrometer's range"),
        ({"do": "set", "temperature_k": 1500}, 1500, 1300, "interlocks.temperature_max_k"),
        (hold(high=2.0), 2.0, 1.5, "limits.heater_current_a"),
        (hold(target=1400.0), 1400, 1300, "interlocks.temperature_max_k"),
    ],
)
def test_a_setpoint_beyond_its_limit_anywhere_refuses_the_whole_recipe(
    step: dict[str, Any], value: float, limit: float, setting: str
) -> None:
    async def work(host: Rehearsal) -> None:
        warm = {"do": "set", "device": "hydrogen", "flow_sccm": 10}
        with pytest.raises(LimitExceeded, match=r"recipe test, step 3 .*refused whole; nothing was sent") as refused:
            host.runner.start(recipe(warm, hold(), step))
        assert (refused.value.value, refused.value.setting) == (pytest.approx(value), setting)
        assert refused.value.limit == pytest.approx(limit)
        await asyncio.sleep(1.0)
        assert await at_rest(host)
        assert host.told == []

    performed(work)


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([{"do": "set", "temperature_k": 900}], "step 1 .*add a hold step before"),
        ([hold(), {"do": "off"}, {"do": "set", "temperature_k": 900}], "step 3 .*add a hold step before"),
        ([hold(channel="pyrometr.temperature_k")], "did you mean pyrometer.temperature_k"),
        ([{"do": "set", "device": "oxigen", "flow_sccm": 1}], "did you mean oxygen"),
        ([{"do": "set", "device": "heater", "flow_sccm": 1}], "heater has no setpoint flow_sccm; it has current_a"),
        ([{"do": "off", "device": "pyrometer"}], "cannot be switched off"),
        ([{"do": "wait", "channel": "gauge.p", "below": 1.0, "timeout_s": 1.0}], "there is no channel 'gauge.p'"),
    ],
)
def test_what_this_lab_does_not_have_refuses_the_whole_recipe(steps: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        check_recipe(recipe(*steps), lab(SystemClock()), LIMITS, CHANNELS)
