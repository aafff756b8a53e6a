"""Commands at a terminal and pages share one seat: each sees who drives, and nobody drives beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from acquisition.control_lock import ControlLock
from acquisition.errors import RequestRefused
from programs import wait_until, write_settings
from recordings import finish, record
from service.cli import app
from service.commands.shared import driving
from service_here import Served, served

RECIPE = """
name = "wait"
description = "Longer than anybody looks."
[[steps]]
do = "set"
device = "oxygen"
flow_sccm = 1.0
[[steps]]
do = "wait"
seconds = 600.0
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("seat")
    finish(record(folder / "runs" / "known", 4, [0]))
    with served(write_settings(folder, 32)) as service:
        yield service


@pytest.fixture
def ada(here: Served) -> Iterator[httpx.Client]:
    headers = {**here.headers, "Eclips-Session": "session-of-ada"}
    with httpx.Client(base_url=f"{here.base_url}/api/v1", headers=headers, timeout=60) as made:
        wait_until(lambda: made.get("/ready").json()["node"], lambda: "the node was never heard")
        yield made
        made.delete("/control")


def command(here: Served, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--config", str(here.laboratory.config)])


def test_a_command_is_refused_with_the_name_of_whoever_drives_unless_it_takes_over(
    here: Served, ada: httpx.Client
) -> None:
    ada.post("/control", json={"name": "Ada"}).raise_for_status()
    ada.post("/replay", json={"run": "known", "speed": "step", "loop": True}).raise_for_status()
    for arguments in (("seek", "2"), ("step",), ("models", "--rollback")):
        told = command(here, *arguments)
        assert isinstance(told.exception, RequestRefused)
        assert "Ada has control" in str(told.exception) and "--take-over" in str(told.exception)
    assert command(here, "seek", "2", "--take-over").exit_code == 0
    position = lambda: ada.get("/status").json()["run"]["replayed"]["position"]  # noqa: E731
    wait_until(lambda: position() == 3, lambda: f"frame 2 was not played, the next one is {position()}")
    ada.delete("/control").raise_for_status()
    assert command(here, "seek", "1").exit_code == 0
    ada.post("/run:stop").raise_for_status()


def test_while_a_command_drives_pages_see_its_name_and_do_not_drive(here: Served, ada: httpx.Client) -> None:
    with driving(here.laboratory.settings, "recipe", take_over=False) as node:
        wait_until(lambda: ada.get("/control").json()["holder"], lambda: "nobody is told to drive")
        told = ada.get("/control").json()
        assert told["holder"].startswith("eclips recipe on ") and told["yours"] is False
        for path, body in (("/run", {}), ("/control", {"name": "Ada"})):
            answer = ada.post(path, json=body)
            assert answer.status_code == 409
            assert "eclips recipe on " in answer.json()["detail"]
        assert ada.post("/safe-state").status_code == 200
        nameless = httpx.post(f"{here.base_url}/api/v1/run", headers=here.headers, json={}, timeout=60)
        assert nameless.status_code == 409, "a request without a session drove beside the terminal"
        assert ada.post("/control", json={"name": "Ada", "take_over": True}).json()["yours"] is True
        with pytest.raises(RequestRefused, match="Ada has control"):
            node.hold()
        assert ada.post("/run:reset").status_code in (200, 409)
        assert ada.get("/control").json()["holder"] == "Ada"


def test_control_comes_back_to_the_page_once_the_command_has_left(here: Served, ada: httpx.Client) -> None:
    ada.post("/control", json={"name": "Ada"}).raise_for_status()
    with driving(here.laboratory.settings, "step", take_over=True):
        wait_until(lambda: ada.get("/control").json()["yours"] is False, lambda: "the page is not told")
    wait_until(lambda: ada.get("/control").json()["yours"], lambda: "control does not come back")
    assert ada.get("/control").json()["holder"] == "Ada"


def test_a_recipe_from_a_terminal_holds_control_until_it_ends(here: Served, ada: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "wait.toml").write_text(RECIPE)
    done: list[Result] = []
    running = threading.Thread(target=lambda: done.append(command(here, "recipe", str(tmp_path / "wait.toml"))))
    running.start()
    wait_until(lambda: ada.get("/recipe").json()["state"] == "running", lambda: "the recipe does not start")
    wait_until(lambda: ada.get("/control").json()["holder"], lambda: "nobody is told to drive")
    assert ada.post("/recipe/pause").status_code == 409
    ada.post("/recipe/abort").raise_for_status()
    running.join(60)
    assert "aborted" in str(done[0].exception)
    wait_until(lambda: ada.get("/control").json()["holder"] is None, lambda: "control is not let go of")


def test_to_hold_control_is_no_sign_of_life_of_an_operator(here: Served) -> None:
    node = here.laboratory.program.node
    seen = node.guard._operator_seen
    with driving(here.laboratory.settings, "step", take_over=True) as held:
        held.hold()
    assert node.guard._operator_seen == seen


def test_who_renames_itself_keeps_control_and_shows_the_new_name() -> None:
    lock = ControlLock("by asking")
    lock.take("session-of-ada", "Ada")
    assert lock.take("session-of-ada", "Ada B").name == "Ada B"
    with pytest.raises(RequestRefused, match="Ada B has control: wait, or take over by asking"):
        lock.take("session-of-bob", "Bob")
