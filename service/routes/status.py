"""How the whole stands, now and over the last hour."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from service.auth import needs
from service.pictures import COLORMAPS, colormap
from service.routes.shared import Services, Wired

router = APIRouter(tags=["status"])

Span = Annotated[float, Query(gt=0, le=3600)]


@router.get("/status")
async def status(wired: Wired) -> Any:
    """The node's status, never of before a command that was answered here. 503 when the node is silent."""
    return Response(await wired.standing.encoded(), media_type="application/json")


@router.get("/interlocks")
async def interlocks(wired: Wired) -> Any:
    """The laser's permit, every condition of it, and how long it waits for a sign of life of an operator."""
    return (await wired.standing.tree())["interlocks"]


@router.get("/alarms")
async def alarms(wired: Wired) -> Any:
    """The alarms that stand, each with what to do."""
    return (await wired.standing.tree())["alarms"]


@router.get("/ready")
async def ready(wired: Wired) -> dict[str, Any]:
    """Whether frames can be turned into heights: a node that beats and a worker that asks."""
    workers = wired.hub.status.get("workers", []) if wired.hub.connected else []
    return {"ready": wired.hub.connected and bool(workers), "node": wired.hub.connected, "workers": len(workers)}


@router.get("/trends")
def trends(wired: Wired, seconds: Span = 900) -> dict[str, Any]:
    """Every channel over the last `seconds`; null where a reading was invalid."""
    since_ns = time.time_ns() - round(seconds * 1e9)
    channels: dict[str, Any] = {}
    for name, trend in list(wired.hub.trends.items()):
        kept = [
            (at, value) for at, value in zip(list(trend.utc_ns), list(trend.values), strict=False) if at >= since_ns
        ]
        channels[name] = {"utc_ns": [at for at, _ in kept], "values": [value for _, value in kept]}
    return {"channels": channels, "events": _events(wired, seconds)}


@router.get("/events")
def events(wired: Wired, seconds: Span = 900) -> list[dict[str, Any]]:
    """What happened over the last `seconds`: transitions, faults, trips, setpoints; the oldest first."""
    return _events(wired, seconds)


@router.get("/colormaps")
def colormaps() -> list[str]:
    """Names of the colour maps."""
    return list(COLORMAPS)


@router.get("/colormaps/{name}")
def one_colormap(name: str) -> dict[str, Any]:
    """256 RGB triples."""
    return {"name": name, "rgb": colormap(name).tolist()}


@router.post("/alarms/{alarm_id}:acknowledge", openapi_extra=needs("operate", driving=True))
async def acknowledge(wired: Wired, alarm_id: str) -> dict[str, Any]:
    """The alarm goes once its cause is gone too."""
    await wired.control.ask("acknowledge", {"alarm": alarm_id})
    return {}


@router.post("/operator:heartbeat", openapi_extra=needs("operate"))
async def operator_heartbeat(wired: Wired) -> dict[str, Any]:
    """Somebody is watching; without it the laser goes off after a while."""
    await wired.control.ask("heartbeat")
    return {}


def _events(wired: Services, seconds: float) -> list[dict[str, Any]]:
    since_ns = time.time_ns() - round(seconds * 1e9)
    return [
        {"utc_ns": event.utc_ns, "name": event.name, "severity": event.severity, "text": event.text}
        for event in list(wired.hub.events)
        if event.utc_ns >= since_ns
    ]
