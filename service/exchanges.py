"""What every request passes: its body is small and comes in time, what is sent twice is done once, what has not
changed is not sent again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

import xxhash
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem

MAX_BODY_BYTES = 2**20
BODY_PATIENCE_S = 10.0
REMEMBERED_ANSWERS = 256
MAX_KEY_CHARACTERS = 200
IDEMPOTENCY_KEY = "idempotency-key"


@dataclass(slots=True)
class _Answer:
    """Messages of one answer as the application sent them."""

    request: str = ""
    messages: list[Message] = field(default_factory=list)
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: Message) -> None:
        self.messages.append(message)


class Exchanges:
    """ASGI middleware for HTTP.

    A body above `MAX_BODY_BYTES` is refused with 413, one that takes longer than `BODY_PATIENCE_S` with 408. A POST
    with an `Idempotency-Key` that was seen before gets the first one's answer, also while that one is being carried
    out; 422 when it asks for something else. JSON answers to GET carry an ETag, of their bytes where the route
    gives none of its own; 304 when `If-None-Match` has it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, _Tagged(scope, send).send)
        else:
            await self._change(scope, receive, send)

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await asyncio.wait_for(_whole_body(scope, receive), BODY_PATIENCE_S)
        except TimeoutError:
            refusal = problem(408, "too slow", f"the body did not come within {BODY_PATIENCE_S:g} s; nothing was done")
            await refusal(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if body is None:
            text = f"the body is above the limit of {MAX_BODY_BYTES} bytes; nothing was done"
            refusal = problem(413, "limit exceeded", text, {"Connection": "close"}, limit=MAX_BODY_BYTES)
            await refusal(scope, receive, send)
            return
        key = Headers(scope=scope).get(IDEMPOTENCY_KEY)
        if key is None:
            await self._app(scope, _Again(body, receive).receive, send)
        else:
            await self._once(key, body, scope, receive, send)

    async def _once(self, key: str, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
            text = f"an Idempotency-Key has 1 to {MAX_KEY_CHARACTERS} characters, this one {len(key)}"
            await problem(422, "invalid request", text)(scope, receive, send)
            return
        headers = Headers(scope=scope)
        who = f"{headers.get('authorization')} {headers.get('cookie')}"
        request = f"{scope['method']} {scope['path']} {xxhash.xxh3_64_hexdigest(body)}"
        answer = self._answers.get(f"{key} {who}")
        if answer is None:
            answer = self._answers[f"{key} {who}"] = _Answer(request)
            while len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)
            # Carried to its end even if the client goes: its next try is to learn what became of the first.
            await asyncio.shield(self._carry_out(f"{key} {who}", answer, scope, _Again(body, receive).receive))
        elif answer.request != request:
            text = f"Idempotency-Key {key[:80]!r} was used for another request; nothing was done"
            await problem(422, "invalid request", text)(scope, receive, send)
            return
        await answer.whole.wait()
        for message in answer.messages:
            await send(message)

    async def _carry_out(self, name: str, answer: _Answer, scope: Scope, receive: Receive) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except BaseException:
            # What failed unforeseen may be tried again.
            self._answers.pop(name, None)
            raise
        finally:
            answer.whole.set()


class _Again:
    """A body that was read, for the application to read."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Tagged:
    """Gives a JSON answer without an ETag its own; all others pass."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._known = Headers(scope=scope).get("if-none-match", "")
        self._send = send
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_whole_json(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            start, self._start = self._start, None
            await self._send_tagged(start, message)

    async def _send_tagged(self, start: Message, message: Message) -> None:
        tag = f'"{xxhash.xxh3_64_hexdigest(message["body"])}"'
        if tag in self._known or self._known == "*":
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            start, message = {**start, "status": 304, "headers": headers}, {**message, "body": b""}
        start["headers"] = [*start["headers"], (b"etag", tag.encode()), (b"cache-control", b"private, no-cache")]
        await self._send(start)
        await self._send(message)


def _is_whole_json(start: Message) -> bool:
    """Whether its length is known, so that the one message to come is all of it, and it has no ETag yet."""
    headers = dict(start["headers"])
    is_json = headers.get(b"content-type", b"").startswith(b"application/json")
    return start["status"] == 200 and is_json and b"content-length" in headers and b"etag" not in headers


async def _whole_body(scope: Scope, receive: Receive) -> bytes | None:
    """None for one that is too large. Raises `ClientDisconnect` for one that ends before its end."""
    declared = Headers(scope=scope).get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        return None
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)
