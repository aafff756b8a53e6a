"""As much of HTTP/1.1 (RFC 9112) as a program needs that posts frames: one bounded request per connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MOST_HEAD_BYTES = 2**16
MOST_DIGITS = 18
LINGER_S = 5.0
LINGER_BYTES = 2**30
PIECE_BYTES = 2**18


class Refusal(Exception):
    """Answered as problem+json (RFC 9457); `detail` says what is wrong and what to do."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` by their names in small letters."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def length(self) -> int:
        """Bytes of the body. Raises `Refusal` where that is not said plainly."""
        text = self.headers.get("content-length", "")
        if "transfer-encoding" in self.headers or not text:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "say the body's length in Content-Length, and send it in one")
        if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"Content-Length {text[:40]!r} is no number of bytes")
        return int(text)


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Raises `Refusal` for what is no request, `asyncio.IncompleteReadError` where nobody says anything."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Refusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head of a request is at most {MOST_HEAD_BYTES} bytes"
        ) from None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    words = first.split(" ")
    pairs = [line.partition(":") for line in lines]
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not all(colon and name for name, colon, _ in pairs):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"this is no HTTP request: {first[:80]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Request(words[0], words[1].partition("?")[0], headers)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tree: Mapping[str, Any]) -> None:
    await _write(writer, HTTPStatus.OK, "application/json", tree, {})
    await _linger(reader, writer)


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: Refusal) -> None:
    problem = {
        "type": "about:blank",
        "title": refusal.status.phrase,
        "status": refusal.status.value,
        "detail": str(refusal),
    }
    await _write(writer, refusal.status, "application/problem+json", problem, refusal.headers)
    await _linger(reader, writer)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the rest of a body and throw it away, for so long and so much: a sender that still sends when the connection
    goes would never see the answer."""
    if writer.can_write_eof():
        writer.write_eof()
    try:
        async with asyncio.timeout(LINGER_S):
            left = LINGER_BYTES
            while left > 0 and (piece := await reader.read(PIECE_BYTES)):
                left -= len(piece)
    except TimeoutError:
        pass


async def _write(
    writer: asyncio.StreamWriter, status: HTTPStatus, kind: str, tree: Mapping[str, Any], headers: Mapping[str, str]
) -> None:
    body = json.dumps(tree).encode()
    lines = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close", **headers}
    head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{key}: {value}" for key, value in lines.items())]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    await writer.drain()
