"""Who drives: one page or program at a time, and the others can see who."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from acquisition.control_lock import LEASE_S
from acquisition.errors import BadInput, RequestRefused
from service.auth import SESSION, needs, session_of
from service.routes.shared import Services, Wired

router = APIRouter(prefix="/control", tags=["control"])


class TakeControl(BaseModel):
    """`name` is what others see; `take_over` relieves whoever drives."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=80)]
    take_over: bool = False


@router.get("")
def holder(request: Request, wired: Wired) -> dict[str, Any]:
    """Who has control, and whether it is you; nobody need have it. It may be a command at a terminal."""
    return _tree(wired, session_of(request))


@router.post("", openapi_extra=needs("operate"))
async def take(request: Request, wired: Wired, wanted: TakeControl) -> dict[str, Any]:
    """Take control; 409 while somebody else has it, unless `take_over`.

    The header `Eclips-Session`, a random text of your own, is how you are known again: send it with every request.
    Whoever is silent for 30 s loses control. Without control: looking, stopping and switching off.
    """
    session = session_of(request)
    if len(session) < 8:
        raise BadInput(f"control needs the header {SESSION} with a random text of at least 8 characters")
    wired.lock.take(session, wanted.name, take_over=wanted.take_over)
    try:
        await wired.seat.hold(wanted.name, take_over=wanted.take_over)
    except RequestRefused:
        wired.lock.release(session)
        raise
    return _tree(wired, session)


@router.delete("", openapi_extra=needs("operate"))
async def release(request: Request, wired: Wired) -> dict[str, Any]:
    """Let go of control; nothing happens when somebody else has it."""
    wired.lock.release(session_of(request))
    if wired.lock.holder is None:
        await wired.seat.leave()
    return _tree(wired, session_of(request))


def _tree(wired: Services, session: str) -> dict[str, Any]:
    elsewhere = wired.lock.elsewhere()
    found = elsewhere or wired.lock.holder
    if found is None:
        return {"holder": None, "yours": False, "since_utc_ns": None, "left_s": None, "lease_s": LEASE_S}
    yours, left_s = found.session == session, None if elsewhere else wired.lock.left_s
    told = {"holder": found.name, "yours": yours, "since_utc_ns": found.since_utc_ns, "left_s": left_s}
    return told | {"lease_s": LEASE_S}
