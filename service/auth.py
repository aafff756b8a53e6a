"""The door: a key that opens what is asked for, a page of our own, and nobody else at the controls."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from acquisition.control_lock import ControlLock
from service.keys import SCOPES, Key, KeyBook, Scope

__all__ = ["COOKIE", "SESSION", "KeyCheck", "describe_security", "needs", "session_of"]

COOKIE = "eclips_key"
SESSION = "eclips-session"
"""Header with a random text by which a driving page or program is known again."""
SCHEME = "key"
DRIVING = "x-control-lock"


def needs(scope: Scope | None, *, driving: bool = False) -> dict[str, Any]:
    """What a route says of itself (`openapi_extra`): the scope its key needs, None for no key, and whether it drives
    the lab, so that only the holder of the control lock may ask. A route that says nothing needs `read` for GET, and
    `hardware` and the lock for all else."""
    return {"security": [] if scope is None else [{SCHEME: [scope]}], DRIVING: driving}


class KeyCheck:
    """A FastAPI dependency for HTTP and WebSocket alike: 401 without a key, 403 from a foreign page or for a key that
    opens less than is asked for, 409 while another session holds the control lock."""

    def __init__(self, keys: KeyBook, lock: ControlLock) -> None:
        self._keys = keys
        self._lock = lock

    def matches(self, offered: str | None) -> bool:
        """Whether this is a key that still holds."""
        key = self._keys.find(offered) if offered else None
        return key is not None and not key.expired

    def welcomes(self, connection: HTTPConnection) -> bool:
        """Whether the key of a line that has been open for a while still holds."""
        return self.matches(_offered(connection))

    async def __call__(self, connection: HTTPConnection) -> None:
        """On the event loop: there is nothing in it to wait for, and a thread must first be had."""
        key = self._key(connection)
        origin = connection.headers.get("origin")
        if origin is not None and _host_of(origin) != connection.headers.get("host"):
            raise HTTPException(403, f"requests from pages of {origin} are refused")
        needed = _needs_of(connection)
        scope: Scope = needed["security"][0][SCHEME][0]
        if not key.opens(scope):
            raise HTTPException(
                403,
                f"key {key.name!r} is for {key.scope!r}, this needs {scope!r}; of {', '.join(SCOPES)} each opens "
                "what those before it open",
            )
        session = session_of(connection)
        self._lock.seen(session)
        if needed[DRIVING]:
            self._lock.require(session)

    def _key(self, connection: HTTPConnection) -> Key:
        key = self._keys.find(_offered(connection))
        if key is None:
            why = "a key is needed: open the link that `eclips` printed, or send it as a Bearer token"
        elif key.expired:
            why = f"key {key.name!r} has expired: have a new one made with POST /api/v1/keys"
        else:
            return key
        raise HTTPException(401, why, {"WWW-Authenticate": "Bearer"})


def session_of(connection: HTTPConnection) -> str:
    return connection.headers.get(SESSION, "")[:200]


def describe_security(tree: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI description in which every operation says what it needs."""
    tree.setdefault("components", {})["securitySchemes"] = {SCHEME: {"type": "http", "scheme": "bearer"}}
    for operations in tree["paths"].values():
        for method, operation in operations.items():
            for name, value in _default(method.upper()).items():
                operation.setdefault(name, value)
    return tree


def _offered(connection: HTTPConnection) -> str:
    bearer = connection.headers.get("authorization", "").removeprefix("Bearer ")
    return bearer or connection.cookies.get(COOKIE, "")


def _needs_of(connection: HTTPConnection) -> dict[str, Any]:
    said = getattr(connection.scope.get("route"), "openapi_extra", None) or {}
    return _default(connection.scope.get("method", "GET")) | said


def _default(method: str) -> dict[str, Any]:
    reading = method in ("GET", "HEAD")
    return needs("read" if reading else "hardware", driving=not reading)


def _host_of(origin: str) -> str | None:
    """None for what is no origin."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
