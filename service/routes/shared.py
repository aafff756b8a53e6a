"""What every route works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, Response
from starlette.requests import HTTPConnection

from acquisition.control_lock import ControlLock
from service.auth import KeyCheck
from service.control_link import ControlLink
from service.hub import Hub
from service.keys import KeyBook
from service.metrics import Metrics
from service.run_control import RunControl
from service.settings import Settings
from service.standing import Standing
from service.tasks import Task, TaskBook


@dataclass(frozen=True, slots=True)
class Services:
    """The settings, the live stream as it is known here, the way to command the node, how it stands, what is measured,
    who may come in, who drives here and anywhere, and the long work at hand."""

    settings: Settings
    hub: Hub
    control: RunControl
    standing: Standing
    metrics: Metrics
    keys: KeyBook
    check: KeyCheck
    lock: ControlLock
    seat: ControlLink
    tasks: TaskBook


async def _services(connection: HTTPConnection) -> Services:
    return cast("Services", connection.app.state.services)


Wired = Annotated[Services, Depends(_services)]


def begun(task: Task, response: Response) -> dict[str, Any]:
    """The answer to who asked for long work: the task, and its place in `Location`."""
    response.headers["Location"] = f"/api/v1/tasks/{task.id}"
    return task.tree()
