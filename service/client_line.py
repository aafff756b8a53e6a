"""The client's line to the service: one place for the key, time limits, second tries, and errors as Python has them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from acquisition.errors import BadInput, ComponentFailed, EclipsError, LimitExceeded, RequestRefused

TIMEOUT_S = 20.0
TRIES = 4
FIRST_PAUSE_S = 0.2


class AccessDenied(RequestRefused):
    """The key is unknown, has expired, or opens less than was asked for."""


class Line:
    """Requests below `/api/v1`. What is lost on the way is sent up to four times; a POST carries an Idempotency-Key, so
    that the service carries it out once. Usable from several threads.

    Every request raises `LimitExceeded`, `BadInput`, `AccessDenied` or `RequestRefused` when it was refused and nothing
    was done, and `ComponentFailed` when something does not answer.
    """

    def __init__(self, address: str, key: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """Raises `BadInput` for an address that is none, or without a key."""
        parts = urlsplit(address if "//" in address else f"http://{address}")
        key = key or parse_qs(parts.query).get("key", [""])[0]
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise BadInput(f"{parts.geturl()[:200]!r} is no address of a service, such as http://127.0.0.1:8080")
        if not key:
            raise BadInput("a key is needed: give the whole link that `eclips up` printed, or `key=...`")
        self.address = f"{parts.scheme}://{parts.netloc}"
        self.session = uuid.uuid4().hex
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}", "Eclips-Session": self.session},
            timeout=timeout_s,
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        return self.answer("GET", path, params=query).json()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self.answer("POST", path, json=None if body is None else dict(body)).json()

    def delete(self, path: str) -> Any:
        return self.answer("DELETE", path).json()

    def fetch(self, path: str, accept: str) -> httpx.Response:
        """A picture or text as the service makes it."""
        return self.answer("GET", path, headers={"Accept": accept})

    def save(self, path: str, to: Path) -> Path:
        """Fetch a file of any size; `to` appears whole or not at all."""
        part = to.with_name(to.name + ".part")
        try:
            with self._http.stream("GET", self._url(path)) as answer, part.open("wb") as file:
                if answer.is_error:
                    answer.read()
                    raise _error(answer)
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            part.replace(to)
        except httpx.TransportError as error:
            raise self._silence(error) from error
        finally:
            part.unlink(missing_ok=True)
        return to

    def answer(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        once = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._http.request(method, self._url(path), headers={**(headers or {}), **once}, **more)
                break
            except httpx.TransportError as error:
                if attempt == TRIES or isinstance(error, httpx.UnsupportedProtocol):
                    raise self._silence(error) from error
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        if answer.is_error:
            raise _error(answer)
        return answer

    def _url(self, path: str) -> str:
        """Whole, for httpx would take `run:` of `run:stop` for a scheme."""
        return f"{self.address}/api/v1/{path}"

    def _silence(self, error: httpx.TransportError) -> ComponentFailed:
        return ComponentFailed(
            f"the service at {self.address} does not answer ({error or type(error).__name__}): is `eclips up` running?"
        )


def _error(answer: httpx.Response) -> EclipsError:
    """What a problem+json says, as the error that it was in the service."""
    try:
        told = dict(answer.json())
    except ValueError:
        told = {}
    reason = str(told.get("detail") or f"{answer.status_code} {answer.reason_phrase}")
    if answer.status_code in (401, 403):
        return AccessDenied(reason)
    if answer.status_code >= 500:
        return ComponentFailed(reason)
    if "setting" in told:
        return LimitExceeded(reason, value=float(told["value"]), limit=float(told["limit"]), setting=told["setting"])
    if answer.status_code == 404:
        return BadInput(f"the service knows no {answer.url.path}")
    if answer.status_code == 422:
        return BadInput(reason)
    return RequestRefused(reason, permitted=told.get("permitted") or ())
