"""Driving the run and the replay."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from acquisition.commands import Seek, StartReplay, StartRun
from acquisition.errors import BadInput
from service.auth import needs
from service.routes.shared import Wired

router = APIRouter(tags=["run"])

OPERATE = needs("operate", driving=True)


@router.post("/run", status_code=201, openapi_extra=OPERATE)
async def start(wired: Wired, wanted: StartRun) -> Any:
    """Arm and start acquiring. 409 with what is permitted when a run is under way."""
    return await wired.control.ask("start", wanted.model_dump())


@router.post("/run:stop", openapi_extra=OPERATE)
async def stop(wired: Wired) -> dict[str, Any]:
    """End in order after the frame at hand; also ends a replay."""
    await wired.control.ask("stop")
    return {}


@router.post("/run:abort", openapi_extra=OPERATE)
async def abort(wired: Wired) -> dict[str, Any]:
    """End now; what was recorded stays, marked incomplete."""
    await wired.control.ask("abort")
    return {}


@router.post("/run:reset", openapi_extra=OPERATE)
async def reset(wired: Wired) -> dict[str, Any]:
    """Leave the fault state."""
    await wired.control.ask("reset")
    return {}


@router.post("/safe-state", openapi_extra=needs("read"))
async def safe_state(wired: Wired) -> Any:
    """STOP ALL: laser, gas and scan to rest, each read back. `unverified` tells what was not confirmed.

    Always permitted, to whoever may look: a laser that anybody can stop does less harm than one that few can."""
    return await wired.control.ask("safe_state")


@router.post("/replay", status_code=201, openapi_extra=OPERATE)
async def replay(wired: Wired, wanted: StartReplay) -> Any:
    """Play a recorded run of the runs folder through the live stream."""
    if "/" in wanted.run or "\\" in wanted.run or wanted.run.startswith("."):
        raise BadInput(f"run {wanted.run!r} is not a run's name")
    return await wired.control.ask("replay", wanted.model_dump())


@router.post("/replay:seek", openapi_extra=OPERATE)
async def seek(wired: Wired, wanted: Seek) -> dict[str, Any]:
    """Let the replay go on at another frame, which is played at once."""
    await wired.control.ask("seek", wanted.model_dump())
    return {}


@router.post("/replay:step", openapi_extra=OPERATE)
async def step(wired: Wired) -> dict[str, Any]:
    """Let a replay at speed `step` play one more frame."""
    await wired.control.ask("step")
    return {}
