"""The oxidation recipe, shortened, on the real programs: it runs, pauses, aborts into the safe state, and every action
is in the journal."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tomli_w
from click.testing import Result
from typer.testing import CliRunner

from acquisition.errors import BadInput, ComponentFailed, EclipsError, LimitExceeded, RequestRefused
from acquisition.recording import RecordedRun
from programs import Laboratory, write_settings
from service.cli import app
from service_here import Served, served

OXIDATION = Path(__file__).parents[2] / "deploy" / "oxidation.toml"


def shortened(*first: dict[str, Any]) -> dict[str, Any]:
    """Less hot, less pressure, seconds of oxygen."""
    tree = tomllib.loads(OXIDATION.read_text(encoding="utf-8"))
    for step in tree["steps"]:
        if step.get("temperature_k"):
            step["temperature_k"] = 640.0 if step["temperature_k"] > 700 else 620.0
        if step["do"] == "hold":
            step["per_s"] = 2.0
        if step.get("channel", "").startswith("pyrometer") and "near" in step:
            step.update(near=640.0, tolerance=15.0, for_s=0.5)
        if step.get("channel", "").startswith("gauge"):
            step.update({"above": 3.0} if "above" in step else {"near": 50.0, "tolerance": 47.0, "for_s": 0.5})
        if step.get("seconds"):
            step["seconds"] = 1.0
    tree["steps"][:0] = first
    return tree


async def at_rest(laboratory: Laboratory) -> bool:
    lab = laboratory.program.node.lab
    assert lab.heater is not None
    status = await lab.heater.status()
    flows = [(await gas.read())["flow_setpoint_mol_per_s"].value for gas in lab.gases]
    return not status.emission_on and status.current_target_a == 0 and not any(flows)


async def test_the_recipe_runs_survives_a_pause_and_every_action_is_in_the_journal(tmp_path: Path) -> None:
    async with Laboratory(write_settings(tmp_path)) as laboratory:
        start = {"do": "start", "name": "oxidised"}
        wanted = shortened(start)
        wanted["steps"].append({"do": "stop"})
        await laboratory.ask("recipe_start", recipe=wanted)
        runner = laboratory.program.node.recipes
        assert runner is not None
        await laboratory.until(lambda: runner.tree()["step"] >= 6)
        assert (await laboratory.ask("recipe_pause"))["state"] == "paused"
        with pytest.raises(RequestRefused, match=r"heater is driven by a recipe: abort the recipe first"):
            await laboratory.ask("set", device="heater", values={"current_a": 0.1})
        step = runner.tree()["step"]
        await asyncio.sleep(0.6)
        assert runner.tree()["step"] == step
        assert not await at_rest(laboratory)
        await laboratory.ask("recipe_resume")
        await laboratory.until(lambda: not runner.active)
        assert (runner.state, runner.reason) == ("finished", "")
        assert await at_rest(laboratory)
        (folder,) = (tmp_path / "runs").iterdir()
    events = [event for event in RecordedRun(folder).events if event.source == "acquisition"]
    steps = [int(event.details["step"]) for event in events if event.name == "recipe_step"]
    assert steps == list(range(2, len(wanted["steps"]) + 1))
    names = [event.name for event in events]
    assert {"recipe", "setpoint", "armed", "hold", "ramp", "mark", "off"} <= set(names)
    states = [event.details["after"] for event in events if event.name == "recipe" and "after" in event.details]
    assert states[:2] == ["paused", "running"]
    kept = next(event.details["recipe"] for event in events if "recipe" in event.details)
    assert kept["name"] == "oxidation"
    assert len(kept["steps"]) == len(wanted["steps"])


async def test_an_abort_ends_in_the_verified_safe_state(tmp_path: Path) -> None:
    async with Laboratory(write_settings(tmp_path)) as laboratory:
        await laboratory.ask("recipe_start", recipe=shortened())
        runner = laboratory.program.node.recipes
        assert runner is not None
        await laboratory.until(lambda: runner.tree()["step"] >= 5)
        assert (await laboratory.ask("recipe_abort"))["unverified"] == []
        assert await at_rest(laboratory)
        assert (await laboratory.ask("status"))["recipe"]["state"] == "aborted"
        with pytest.raises(RequestRefused, match="possible now: recipe_start"):
            await laboratory.ask("recipe_abort")


async def test_off_by_hand_and_a_runs_fault_end_the_recipe(tmp_path: Path) -> None:
    async with Laboratory(write_settings(tmp_path)) as laboratory:
        runner = laboratory.program.node.recipes
        assert runner is not None
        await laboratory.ask("recipe_start", recipe=shortened())
        await laboratory.until(lambda: runner.tree()["step"] >= 4)
        await laboratory.ask("off", device="heater")
        assert (runner.state, await at_rest(laboratory)) == ("aborted", True)
        assert "heater was switched off by hand" in runner.reason
        await laboratory.ask("recipe_start", recipe=shortened({"do": "start", "record": False}))
        await laboratory.until(lambda: runner.tree()["step"] >= 5)
        await laboratory.program.node.machine.fail("a test says so")
        await laboratory.until(lambda: not runner.active)
        assert runner.state == "failed"
        assert "a test says so" in runner.reason
        assert await at_rest(laboratory)


async def test_a_run_under_way_is_not_disturbed_by_a_recipe_that_starts_one(tmp_path: Path) -> None:
    async with Laboratory(write_settings(tmp_path)) as laboratory:
        await laboratory.ask("start", record=False)
        with pytest.raises(RequestRefused, match="starts a run, and the present one is acquiring: end that"):
            await laboratory.ask("recipe_start", recipe=shortened({"do": "start"}))
        steps = [{"do": "set", "device": "oxygen", "flow_sccm": 5}, {"do": "wait", "seconds": 0.3}]
        await laboratory.ask("recipe_start", recipe={"name": "beside", "steps": steps})
        runner = laboratory.program.node.recipes
        assert runner is not None
        await laboratory.until(lambda: not runner.active)
        assert runner.state == "finished"
        assert laboratory.program.node.machine.state == "acquiring"
        assert await at_rest(laboratory)


async def test_a_recipe_beyond_a_limit_sends_nothing(tmp_path: Path) -> None:
    async with Laboratory(
        write_settings(tmp_path, limits="flow_sccm = { hydrogen = 150.0, oxygen = 10.0 }")
    ) as laboratory:
        with pytest.raises(LimitExceeded, match=r"step 9 \(set\): oxygen flow_sccm 20 is above its limit of 10"):
            await laboratory.ask("recipe_start", recipe=shortened())
        assert await at_rest(laboratory)
        assert (await laboratory.ask("status"))["recipe"]["state"] == "idle"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_settings(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def here(config: Path) -> Iterator[Served]:
    with served(config) as service:
        yield service


@pytest.fixture(scope="module")
def client(here: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=here.base_url + "/api/v1", headers=here.headers, timeout=60) as made:
        yield made


def test_rest_starts_pauses_resumes_and_aborts(client: httpx.Client) -> None:
    assert client.get("/recipe").json()["state"] == "idle"
    started = client.post("/recipe", json={"recipe": shortened()})
    assert started.status_code == 201, started.text
    again = client.post("/recipe", json={"recipe": shortened()})
    assert again.status_code == 409
    assert again.json()["permitted"] == ["recipe_pause", "recipe_abort"]
    assert client.post("/recipe/pause").json()["state"] == "paused"
    assert client.post("/recipe/resume").json()["state"] == "running"
    assert client.post("/recipe/abort").json() == {"unverified": []}
    assert client.get("/recipe").json()["state"] == "aborted"


def test_rest_refuses_with_step_value_and_limit(client: httpx.Client) -> None:
    bad = {"name": "bad", "steps": [{"do": "set", "device": "heater", "current_a": 1.8}]}
    answer = client.post("/recipe", json={"recipe": bad})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert (answer.json()["value"], answer.json()["limit"]) == (1.8, 1.5)
    for body in ({}, {"recipe": {}, "text": ""}, {"text": "steps ="}, {"recipe": {"name": "x"}}):
        assert client.post("/recipe", json=body).status_code == 422
        assert client.post("/recipe/dry-run", json=body).status_code == 422


def test_rest_tells_the_timeline_of_a_dry_run(client: httpx.Client) -> None:
    answer = client.post("/recipe/dry-run", json={"text": tomli_w.dumps(shortened())})
    timeline = answer.raise_for_status().json()
    assert (timeline["state"], timeline["good"]) == ("finished", True)
    trace = timeline["channels"]["pyrometer.temperature_k"]
    assert len(trace["times_s"]) == len(trace["values"]) > 20
    assert client.get("/recipe").json()["state"] in ("idle", "aborted")


def run_command(*arguments: str) -> Result:
    """`eclips recipe` in this process."""
    return CliRunner().invoke(app, ["recipe", *arguments])


def test_the_command_follows_a_recipe_on_the_node_to_its_end(config: Path, here: Served, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    steps = [{"do": "set", "device": "hydrogen", "flow_sccm": 50}, {"do": "wait", "seconds": 1.0}]
    file.write_text(json.dumps({"name": "short", "steps": steps}))
    done = run_command(str(file), "--config", str(config), "--json")
    assert done.exit_code == 0, done.output
    assert "nobody is at this terminal: keep a page open" in done.output
    assert "step 2 of 2: wait seconds 1" in done.output
    assert json.loads(done.output[done.output.index("{") : done.output.rindex("}") + 1])["state"] == "finished"


def test_ctrl_c_aborts_the_recipe_that_the_command_follows(
    config: Path, here: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.commands.recipe.time.sleep", interrupted)
    done = run_command(str(OXIDATION), "--config", str(config))
    assert done.exit_code == 130
    assert "aborted: laser, gas and scan were brought to rest and read back" in done.output
    assert client.get("/recipe").json()["state"] == "aborted"


def test_the_command_ends_with_an_error_when_the_recipe_fails(config: Path, here: Served, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(
        'name = "never"\n[[steps]]\ndo = "wait"\nchannel = "gauge.pressure_pa"\nabove = 900\ntimeout_s = 0.5'
    )
    done = run_command(str(file), "--config", str(config))
    assert isinstance(done.exception, EclipsError)
    assert "recipe never failed at step 1 (wait): " in str(done.exception)


def test_the_command_rehearses_without_any_node_and_draws_only_then(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(tomli_w.dumps(shortened()))
    done = run_command(str(file), "--dry-run", "--config", str(write_settings(tmp_path)))
    assert done.exit_code == 0, done.output
    assert "dry run of oxidation: finished after" in done.output
    assert "step 15 of 15: off device hydrogen" in done.output
    refused = run_command(str(OXIDATION), "--picture", str(tmp_path / "timeline.png"))
    assert isinstance(refused.exception, BadInput)
    assert "add --dry-run" in str(refused.exception)


def test_the_command_without_a_node_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.commands.shared.COMMAND_DEADLINE_S", 0.5)
    done = run_command(str(OXIDATION), "--config", str(write_settings(tmp_path)))
    assert isinstance(done.exception, ComponentFailed)
    assert "did not answer control_hold" in str(done.exception)
