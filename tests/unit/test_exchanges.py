"""Requests at the middleware: once however often they are sent, never from half a body, tried again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from service.exchanges import REMEMBERED_ANSWERS, Exchanges


class Counting:
    """An application that counts what it carries out, and does so only once `may_end` is set."""

    def __init__(self) -> None:
        self.done: list[bytes] = []
        self.failures: Iterator[Exception] = iter(())
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.may_end.wait()
        for failure in self.failures:
            raise failure
        self.done.append((await receive())["body"])
        await JSONResponse({"number": len(self.done)}, 201)(scope, receive, send)


@pytest.fixture
def counting() -> Counting:
    return Counting()


def client(app: Exchanges) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def test_two_at_once_with_one_key_are_carried_out_once(counting: Counting) -> None:
    async with client(Exchanges(counting)) as user:
        once: dict[str, Any] = {"headers": {"Idempotency-Key": "a"}, "content": b"heat"}
        both = [asyncio.create_task(user.post("/run", **once)) for _ in range(2)]
        await asyncio.sleep(0)
        counting.may_end.set()
        answers = await asyncio.gather(*both)
    assert [(answer.status_code, answer.json()) for answer in answers] == [(201, {"number": 1})] * 2
    assert counting.done == [b"heat"]


async def test_another_user_with_the_same_key_is_another_request(counting: Counting) -> None:
    counting.may_end.set()
    async with client(Exchanges(counting)) as user:
        for who in ("Bearer a", "Bearer b"):
            await user.post("/run", headers={"Idempotency-Key": "a", "Authorization": who})
    assert len(counting.done) == 2


async def test_what_failed_unforeseen_may_be_tried_again(counting: Counting) -> None:
    counting.may_end.set()
    counting.failures = iter([OSError("no disk")])
    async with client(Exchanges(counting)) as user:
        with pytest.raises(OSError, match="no disk"):
            await user.post("/run", headers={"Idempotency-Key": "a"})
        assert (await user.post("/run", headers={"Idempotency-Key": "a"})).status_code == 201


async def test_no_more_answers_are_remembered_than_said(counting: Counting) -> None:
    counting.may_end.set()
    async with client(Exchanges(counting)) as user:
        for number in (*range(REMEMBERED_ANSWERS + 1), REMEMBERED_ANSWERS, 0):
            await user.post("/run", headers={"Idempotency-Key": f"{number}"})
    assert len(counting.done) == REMEMBERED_ANSWERS + 2


async def test_half_a_body_is_never_carried_out(counting: Counting) -> None:
    counting.may_end.set()
    coming: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(coming)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    await Exchanges(counting)({"type": "http", "method": "POST", "path": "/run", "headers": []}, receive, send)
    assert counting.done == []
