"""How a route gets at the hub, the control and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from service.app import Services


def _services(connection: HTTPConnection) -> Services:
    return cast("Services", connection.app.state.services)


Wired = Annotated["Services", Depends(_services)]
