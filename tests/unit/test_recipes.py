"""Recipes on the simulated lab in leaping time: what is refused whole, what is done, and how each one ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from acquisition.clock import Clock, SystemClock
from acquisition.devices import Readings
from acquisition.errors import BadInput, DeviceFailed, LimitExceeded, RequestRefused
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.leaping import run_leaping
from acquisition.recipes.checks import check_recipe
from acquisition.recipes.parsing import parse_recipe, read_recipe, recipe_of
from acquisition.recipes.steps import MOL_PER_S_PER_SCCM, Recipe
from acquisition.rehearsal import Rehearsal, rehearse
from hardware_drivers import catalog
from service import wiring
from service.settings import load_settings
from service.timeline_picture import draw_timeline

OXIDATION = Path(__file__).parents[2] / "deploy" / "oxidation.toml"
LIMITS = InterlockLimits()
CHANNELS = ("pyrometer.temperature_k", "gauge.pressure_pa", "heater.current_a")


def lab(clock: Clock) -> Lab:
    return wiring.lab(load_settings(), clock)


def recipe(*steps: dict[str, Any]) -> Recipe:
    return recipe_of({"name": "test", "steps": list(steps)})


def performed(work: Callable[[Rehearsal], Awaitable[None]], limits: InterlockLimits = LIMITS) -> None:
    async def perform() -> None:
        async with Rehearsal(lab, limits) as host:
            await work(host)

    run_leaping(perform())


async def at_rest(host: Rehearsal) -> bool:
    assert host.lab.heater is not None
    status = await host.lab.heater.status()
    flows = [(await gas.read())["flow_setpoint_mol_per_s"].value for gas in host.lab.gases]
    return not status.emission_on and status.current_target_a == 0 and not any(flows)


def texts(host: Rehearsal, name: str) -> list[str]:
    return [told.text for told in host.told if told.name == name]


WARM = (
    {"do": "arm"},
    {"do": "set", "device": "heater", "current_a": 0.9},
    {"do": "wait", "seconds": 600.0},
)


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


def hold(**changes: Any) -> dict[str, Any]:
    about = {"do": "hold", "channel": "pyrometer.temperature_k", "by": "heater.current_a"}
    return {**about, "gain": 0.008, "integral_s": 4.0, "high": 1.3, **changes}


@pytest.mark.parametrize(
    ("step", "value", "limit", "setting"),
    [
        ({"do": "set", "device": "heater", "current_a": 1.8}, 1.8, 1.5, "limits.heater_current_a"),
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


def test_the_oxidation_recipe_reaches_its_temperature_at_its_rate_and_ends_at_rest(tmp_path: Path) -> None:
    timeline = rehearse(read_recipe(OXIDATION), lab, LIMITS)
    assert timeline.good, timeline
    times_s, temperatures_k = timeline.channels["pyrometer.temperature_k"]
    seen = [(at, value) for at, value in zip(times_s, temperatures_k, strict=True) if value is not None]
    assert max(value for _, value in seen) < 915
    low, high = (next(at for at, value in seen if value > level) for level in (650, 850))
    assert 200 / (high - low) == pytest.approx(50, rel=0.3)
    marks = {told.text: told.time_s for told in timeline.events if told.name == "mark"}
    assert marks["oxygen off"] - marks["oxygen on"] == pytest.approx(60, abs=1)
    during = [value for at, value in seen if marks["oxygen on"] < at < marks["oxygen off"]]
    assert max(abs(value - 900) for value in during) < 5
    assert timeline.channels["heater.emission"][1][-1] == 0
    assert timeline.channels["oxygen.flow_setpoint_mol_per_s"][1][-1] == 0
    pytest.importorskip("matplotlib")
    draw_timeline(timeline, tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="cannot be written"):
        draw_timeline(timeline, tmp_path / "nowhere" / "timeline.png")


def test_a_dry_run_tells_a_condition_that_never_comes_true() -> None:
    wait = {"do": "wait", "channel": "gauge.pressure_pa", "above": 50.0, "timeout_s": 20.0}
    failed = rehearse(recipe({"do": "arm"}, wait), lab, LIMITS)
    assert (failed.state, failed.step, failed.good) == ("failed", 2, False)
    assert "not met within 20 s" in failed.reason
    went_on = rehearse(recipe({**wait, "on_timeout": "go_on"}, {"do": "mark", "text": "after"}), lab, LIMITS)
    assert (went_on.state, went_on.good) == ("finished", False)
    assert "not met within 20 s" in went_on.timeouts[0]


def test_a_plain_ramp_covers_its_way_in_its_time_and_stands_still_while_paused() -> None:
    async def work(host: Rehearsal) -> None:
        steps = {"do": "ramp", "device": "hydrogen", "flow_sccm": 100, "flow_sccm_per_s": 10}
        host.runner.start(recipe(steps, {"do": "wait", "seconds": 1.0}))
        await asyncio.sleep(4.0)
        host.runner.pause()
        assert host.runner.permitted == ("recipe_resume", "recipe_abort")
        with pytest.raises(RequestRefused, match=r"recipe_pause is not possible now: .*paused at step 1"):
            host.runner.pause()
        await asyncio.sleep(1.0)
        flow = host.state.latest()["hydrogen.flow_setpoint_mol_per_s"].value
        assert flow == pytest.approx(40 * MOL_PER_S_PER_SCCM, rel=0.1)
        left_s = host.runner.tree()["left_s"]
        assert left_s == pytest.approx(7.0, abs=0.5)
        await asyncio.sleep(100.0)
        assert host.state.latest()["hydrogen.flow_setpoint_mol_per_s"].value == flow
        assert host.runner.tree()["left_s"] == left_s
        host.runner.resume()
        await host.runner.wait()
        assert host.runner.state == "finished"
        assert host.elapsed_s == pytest.approx(112, abs=1)

    performed(work)


def test_an_abort_at_any_step_ends_in_the_verified_safe_state() -> None:
    async def work(host: Rehearsal) -> None:
        for after_s in (0.0, 2.0, 5.0, 15.0, 40.0, 70.0):
            host.runner.start(read_recipe(OXIDATION))
            await asyncio.sleep(after_s)
            assert await host.runner.abort() == []
            assert host.runner.state == "aborted"
            assert await at_rest(host)
        assert any("aborted" in text and "verified" in text for text in texts(host, "safe_state"))
        with pytest.raises(RequestRefused, match=r"recipe_abort is not possible now: .*possible now: recipe_start"):
            await host.runner.abort()

    performed(work)


def test_only_one_recipe_runs_at_a_time() -> None:
    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe(*WARM))
        await asyncio.sleep(1.0)
        assert host.runner.drives("heater")
        assert not host.runner.drives("stage")
        with pytest.raises(RequestRefused, match=r"recipe test is running at step 3 \(wait\)"):
            host.runner.start(recipe(*WARM))
        await host.runner.abort()
        assert not host.runner.drives("heater")

    performed(work)


def test_an_unattended_recipe_that_heats_ends_when_the_operators_countdown_does() -> None:
    async def work(host: Rehearsal) -> None:
        host.attended = False
        host.runner.start(recipe(*WARM))
        await host.runner.wait()
        assert host.elapsed_s == pytest.approx(60, abs=2)
        assert host.runner.state == "failed"
        assert "step 3 (wait): safe state: permit lost" in host.runner.reason
        assert await at_rest(host)

    performed(work)


def test_an_unattended_recipe_without_the_laser_goes_on() -> None:
    async def work(host: Rehearsal) -> None:
        host.attended = False
        host.runner.start(recipe({"do": "set", "device": "hydrogen", "flow_sccm": 50}, {"do": "wait", "seconds": 300}))
        await host.runner.wait()
        assert host.runner.state == "finished"

    performed(work)


async def nothing() -> Readings:
    raise DeviceFailed("it did not answer")


@pytest.mark.parametrize("role", ["heater", "pyrometer", "gauge"])
def test_a_device_that_fails_ends_the_recipe_in_the_safe_state(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe(*WARM))
        await asyncio.sleep(5.0)
        monkeypatch.setattr(getattr(host.lab, role), "read", nothing)
        await host.runner.wait()
        assert host.runner.state == "failed"
        assert host.elapsed_s < 15
        assert "did not answer" in host.runner.reason
        monkeypatch.undo()
        await asyncio.sleep(3.0)
        assert await at_rest(host)

    performed(work)


def test_a_lost_gas_ends_the_recipe_although_the_laser_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe({"do": "set", "device": "oxygen", "flow_sccm": 5}, {"do": "wait", "seconds": 300}))
        await asyncio.sleep(5.0)
        oxygen = next(gas for gas in host.lab.gases if gas.name == "oxygen")
        monkeypatch.setattr(oxygen, "read", nothing)
        await host.runner.wait()
        assert "oxygen is lost" in host.runner.reason
        with pytest.raises(RequestRefused, match="cannot start: oxygen is lost"):
            host.runner.start(recipe({"do": "set", "device": "oxygen", "flow_sccm": 5}))

    performed(work)


def test_a_laser_that_goes_off_by_itself_ends_the_recipe() -> None:
    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe(*WARM))
        await asyncio.sleep(10.0)
        assert host.lab.heater is not None
        await host.lab.heater.off()
        await host.runner.wait()
        assert "emits no more although it was armed" in host.runner.reason
        assert await at_rest(host)

    performed(work)


def test_stop_all_ends_the_recipe_and_nothing_is_sent_after_it() -> None:
    async def work(host: Rehearsal) -> None:
        host.runner.start(read_recipe(OXIDATION))
        await asyncio.sleep(12.0)
        assert not await at_rest(host)
        assert await host.guard.safe_state("asked for") == []
        await host.runner.wait()
        assert host.runner.reason.endswith("safe state: asked for")
        await asyncio.sleep(5.0)
        assert await at_rest(host)

    performed(work)


def test_arming_without_a_permit_ends_the_recipe_with_the_reason() -> None:
    steps = ({"do": "set", "device": "hydrogen", "flow_sccm": 5}, {"do": "wait", "seconds": 0.5}, {"do": "arm"})
    timeline = rehearse(recipe(*steps), lab, LIMITS)
    assert timeline.state == "failed"
    assert "step 3 (arm): the laser has no permit: pressure inside its window" in timeline.reason


def test_the_stage_is_moved_and_runs_are_told_in_a_dry_run() -> None:
    steps = ({"do": "start", "frames": 5}, {"do": "move", "x_um": 100, "y_um": -20}, {"do": "stop"})
    timeline = rehearse(recipe(*steps), lab, LIMITS)
    assert timeline.good
    assert timeline.channels["stage.x_m"][1][-1] == pytest.approx(100e-6, abs=1e-7)
    assert [told.name for told in timeline.events if told.name.startswith("run_")] == ["run_started", "run_finished"]
