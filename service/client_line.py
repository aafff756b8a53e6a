"""The client's line to the service: one place for the key, time limits, second tries, and errors as Python has them."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from acquisition.errors import BadInput, ChangedMeanwhile, ComponentFailed, EclipsError, LimitExceeded, RequestRefused

TIMEOUT_S = 20.0
TRIES = 4
FIRST_PAUSE_S = 0.2
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


class AccessDenied(RequestRefused):
    """The key is unknown, has expired, or opens less than was asked for."""


class Line:
    """Requests below `/api/v1`. What is lost on the way is sent up to four times; a POST carries an Idempotency-Key, so
    that the service carries it out once. Usable from several threads.

    Every request raises `LimitExceeded`, `BadInput`, `AccessDenied` or `RequestRefused` when it was refused and nothing
    was done, and `ComponentFailed` when something does not answer.
    """

    def __init__(
        self, address: str, key: str | None = None, timeout_s: float = TIMEOUT_S, verify: bool | str | Path = True
    ) -> None:
        """`verify`: trust the certificate in this file too; False trusts anybody. Raises `BadInput` for an address that
        is none, without a key, and for a file that holds no certificate."""
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
            verify=_trusting(verify),
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        return self.answer("GET", path, params=query).json()

    def post(self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Any:
        return self.answer("POST", path, headers=headers, json=None if body is None else dict(body)).json()

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
                if attempt == TRIES or isinstance(error, httpx.UnsupportedProtocol) or UNTRUSTED in str(error):
                    raise self._silence(error) from error
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        if answer.is_error:
            raise _error(answer)
        return answer

    def _url(self, path: str) -> str:
        """Whole, for httpx would take `run:` of `run:stop` for a scheme."""
        return f"{self.address}/api/v1/{path}"

    def _silence(self, error: httpx.TransportError) -> ComponentFailed:
        if UNTRUSTED in str(error):
            return ComponentFailed(
                f"the certificate of {self.address} is not trusted ({error}): give its file as `verify`, and the name "
                "that it is made for as the address"
            )
        return ComponentFailed(
            f"the service at {self.address} does not answer ({error or type(error).__name__}): is `eclips up` running?"
        )


def _trusting(verify: bool | str | Path) -> bool | ssl.SSLContext:
    if isinstance(verify, bool):
        return verify
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(verify)
    except OSError as error:
        raise BadInput(f"{verify} holds no certificate that can be trusted: {error}; it is a PEM file") from error
    return context


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
    if answer.status_code == 412:
        return ChangedMeanwhile(
            reason, changes=told.get("changes") or (), tag=answer.headers.get("ETag", "").strip('"')
        )
    if answer.status_code == 404:
        return BadInput(f"the service knows no {answer.url.path}")
    if answer.status_code == 422:
        return BadInput(reason)
    return RequestRefused(reason, permitted=told.get("permitted") or ())
