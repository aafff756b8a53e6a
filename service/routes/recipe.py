"""Recipes: rehearsing, starting and following them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from acquisition.commands import StartRecipe
from acquisition.errors import RequestRefused
from service.auth import needs
from service.routes.shared import Wired
from service.standing import ASKING_DEADLINE_S

router = APIRouter(prefix="/recipe", tags=["recipe"])

_rehearsing = asyncio.Semaphore(1)


@router.get("")
def recipe(wired: Wired) -> Any:
    """The present or last recipe: state, step, time left, holds, and which commands are permitted."""
    return wired.control.call("status", deadline_s=ASKING_DEADLINE_S)["recipe"]


@router.post("", status_code=201)
async def start(wired: Wired, wanted: StartRecipe) -> Any:
    """Check a recipe whole against the lab's limits, then begin. 422 with step, value and limit, 409 while one runs.

    It is no sign of life of anybody: without an open page the laser goes off when the countdown ends.
    """
    return await wired.control.ask("recipe_start", wanted.model_dump())


@router.post("/dry-run", openapi_extra=needs("read"))
async def dry_run(wired: Wired, wanted: StartRecipe) -> dict[str, Any]:
    """The same recipe on the simulated lab with these settings' limits, in a second or two: the timeline of every
    channel, all events, and how it ended. Touches no device. 409 while another one is under way."""
    from service.wiring import dry_run as rehearse  # wiring builds the application, and with it this route

    if _rehearsing.locked():
        raise RequestRefused("another dry run is under way; ask again in a few seconds")
    async with _rehearsing:
        parsed = await asyncio.to_thread(wanted.parsed)
        timeline = await asyncio.to_thread(rehearse, wired.settings, parsed)
    channels = {name: {"times_s": times, "values": values} for name, (times, values) in timeline.channels.items()}
    return {**asdict(timeline), "channels": channels, "good": timeline.good}


@router.post("/pause")
async def pause(wired: Wired) -> Any:
    """Ramps and waits stand still, holds go on."""
    return await wired.control.ask("recipe_pause")


@router.post("/resume")
async def resume(wired: Wired) -> Any:
    """Ramps and waits go on where they stood still."""
    return await wired.control.ask("recipe_resume")


@router.post("/abort", openapi_extra=needs("read"))
async def abort(wired: Wired) -> Any:
    """To the safe state at once. `unverified` tells what was not confirmed."""
    return await wired.control.ask("recipe_abort")
