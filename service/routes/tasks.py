"""Long work: how far it is, calling it off, and what it made."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from service.auth import needs
from service.routes.shared import Services, Wired

router = APIRouter(prefix="/tasks", tags=["tasks"])

FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("")
def tasks(wired: Wired) -> list[dict[str, Any]]:
    """What is at work and what was, the newest first; also heights that the node still makes of ended runs."""
    return [*_backfills(wired), *(task.tree() for task in wired.tasks.all())]


@router.get("/{name}")
def task(wired: Wired, name: str) -> dict[str, Any]:
    """One task: its state, `done` of `total`, and its result or why it failed."""
    return next((found for found in _backfills(wired) if found["id"] == name), None) or wired.tasks.find(name).tree()


@router.get("/{name}/file", response_class=FileResponse, responses=FILE)
def file(wired: Wired, name: str) -> FileResponse:
    """What a task made, such as an export."""
    path = wired.tasks.file(name)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.delete("/{name}", openapi_extra=needs("operate"))
def cancel(wired: Wired, name: str) -> dict[str, Any]:
    """Call a task off; it ends at its next step."""
    return wired.tasks.cancel(name).tree()


def _backfills(wired: Services) -> list[dict[str, Any]]:
    waiting = wired.hub.status.get("backfill", []) if wired.hub.connected else []
    rest = {"kind": "heights", "state": "running", "result": None, "reason": "", "started_utc_ns": None}
    return [
        {"id": f"heights-{one['run_id']}", "run_id": one["run_id"], "done": one["heights"], "total": one["frames"]}
        | rest
        for one in waiting
    ]
