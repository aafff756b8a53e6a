"""Keys for other programs and people: each opens so much, for so long."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from service.auth import needs
from service.keys import MAX_LIFE_S, Key, Name, Scope
from service.routes.shared import Wired

router = APIRouter(prefix="/keys", tags=["keys"])

MONTH_S = 30 * 86_400.0


class MakeKey(BaseModel):
    """`scope`: read | operate | hardware | admin, each with all before it."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    scope: Scope = "read"
    life_s: Annotated[float, Field(gt=0, le=MAX_LIFE_S)] = MONTH_S


@router.get("", openapi_extra=needs("admin"))
def keys(wired: Wired) -> list[dict[str, Any]]:
    """The keys that were made, without their texts."""
    return [_tree(key) for key in wired.keys.made()]


@router.post("", status_code=201, openapi_extra=needs("admin"))
def make(wired: Wired, wanted: MakeKey) -> dict[str, Any]:
    """Make a key. Its text is told here and never again; it is sent as a Bearer token, or put into a link `/?key=`."""
    text, key = wired.keys.make(wanted.name, wanted.scope, wanted.life_s)
    return {"key": text, **_tree(key)}


@router.delete("/{name}", openapi_extra=needs("admin"))
def revoke(wired: Wired, name: str) -> dict[str, Any]:
    """A key that opens nothing from now on."""
    wired.keys.revoke(name)
    return {}


def _tree(key: Key) -> dict[str, Any]:
    return {"name": key.name, "scope": key.scope, "expires_utc_ns": key.expires_utc_ns, "expired": key.expired}
