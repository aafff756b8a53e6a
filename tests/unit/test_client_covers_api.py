"""Whatever the API can do, the Python client can do: a route without a call here has none in the client."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.client import Lab
from service.client_line import Line
from service.client_parts import Device, Run
from service.settings import Settings

PREFIX = "/api/v1"
NAME = "name"
TASK = {"id": NAME, "state": "done", "done": 1, "total": 1, "result": {}, "run_id": NAME, "kind": "", "reason": ""}
ENDS = ((0.0, 0.0), (9.0, 0.0))

Call = Callable[[Lab, Run, Device, Path], object]


def hold_and_let_go(lab: Lab, *_: object) -> None:
    with lab.control():
        pass


CALLS: dict[str, Call] = {
    "GET /adaptations": lambda lab, run, device, to: lab.adaptations.all(),
    "POST /adaptations": lambda lab, run, device, to: lab.adaptations.make(run_id=NAME),
    "POST /adaptations/{}:accept": lambda lab, run, device, to: lab.adaptations.accept(NAME),
    "POST /adaptations/{}:discard": lambda lab, run, device, to: lab.adaptations.discard(NAME),
    "GET /alarms": lambda lab, run, device, to: lab.alarms(),
    "POST /alarms/{}:acknowledge": lambda lab, run, device, to: lab.acknowledge(NAME),
    "GET /calibration": lambda lab, run, device, to: lab.calibration(),
    "GET /calibrations": lambda lab, run, device, to: lab.calibrations.all(),
    "POST /calibrations": lambda lab, run, device, to: lab.calibrations.make(runs=[NAME]),
    "POST /calibrations/{}:accept": lambda lab, run, device, to: lab.calibrations.accept(NAME),
    "POST /calibrations/{}:discard": lambda lab, run, device, to: lab.calibrations.discard(NAME),
    "GET /colormaps": lambda lab, run, device, to: lab.colormaps(),
    "GET /colormaps/{}": lambda lab, run, device, to: lab.colormap(NAME),
    "GET /control": lambda lab, run, device, to: lab.driver(),
    "POST /control": hold_and_let_go,
    "DELETE /control": hold_and_let_go,
    "GET /devices": lambda lab, run, device, to: lab.devices,
    "GET /devices/{}": lambda lab, run, device, to: device.state,
    "POST /devices/{}/setpoints": lambda lab, run, device, to: device.set(current_a=0.0),
    "POST /devices/{}:arm": lambda lab, run, device, to: device.arm(),
    "POST /devices/{}:off": lambda lab, run, device, to: device.off(),
    "POST /devices/{}:stop": lambda lab, run, device, to: device.stop(),
    "GET /events": lambda lab, run, device, to: lab.events(),
    "GET /health": lambda lab, run, device, to: lab.alive,
    "GET /interlocks": lambda lab, run, device, to: lab.interlocks(),
    "GET /keys": lambda lab, run, device, to: lab.made_keys(),
    "POST /keys": lambda lab, run, device, to: lab.make_key(NAME),
    "DELETE /keys/{}": lambda lab, run, device, to: lab.revoke_key(NAME),
    "GET /metrics": lambda lab, run, device, to: lab.metrics(),
    "GET /models": lambda lab, run, device, to: lab.models.installed(),
    "POST /models:compare": lambda lab, run, device, to: lab.models.compare([NAME], NAME, 0),
    "POST /models:rollback": lambda lab, run, device, to: lab.models.roll_back(),
    "POST /models:use": lambda lab, run, device, to: lab.models.use(NAME),
    "POST /operator:heartbeat": lambda lab, run, device, to: lab.sign_of_life(),
    "GET /plan": lambda lab, run, device, to: lab.plan(),
    "GET /ready": lambda lab, run, device, to: lab.ready,
    "GET /recipe": lambda lab, run, device, to: lab.recipe(),
    "POST /recipe": lambda lab, run, device, to: lab.start_recipe({}),
    "POST /recipe/abort": lambda lab, run, device, to: lab.abort_recipe(),
    "POST /recipe/dry-run": lambda lab, run, device, to: lab.rehearse({}),
    "POST /recipe/pause": lambda lab, run, device, to: lab.pause_recipe(),
    "POST /recipe/resume": lambda lab, run, device, to: lab.resume_recipe(),
    "POST /replay": lambda lab, run, device, to: lab.replay(NAME),
    "POST /replay:seek": lambda lab, run, device, to: lab.seek(0),
    "POST /replay:step": lambda lab, run, device, to: lab.step(),
    "POST /run": lambda lab, run, device, to: lab.start(),
    "POST /run:abort": lambda lab, run, device, to: lab.abort(),
    "POST /run:reset": lambda lab, run, device, to: lab.reset(),
    "POST /run:stop": lambda lab, run, device, to: lab.stop(),
    "GET /runs": lambda lab, run, device, to: lab.runs(),
    "GET /runs/{}": lambda lab, run, device, to: run.info,
    "POST /runs/{}/export": lambda lab, run, device, to: run.export(to),
    "GET /runs/{}/files": lambda lab, run, device, to: run.files(),
    "GET /runs/{}/files/{}": lambda lab, run, device, to: run.save_file(NAME, to),
    "GET /runs/{}/frames": lambda lab, run, device, to: run.frames(),
    "GET /runs/{}/frames/{}": lambda lab, run, device, to: run.frame(0),
    "GET /runs/{}/heights/{}": lambda lab, run, device, to: run.height(0),
    "GET /runs/{}/heights/{}/facets": lambda lab, run, device, to: run.facets(0),
    "GET /runs/{}/heights/{}/facets/labels": lambda lab, run, device, to: run.facet_labels(0),
    "GET /runs/{}/heights/{}/profile": lambda lab, run, device, to: run.measure(0, *ENDS),
    "GET /runs/{}/kymograph": lambda lab, run, device, to: run.kymograph(*ENDS),
    "GET /runs/{}/track": lambda lab, run, device, to: run.tracked(),
    "POST /runs/{}/verify": lambda lab, run, device, to: run.verify(),
    "POST /runs/{}:report": lambda lab, run, device, to: run.report(to),
    "POST /runs/{}:track": lambda lab, run, device, to: run.track(),
    "POST /safe-state": lambda lab, run, device, to: lab.safe_state(),
    "GET /status": lambda lab, run, device, to: lab.status(),
    "GET /tasks": lambda lab, run, device, to: lab.tasks.all(),
    "DELETE /tasks/{}": lambda lab, run, device, to: lab.tasks.cancel(NAME),
    "GET /tasks/{}": lambda lab, run, device, to: lab.tasks.find(NAME),
    "GET /tasks/{}/file": lambda lab, run, device, to: lab.tasks.save_file(NAME, to),
    "GET /trends": lambda lab, run, device, to: lab.trends(),
}


def test_every_operation_of_the_api_has_a_call_of_the_client() -> None:
    paths = create_app(Settings(), key="").openapi()["paths"]
    operations = {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path.removeprefix(PREFIX))}"
        for path, methods in paths.items()
        for method in methods
    }
    assert operations == set(CALLS)


@pytest.mark.parametrize("operation", CALLS)
def test_the_call_asks_for_its_operation(operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path.removeprefix(PREFIX)}")
        return httpx.Response(200, json=TASK)

    line = Line("http://lab", NAME, 1.0, True)
    monkeypatch.setattr(line, "_http", httpx.Client(transport=httpx.MockTransport(answer)))
    with suppress(KeyError, TypeError, ValueError):  # of an answer that is not this operation's
        CALLS[operation](Lab(line), Run(line, NAME), Device(line, NAME, ""), tmp_path / "made")
    pattern = re.escape(operation).replace(r"\{\}", r"[^/:]+")
    assert any(re.fullmatch(pattern, request) for request in asked), asked
