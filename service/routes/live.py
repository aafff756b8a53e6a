"""The two WebSockets of the page: status as it changes, pictures as fast as they are asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.live_message import Seen, height_follows, live_message, unseen
from service.routes.shared import Wired

router = APIRouter()

STATUS_INTERVAL_S = 0.25
WAIT_S = 1.0
TOGETHER_S = 0.15
"""So long a frame waits for its height: what is drawn together costs the browser half. Slow heights hold up nothing."""
LayerName = Annotated[str, Field(max_length=80)]


class Wish(BaseModel):
    """One credit: what the page shows and how large; `only_new`: leave out what the last answer to it already had."""

    model_config = ConfigDict(extra="forbid")
    layers: list[LayerName] = Field(default_factory=lambda: ["segments", "height"], max_length=8)
    max_px: Annotated[int, Field(ge=16, le=4096)] = 512
    segments_px: Annotated[int, Field(ge=16, le=4096)] | None = None
    only_new: bool = False


@router.websocket("/status")
async def status_socket(socket: WebSocket, wired: Wired) -> None:
    """The status four times a second and every event as it happens."""
    await socket.accept()
    with wired.metrics.websocket_clients.labels("status").track_inprogress():
        await _race(_push_status(socket, wired), _until_closed(socket), _until_unwelcome(socket, wired))


@router.websocket("/live")
async def live_socket(socket: WebSocket, wired: Wired) -> None:
    """One binary message per request, as soon as something newer than the last one is there."""
    await socket.accept()
    wishes: asyncio.Queue[Wish] = asyncio.Queue(maxsize=1)
    with wired.hub.watching(), wired.metrics.websocket_clients.labels("live").track_inprogress():
        await _race(
            _push_pictures(socket, wired, wishes), _take_wishes(socket, wishes), _until_unwelcome(socket, wired)
        )


async def _push_status(socket: WebSocket, wired: Wired) -> None:
    seen_events = wired.hub.event_count
    while True:
        fresh = wired.hub.event_count - seen_events
        for event in list(wired.hub.events)[-fresh:] if fresh else []:
            tree = {"utc_ns": event.utc_ns, "name": event.name, "severity": event.severity, "text": event.text}
            await socket.send_text(json.dumps({"kind": "event", **tree}))
        seen_events += fresh
        if wired.hub.connected:
            await socket.send_text(json.dumps({"kind": "status", **wired.hub.status}))
        await asyncio.sleep(STATUS_INTERVAL_S)


async def _push_pictures(socket: WebSocket, wired: Wired, wishes: asyncio.Queue[Wish]) -> None:
    hub, sent = wired.hub, (-1, -1)
    before: Wish | None = None
    seen: Seen = (None, None)

    def is_new() -> bool:
        return hub.frame is not None and (hub.frame_count, hub.result_count) != sent

    def has_height() -> bool:
        return hub.result_count != sent[1]

    while True:
        wish = await wishes.get()
        while not await hub.wait(is_new, WAIT_S):
            continue
        if hub.frame is not None and not has_height() and height_follows(hub.frame, hub.result):
            await hub.wait(has_height, TOGETHER_S)
        if sent[0] >= 0:
            wired.metrics.live_skipped.inc(max(0, hub.frame_count - sent[0] - 1))
        sent = (hub.frame_count, hub.result_count)
        frame, result = hub.frame, hub.result
        assert frame is not None
        again = wish.only_new and wish == before
        layers = unseen(wish.layers, frame, result, seen) if again else wish.layers
        before, seen = wish, (frame, result)
        message = await asyncio.to_thread(live_message, frame, result, layers, wish.max_px, wish.segments_px, hub.made)
        await socket.send_bytes(message)
        wired.metrics.live_sent.inc()


async def _take_wishes(socket: WebSocket, wishes: asyncio.Queue[Wish]) -> None:
    while True:
        text = await _receive(socket)
        try:
            await wishes.put(Wish.model_validate_json(text))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]
            await socket.close(1007, problem.encode("ascii", "replace").decode()[:100])
            return


async def _until_closed(socket: WebSocket) -> None:
    while True:
        await _receive(socket)


async def _until_unwelcome(socket: WebSocket, wired: Wired) -> None:
    """A key that expires or is revoked closes what it had opened."""
    while True:
        await asyncio.sleep(WAIT_S)
        if not wired.check.welcomes(socket):
            await socket.close(1008, "the key no longer holds")
            return


async def _receive(socket: WebSocket) -> str | bytes:
    """The next message, text or binary. Raises `WebSocketDisconnect`."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    received: str | bytes = message["bytes"] if text is None else text
    return received


async def _race(*sides: Coroutine[Any, Any, None]) -> None:
    """End both sides when either ends: a sender that waits would never notice that the browser has gone."""
    tasks = [asyncio.ensure_future(side) for side in sides]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    results = await asyncio.gather(*done, *pending, return_exceptions=True)
    for result in results:
        gone = isinstance(result, WebSocketDisconnect | asyncio.CancelledError | RuntimeError)
        if isinstance(result, BaseException) and not gone:
            raise result
