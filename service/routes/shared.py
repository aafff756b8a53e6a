"""What every route works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from service.hub import Hub
from service.metrics import Metrics
from service.run_control import RunControl
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """The settings, the live stream as it is known here, the way to command the node, and what is measured."""

    settings: Settings
    hub: Hub
    control: RunControl
    metrics: Metrics


def _services(connection: HTTPConnection) -> Services:
    return cast("Services", connection.app.state.services)


Wired = Annotated[Services, Depends(_services)]
