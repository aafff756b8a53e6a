"""Who may come in: a key, given once in the link that the terminal shows and kept in a cookie by the browser."""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.requests import HTTPConnection

COOKIE = "eclips_key"


def new_key() -> str:
    return secrets.token_urlsafe(24)


class KeyCheck:
    """A FastAPI dependency for HTTP and WebSocket alike: 401 without the key, 403 from a foreign page."""

    def __init__(self, key: str) -> None:
        self._key = key

    def matches(self, offered: str | None) -> bool:
        return offered is not None and hmac.compare_digest(offered.encode(), self._key.encode())

    def __call__(self, connection: HTTPConnection) -> None:
        bearer = connection.headers.get("authorization", "").removeprefix("Bearer ")
        offered = bearer or connection.cookies.get(COOKIE)
        if not self.matches(offered):
            raise HTTPException(
                401,
                "a key is needed: open the link that `eclips` printed, or send it as a Bearer token",
                {"WWW-Authenticate": "Bearer"},
            )
        origin = connection.headers.get("origin")
        if origin is not None and _host_of(origin) != connection.headers.get("host"):
            raise HTTPException(403, f"requests from pages of {origin} are refused")


def _host_of(origin: str) -> str | None:
    """None for what is no origin."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
