"""Model sets: which there are, which is in use, another one while frames go on, and one beside another."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from acquisition.commands import UseModel
from acquisition.errors import BadInput
from acquisition.model_choice import PATIENCE_S
from inference.registry import list_model_sets
from service.auth import needs
from service.routes.runs import path_of
from service.routes.shared import Wired, begun
from service.tasks import Report

router = APIRouter(tags=["models"])

OPERATE = needs("operate", driving=True)
MOST_COMPARED = 8
CHANGE_DEADLINE_S = PATIENCE_S + 5.0


class CompareModels(BaseModel):
    """Which sets on which recorded frame."""

    model_config = ConfigDict(extra="forbid")
    names: Annotated[list[Annotated[str, Field(max_length=80)]], Field(min_length=2, max_length=MOST_COMPARED)]
    run_id: Annotated[str, Field(max_length=255)]
    sequence: Annotated[int, Field(ge=0, lt=2**53)]


@router.get("/models")
async def models(wired: Wired) -> list[dict[str, Any]]:
    """The model sets that are installed here, what their cards say, which is `in_use`, and which was `before`."""
    chosen = (await wired.standing.tree())["models"] if wired.hub.connected else {}
    return [
        card.tree() | {"in_use": card.name == chosen.get("active"), "before": card.name == chosen.get("before")}
        for card in await run_in_threadpool(list_model_sets, *wired.settings.model_folders)
    ]


@router.post("/models:use", openapi_extra=OPERATE)
async def use(wired: Wired, wanted: UseModel) -> Any:
    """Have all workers use another model set; no frame is lost. 422 with the reason where one cannot: all stays.

    Answers once every worker has loaded it, tried it on the newest frame and gone over: a second or two.
    """
    return await wired.control.ask("use_model", wanted.model_dump(), deadline_s=CHANGE_DEADLINE_S)


@router.post("/models:rollback", openapi_extra=OPERATE)
async def roll_back(wired: Wired) -> Any:
    """Go back to the model set that was in use before. 409 when there was none."""
    return await wired.control.ask("roll_back_model", deadline_s=CHANGE_DEADLINE_S)


@router.post("/models:compare", status_code=202, openapi_extra=needs("operate"))
def compare(wired: Wired, wanted: CompareModels, response: Response) -> dict[str, Any]:
    """One recorded frame through several model sets, as a task: figures, time, and errors where there is truth.

    `result.sets` has, by set, `figures` (as of a result), `chi2`, `seconds` and, where the run has its truth,
    `accuracy`; `result.apart_m` is how far their heights lie apart, rms without a plane.
    """
    from service.wiring import pipeline  # wiring builds the application, and with it this route

    path = path_of(wired.settings.runs_folder, wanted.run_id)
    installed = [card.name for card in list_model_sets(*wired.settings.model_folders)]
    unknown = sorted(set(wanted.names) - set(installed))
    if unknown:
        raise BadInput(f"model set {unknown[0]!r} is not installed here; installed: {', '.join(installed)}")

    def work(report: Report, _: object) -> dict[str, Any]:
        from inference.comparison import compare_sets

        return compare_sets(path, wanted.sequence, wanted.names, lambda name: pipeline(wired.settings, name), report)

    return begun(wired.tasks.start("compare", wanted.run_id, work), response)
