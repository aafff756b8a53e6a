"""Reading and driving single devices."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from acquisition.errors import RequestRefused
from service.auth import needs
from service.routes.shared import Wired
from service.standing import ASKING_DEADLINE_S

router = APIRouter(prefix="/devices", tags=["devices"])


@router.get("")
def devices(wired: Wired) -> Any:
    """Every device with kind, readings and limits."""
    return wired.control.call("status", deadline_s=ASKING_DEADLINE_S)["devices"]


@router.get("/{name}")
def device(wired: Wired, name: str, response: Response) -> Any:
    """One device with kind, readings and limits. The ETag changes with each thing sent to it, not with its readings."""
    known = wired.control.call("status", deadline_s=ASKING_DEADLINE_S)["devices"]
    if name not in known:
        raise RequestRefused(f"there is no device {name!r}", permitted=tuple(known))
    response.headers["ETag"] = f'"{known[name]["tag"]}"'
    response.headers["Cache-Control"] = "no-store"
    return known[name]


@router.post("/{name}/setpoints", openapi_extra=needs("hardware", driving=True))
async def set_points(
    wired: Wired, name: str, values: dict[str, float], if_match: Annotated[str | None, Header()] = None
) -> dict[str, Any]:
    """Set one device, e.g. `{"current_a": 1.1}`. Beyond a limit: 422 with value and limit, and nothing is sent.

    With the device's ETag in `If-Match`: 412 with what was sent to it since, where something was, and nothing is sent.
    """
    only_if = {} if if_match is None or if_match.strip() == "*" else {"only_if": _tags(if_match)}
    reached = await wired.control.ask("set", {"device": name, "values": values, **only_if})
    return {"reached": reached}


@router.post("/{name}:arm", openapi_extra=needs("hardware", driving=True))
async def arm(wired: Wired, name: str) -> dict[str, Any]:
    """Allow the laser to emit. 409 with every condition of the permit that does not hold."""
    await wired.control.ask("arm", {"device": name})
    return {}


@router.post("/{name}:off", openapi_extra=needs("read"))
async def off(wired: Wired, name: str) -> dict[str, Any]:
    """Laser off, or gas shut. Always permitted, to whoever may look."""
    await wired.control.ask("off", {"device": name})
    return {}


@router.post("/{name}:stop", openapi_extra=needs("read"))
async def stop(wired: Wired, name: str) -> dict[str, Any]:
    """Hold the stage where it is. Always permitted, to whoever may look."""
    await wired.control.ask("stop_device", {"device": name})
    return {}


def _tags(if_match: str) -> list[str]:
    """Of a header such as `"1f-7", "1f-8"`; weak ones never match."""
    return [tag.strip().removeprefix('"').removesuffix('"') for tag in if_match.split(",")]
