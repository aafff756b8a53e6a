"""Another model set while frames go on: no frame is lost, each height is of one set, and what cannot load changes
nothing."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from acquisition.errors import BadInput, ComponentFailed, MessageRejected, RequestRefused
from acquisition.model_order import read_order
from acquisition.recording import RecordedRun, verify
from inference.registry import find_model_set
from inference.worker import Worker
from programs import wait_until, write_settings
from service.cli import app
from service.client import Lab, connect
from service_here import KEY, Served, served
from streams import Node, Numbered, QuickPipeline


class Named(QuickPipeline):
    """A quick set of any name; `bad` does not load, `late` fails on its first frame."""

    def __init__(self, model: str) -> None:
        super().__init__(0.0, self._fail if model == "late" else lambda _: None)
        self.model = model
        if model == "bad":
            raise ComponentFailed("bad/slopes.onnx is not what its card says: install again")

    def _fail(self, _: Any) -> None:
        raise BadInput("late needs four segments")


class Working:
    """A worker in a thread that loads what `Named` says."""

    def __init__(self, node: Node, load: Any = Named) -> None:
        self._stop = threading.Event()
        first: Any = Named("first")
        self.worker = Worker(first, node.endpoints.data, None, self._stop, load=load)
        self.thread = threading.Thread(target=self.worker.run, args=(lambda _: None,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self._stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


def models_of(run: Path) -> set[str]:
    return {result.header.model for result in RecordedRun(run).heights.values()}


async def test_two_workers_go_over_during_a_run_and_every_frame_has_its_height(tmp_path: Path) -> None:
    async with Node(tmp_path / "runs") as node:
        workers = [Working(node), Working(node)]
        await node.until(lambda: len(node.stream.workers()) == 2, "the workers were never seen")
        run_id = await node.start(Numbered(pace_s=0.005), frames=300)
        await node.until(lambda: node.machine.progress.frames > 20, "no frames came")
        told = await node.program.carry_out("use_model", {"name": "second"})
        assert told == {"active": "second", "before": "first"}
        assert {worker["model"] for worker in node.stream.workers()} == {"second"}
        run = await node.complete(run_id)
        recorded = RecordedRun(run)
        assert recorded.manifest.heights == 300 and verify(run).ok
        assert models_of(run) == {"first", "second"}
        swaps = [event for event in recorded.events if event.name == "model"]
        assert [event.text for event in swaps] == ["model set second in the place of first"]
        assert await node.program.carry_out("roll_back_model", {}) == {"active": "first", "before": "second"}
        for worker in workers:
            worker.close()


@pytest.mark.parametrize(("name", "reason"), [("bad", "install again"), ("late", "needs four segments")])
async def test_a_set_that_cannot_load_or_run_is_refused_and_the_old_one_goes_on(
    tmp_path: Path, name: str, reason: str
) -> None:
    async with Node(tmp_path / "runs") as node:
        working = Working(node)
        run_id = await node.start(Numbered(pace_s=0.005), frames=None)
        await node.until(lambda: working.worker.done > 3, "no heights came")
        with pytest.raises(BadInput, match=f"{reason}.*first stays in use"):
            await node.program.carry_out("use_model", {"name": name})
        done = working.worker.done
        await node.until(lambda: working.worker.done > done + 3, "the old set does not go on")
        assert node.program.node.models.tree() == {"active": "first", "before": None}
        await node.program.carry_out("stop", {})
        assert models_of(await node.complete(run_id)) == {"first"}
        working.close()


async def test_where_one_of_two_workers_cannot_the_other_goes_back(tmp_path: Path) -> None:
    def only_first(model: str) -> Any:
        return Named("bad" if model == "second" else model)

    async with Node(tmp_path / "runs") as node:
        workers = [Working(node), Working(node, only_first)]
        await node.until(lambda: len(node.stream.workers()) == 2, "the workers were never seen")
        with pytest.raises(BadInput, match="first stays in use"):
            await node.program.carry_out("use_model", {"name": "second"})
        await node.until(
            lambda: [worker["model"] for worker in node.stream.workers()] == ["first", "first"], "one did not go back"
        )
        for worker in workers:
            worker.close()


async def test_a_worker_that_starts_later_follows_the_choice(tmp_path: Path) -> None:
    async with Node(tmp_path / "runs") as node:
        with pytest.raises(RequestRefused, match="eclips infer"):
            await node.program.carry_out("use_model", {"name": "second"})
        workers = [Working(node)]
        await node.until(node.stream.workers, "the worker was never seen")
        await node.program.carry_out("use_model", {"name": "second"})
        workers.append(Working(node))
        await node.until(
            lambda: [worker["model"] for worker in node.stream.workers()] == ["second", "second"], "it did not follow"
        )
        with pytest.raises(BadInput, match="name"):
            await node.program.carry_out("use_model", {"name": "../second"})
        for worker in workers:
            worker.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"model": "m"},
        {"model": "", "order": 1},
        {"model": "x" * 81, "order": 1},
        {"model": 7, "order": 1},
        {"model": "m", "order": True},
    ],
)
def test_an_order_that_is_none_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(MessageRejected, match="a name and a whole number"):
        read_order(wrong)


# Over REST, from Python, and from the command line: the sets that are shipped


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(write_settings(tmp_path_factory.mktemp("models"), 32), with_worker=True) as service:
        wait_until(service.laboratory.program.node.stream.workers, lambda: "the worker was never seen")
        yield service


@pytest.fixture
def lab(here: Served) -> Iterator[Lab]:
    with connect(here.base_url, KEY) as made:
        made.wait_until(lambda status: status.models.active, 60)
        if made.models.in_use != "classical":
            made.models.use("classical")
        yield made


def marked(lab: Lab, mark: str) -> list[str]:
    return [card["name"] for card in lab.models.installed() if card[mark]]


def test_the_client_chooses_a_set_and_goes_back(lab: Lab) -> None:
    run = lab.start(frames=200, name="swap")
    lab.wait_until(lambda status: status.run and status.run.heights, 60)
    lab.models.use("unet")
    assert (lab.models.in_use, lab.models.before) == ("unet", "classical")
    wait_until(lambda: (marked(lab, "in_use"), marked(lab, "before")) == (["unet"], ["classical"]), lambda: "not told")
    lab.models.roll_back()
    assert (lab.models.in_use, lab.models.before) == ("classical", "unet")
    if "stop" in lab.status().permitted:
        lab.stop()
    info = run.wait(60)
    assert info is not None and info.heights == info.frames
    assert [event.text for event in lab.events() if event.name == "model"][-2:] == [
        "model set unet in the place of classical",
        "model set classical in the place of unet",
    ]


def test_an_unknown_set_is_refused_with_those_that_there_are(here: Served, lab: Lab) -> None:
    answer = httpx.post(
        f"{here.base_url}/api/v1/models:use", headers=here.headers, json={"name": "nowhere"}, timeout=60
    )
    assert answer.status_code == 422
    assert re.search("not installed; installed: classical, unet.*classical stays in use", answer.json()["detail"])
    assert lab.models.in_use == "classical"


def test_two_sets_are_compared_on_one_frame_with_its_truth(lab: Lab) -> None:
    run = lab.start(frames=1, keep_truth=True)
    run.wait(60)
    told = lab.models.compare(["classical", "unet"], run.run_id, 0)
    assert list(told["sets"]) == ["classical", "unet"]
    recorded = run.height(0).values
    for found in told["sets"].values():
        assert found["chi2"] == pytest.approx(found["figures"]["consistency_residual"] ** 2)
        assert found["seconds"] > 0
        assert 0 < found["accuracy"]["slope_error_deg"] < 45
        assert found["accuracy"]["height_error_m"] > 0
    assert 0 < told["apart_m"]["classical unet"] < 10 * np.ptp(recorded)
    with pytest.raises(BadInput, match="not installed"):
        lab.models.compare(["classical", "nowhere"], run.run_id, 0)
    with pytest.raises(BadInput, match="no recorded run"):
        lab.models.compare(["classical", "unet"], "nowhere", 0)


def test_the_command_line_chooses_a_set_and_goes_back(here: Served, lab: Lab) -> None:
    at = ["--config", str(here.laboratory.config)]
    done = CliRunner().invoke(app, ["models", "--use", "unet", *at])
    assert (done.exit_code, done.output) == (0, "model set unet is in use; classical was before\n")
    wait_until(lambda: lab.models.in_use == "unet", lambda: "nobody here heard of it")
    done = CliRunner().invoke(app, ["models", "--rollback", *at])
    assert done.exit_code == 0
    wait_until(lambda: lab.models.in_use == "classical", lambda: "nobody here heard of it")
    wait_until(lambda: lab.driver() is None, lambda: f"{lab.driver()} never let go of control")


def test_the_next_run_carries_name_and_hashes_of_the_chosen_set(here: Served, lab: Lab) -> None:
    lab.models.use("unet")
    run = lab.start(frames=1)
    run.wait(60)
    header = RecordedRun(here.laboratory.settings.runs_folder / run.run_id).heights[0].header
    assert (header.model, dict(header.model_hashes)) == ("unet", find_model_set("unet").sha256)
