"""A model set adapted to a recorded run over REST: scored, installed and used, or left alone with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import httpx
import pytest

from acquisition.errors import BadInput, RequestRefused
from acquisition.recording import RecordedRun
from adapted_frames import record_rough
from inference.registry import MODELS, find_model_set
from programs import wait_until, write_settings
from service.adaptation_book import AdaptationBook
from service.routes import adaptations
from service_here import Served, served

NAME = "adapted-in-a-test"
HTTP = httpx.Client(timeout=60.0)  # a new one for every look would take the core from what is looked at


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("adaptations")
    with served(write_settings(folder, 64), with_worker=True) as found:
        record_rough(found.laboratory.settings.runs_folder / "rough", every_s=0.4)
        yield found


def ask(lab: Served, method: str, path: str, **body: Any) -> httpx.Response:
    return HTTP.request(method, f"{lab.base_url}/api/v1/{path}", headers=lab.headers, json=body or None)


def ended(lab: Served, task: str) -> dict[str, Any]:
    wait_until(
        lambda: ask(lab, "GET", f"tasks/{task}").json()["state"] in ("done", "failed", "cancelled"),
        lambda: f"{ask(lab, 'GET', f'tasks/{task}').json()} goes on",
        600.0,
    )
    return dict(ask(lab, "GET", f"tasks/{task}").json())


@pytest.mark.timeout(900)
def test_a_better_set_is_made_while_a_replay_is_recorded_used_when_accepted_and_taken_back(lab: Served) -> None:
    began = ask(lab, "POST", "replay", run="rough", loop=True, record=True)
    assert began.status_code == 201, began.text
    folder = lab.laboratory.settings.runs_folder / began.json()["run_id"]
    answer = ask(lab, "POST", "adaptations", run_id="rough", model="unet", minutes=1e-3, name=NAME)
    assert answer.status_code == 202, answer.text
    task = ended(lab, answer.json()["id"])
    assert task["state"] == "done", task["reason"]
    assert task["result"]["state"] == "candidate", task["result"]["scores"]["reason"]
    scores = task["result"]["scores"]
    assert scores["after"]["left_out_chi2"] < scores["before"]["left_out_chi2"]
    own = lab.laboratory.settings.own_models_folder
    assert not (own / NAME).exists()
    until_heights(lab, 1)

    id = task["result"]["id"]
    accepted = ask(lab, "POST", f"adaptations/{id}:accept")
    assert accepted.status_code == 200, accepted.text
    assert accepted.json()["models"]["active"] == NAME
    card = find_model_set(NAME, own)
    assert not (MODELS / NAME).exists()
    assert "run rough" in card.parts["slopes"].data and "unet" in card.parts["slopes"].data
    assert card.parts["slopes"].figures["after_left_out_chi2"] == scores["after"]["left_out_chi2"]
    assert card.parts["slopes"].command.startswith("eclips adapt rough --model unet")
    assert card.parts["rerender"] == find_model_set("unet").parts["rerender"]

    assert ask(lab, "GET", "adaptations").json()[0]["state"] == "accepted"
    until_heights(lab, 2)
    compared = ask(lab, "POST", "models:compare", names=["unet", NAME], run_id="rough", sequence=0)
    assert set(ended(lab, compared.json()["id"])["result"]["sets"]) == {"unet", NAME}
    assert ask(lab, "POST", "models:rollback").json()["active"] == "classical"
    until_heights(lab, 2)
    assert ask(lab, "POST", "run:stop").status_code == 200
    wait_until(lambda: RecordedRun(folder).manifest.status == "complete", lambda: "the recording is not complete")

    run = RecordedRun(folder)
    assert list(run.sequences) == list(range(len(run.sequences)))
    assert run.missing_heights == []
    assert ask(lab, "GET", "status").json()["drops"]["refused"] == 0
    models = [height.header.model for height in run.heights.values()]
    assert set(models) == {"classical", NAME} and models[0] == models[-1] == "classical"

    again = ask(lab, "POST", f"adaptations/{id}:accept")
    assert again.status_code == 409 and "was accepted already" in again.json()["detail"]


def until_heights(lab: Served, more: int) -> None:
    def heights() -> int:
        return int(ask(lab, "GET", "status").json()["run"]["heights"])

    before = heights()
    wait_until(lambda: heights() >= before + more, lambda: "no more heights come")


def test_without_torch_it_is_refused_with_the_extra_to_install(lab: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptations, "find_spec", lambda name: None if name == "torch" else util.find_spec(name))
    answer = ask(lab, "POST", "adaptations", run_id="rough")
    assert answer.status_code == 409 and "extra `train`" in answer.json()["detail"]


def test_unknown_runs_and_sets_are_refused(lab: Served) -> None:
    assert ask(lab, "POST", "adaptations", run_id="nothing").status_code == 422
    classical = ask(lab, "POST", "adaptations", run_id="rough", model="classical")
    assert classical.status_code == 422 and "whose slopes are learned" in classical.json()["detail"]
    assert ask(lab, "POST", "adaptations/0999:discard").status_code == 422


def test_what_was_no_better_stays_in_the_history_and_cannot_be_installed(tmp_path: Path) -> None:
    book = AdaptationBook(tmp_path / "book")
    id = book.add(book.new_folder(), "rough", {"name": None, "reason": "it was no better"}).id
    assert [entry.state for entry in book.all()] == ["no_better"]
    with pytest.raises(RequestRefused, match="was not accepted: it was no better"):
        book.install(id, tmp_path)
    with pytest.raises(BadInput, match="there is no adaptation 'x'; the newest: 0001"):
        book.find("x")


def test_what_is_discarded_loses_its_set_and_keeps_its_scores(tmp_path: Path) -> None:
    book = AdaptationBook(tmp_path / "book")
    folder = book.new_folder()
    (folder / "better").mkdir()
    entry = book.add(folder, "rough", {"name": "better", "gain": 1.5})
    assert book.discard(entry.id).state == "discarded"
    assert not (folder / "better").exists()
    assert book.find(entry.id).told["gain"] == 1.5
    with pytest.raises(RequestRefused, match="was discarded already"):
        book.install(entry.id, tmp_path)
