"""What every route works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from service.auth import KeyCheck
from service.control_lock import ControlLock
from service.hub import Hub
from service.keys import KeyBook
from service.metrics import Metrics
from service.run_control import RunControl
from service.settings import Settings
from service.tasks import TaskBook


@dataclass(frozen=True, slots=True)
class Services:
    """The settings, the live stream as it is known here, the way to command the node, what is measured, who may come
    in, who drives, and the long work at hand."""

    settings: Settings
    hub: Hub
    control: RunControl
    metrics: Metrics
    keys: KeyBook
    check: KeyCheck
    lock: ControlLock
    tasks: TaskBook


def _services(connection: HTTPConnection) -> Services:
    return cast("Services", connection.app.state.services)


Wired = Annotated[Services, Depends(_services)]
