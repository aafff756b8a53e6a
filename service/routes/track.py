"""Tracking a recorded run: drift, steps, spirals, velocities and kinetics over all its frames.

What tracks is imported when it is asked for: no page waits for SciPy when the service starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from service.auth import needs
from service.routes.runs import path_of
from service.routes.shared import Wired
from service.tasks import Report

router = APIRouter(prefix="/runs", tags=["runs"])

MOST_REGIONS = 16


class Wanted(BaseModel):
    """`reference`: places `x,y,width,height` in pixels of the first frame that do not grow. Heights are levelled by
    them, and growth is against the first; without any, growth is refused."""

    model_config = ConfigDict(extra="forbid")
    reference: list[str] = Field(default_factory=list, max_length=MOST_REGIONS)


@router.post("/{run_id}:track", status_code=202, openapi_extra=needs("operate"))
def track(wired: Wired, run_id: str, response: Response, wanted: Wanted | None = None) -> dict[str, Any]:
    """Measure drift, steps, spirals, velocities and kinetics of a run; what is found is kept beside its files.

    Answers at once with a task, whose place is in `Location`; the result is under `/runs/{id}/track` once it is done.
    """
    from inference.metrology.volume import Levelling, parse_region
    from service.track_store import track_and_store

    path = path_of(wired.settings.runs_folder, run_id)
    levelling = Levelling(tuple(parse_region(text) for text in (wanted.reference if wanted else ())))

    def work(report: Report, folder: Path) -> dict[str, Any]:
        tree = track_and_store(path, levelling, report)[1]
        return {"frames": len(tree["frames"]), "spirals": len(tree["spirals"]), "kinetics": tree["kinetics"]}

    task = wired.tasks.start("track", run_id, work)
    response.headers["Location"] = f"/api/v1/tasks/{task.id}"
    return task.tree()


@router.get("/{run_id}/track")
def tracked(wired: Wired, run_id: str) -> dict[str, Any]:
    """What tracking a run found, and whether its frames and heights are still those it was computed from."""
    from service.track_store import stored_track

    return stored_track(path_of(wired.settings.runs_folder, run_id))
