"""Adaptations: a model set fitted to a run's own frames as a task, its scores, and its use or end."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from acquisition.errors import BadInput, RequestRefused
from acquisition.model_choice import PATIENCE_S
from inference.registry import list_model_sets
from service.adaptation_book import AdaptationBook
from service.auth import needs
from service.own_program import told_by
from service.routes.runs import path_of
from service.routes.shared import Services, Wired, begun
from service.tasks import Report

router = APIRouter(prefix="/adaptations", tags=["adaptations"])

LONGEST_MIN = 240.0


class Wanted(BaseModel):
    """Adapt the slopes of set `model` to run `run_id` for at most `minutes`; `name` is the new set's."""

    model_config = ConfigDict(extra="forbid")
    run_id: Annotated[str, Field(max_length=255)]
    model: Annotated[str, Field(max_length=80)] = "unet"
    minutes: Annotated[float, Field(gt=0, le=LONGEST_MIN)] = 5.0
    name: Annotated[str | None, Field(max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = None


@router.post("", status_code=202, openapi_extra=needs("operate"))
def adapt(wired: Wired, wanted: Wanted, response: Response) -> dict[str, Any]:
    """Adapt a model set to a recorded run's own frames; answers at once with a task, whose place is in `Location`.

    Also while a run goes on: it works in a program of its own, of low priority and on one core. Done, its `result` has
    the scores on frames that were held out, before and after, and the `id` to accept or discard where they are better.
    409 where the extra `train` is not installed.
    """
    if find_spec("torch") is None:
        raise RequestRefused("torch is not installed here: install eclips-live with the extra `train`")
    path = path_of(wired.settings.runs_folder, wanted.run_id)
    learned = [card.name for card in list_model_sets(*wired.settings.model_folders) if card.parts["slopes"].hours > 0]
    if wanted.model not in learned:
        known = ", ".join(learned) or "none"
        raise BadInput(f"there is no model set {wanted.model!r} here whose slopes are learned; those that are: {known}")
    book = _book(wired)

    def work(report: Report, _: Path) -> dict[str, Any]:
        folder = book.new_folder()
        name = wanted.name or f"{wanted.model}-{wanted.run_id}-{folder.name}"
        arguments = [str(path), f"--model={wanted.model}", f"--minutes={wanted.minutes:g}", f"--out={name}"]
        arguments.append(f"--models={wired.settings.own_models_folder}")
        try:
            told = _carry_out([*arguments, f"--into={folder}"], report)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return book.add(folder, wanted.run_id, told).tree()

    return begun(wired.tasks.start("adaptation", wanted.run_id, work), response)


@router.get("")
def adaptations(wired: Wired) -> list[dict[str, Any]]:
    """Every adaptation that was tried, the newest first: its scores before and after, its state and why."""
    return [entry.tree() for entry in _book(wired).all()]


@router.post("/{id}:accept", openapi_extra=needs("operate", driving=True))
async def accept(wired: Wired, id: str) -> dict[str, Any]:
    """Install its model set and have all workers use it; no frame is lost. 409 for one that was no better.

    `POST /models:rollback` goes back. Where a worker cannot use it the set stays installed, and nothing changes.
    """
    entry = await asyncio.to_thread(_book(wired).install, id, wired.settings.own_models_folder)
    chosen = await wired.control.ask("use_model", {"name": entry.name}, deadline_s=PATIENCE_S + 5.0)
    return entry.tree() | {"models": chosen}


@router.post("/{id}:discard", openapi_extra=needs("operate"))
def discard(wired: Wired, id: str) -> dict[str, Any]:
    """Delete its model set; its scores stay in the history."""
    return _book(wired).discard(id).tree()


def _book(wired: Services) -> AdaptationBook:
    runs = wired.settings.runs_folder
    return AdaptationBook(runs.with_name(f"{runs.name}-adaptations"))


def _carry_out(arguments: list[str], report: Report) -> dict[str, Any]:
    """After everything else, so that neither recording nor inference waits for it."""
    result: dict[str, Any] = {}
    report(0, 0)
    with closing(told_by(["adapt", *arguments, "--json"], after_all_else=True)) as told:
        for tree in told:
            if "result" in tree:
                result = tree["result"]
            else:
                report(int(tree["done"]), int(tree["total"]))
    if not result:
        raise BadInput("it ended without a result")
    return result
