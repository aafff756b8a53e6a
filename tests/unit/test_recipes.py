"""Recipes on the simulated lab in leaping time: what is done, and how each one ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from acquisition.devices import Readings
from acquisition.errors import BadInput, DeviceFailed, RequestRefused
from acquisition.recipes.parsing import read_recipe
from acquisition.recipes.steps import MOL_PER_S_PER_SCCM
from acquisition.rehearsal import Rehearsal, rehearse
from rehearsed import LIMITS, OXIDATION, at_rest, hold, lab, performed, recipe, texts
from service.timeline_picture import draw_timeline

WARM = (
    {"do": "arm"},
    {"do": "set", "device": "heater", "current_a": 0.9},
    {"do": "wait", "seconds": 600.0},
)


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


def test_ramps_and_holds_begin_at_what_was_set_just_before_and_bring_no_older_setpoint_back() -> None:
    """Devices are read four times a second, and steps follow one another at once."""
    steps = (
        {"do": "set", "device": "oxygen", "flow_sccm": 20.0},
        {"do": "wait", "seconds": 1.0},
        {"do": "set", "device": "oxygen", "flow_sccm": 5.0},
        {"do": "ramp", "device": "oxygen", "flow_sccm": 8.0, "over_s": 1.0},
        hold(channel="gauge.pressure_pa", by="oxygen.flow_sccm", gain=1e-3, high=30.0),
        {"do": "wait", "seconds": 1.0},
    )

    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe(*steps))
        await asyncio.sleep(3.0)
        assert texts(host, "ramp") == ["oxygen flow_sccm: 5 to 8 in 1 s"]
        assert host.runner.tree()["holds"][0]["output"] == pytest.approx(8.0, abs=0.05)

    performed(work)


def test_a_power_is_ramped_from_what_the_laser_gives_and_held_until_a_current_is_set() -> None:
    steps = (
        {"do": "set", "device": "heater", "current_a": 0.7},
        {"do": "arm"},
        {"do": "ramp", "device": "heater", "power_w": 16.0, "power_w_per_s": 3.0},
        {"do": "wait", "seconds": 1.0},
        hold(by="heater.power_w", gain=1e-3, high=20.0),
        {"do": "wait", "seconds": 1.0},
        {"do": "set", "device": "heater", "current_a": 0.5},
        {"do": "wait", "seconds": 1.0},
    )

    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe(*steps))
        await asyncio.sleep(3.2)
        assert texts(host, "ramp") == ["heater power_w: 10 to 16 in 2 s"]
        assert host.state.latest()["heater.power_w"].value == pytest.approx(16.0)
        await asyncio.sleep(1.0)
        assert host.runner.tree()["holds"][0]["output"] == pytest.approx(16.0, abs=0.5)
        await asyncio.sleep(1.0)
        assert host.runner.tree()["holds"] == []
        assert host.state.latest()["heater.power_w"].value == pytest.approx(6.0)
        await host.runner.wait()
        assert host.runner.state == "finished" and await at_rest(host)

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
