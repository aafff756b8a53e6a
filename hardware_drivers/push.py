"""A detector that another program feeds: it posts each scan as one HTTP request, `deploy/push_sender.py` shows how."""

from __future__ import annotations

import asyncio
import hmac
import sys
from http import HTTPStatus

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import Clock, Instant, SystemClock
from acquisition.devices import Limits, Readings
from acquisition.errors import BadInput, DeviceFailed
from acquisition.instrument import Instrument
from hardware_drivers.passive_detector import Given, PassiveDetector
from hardware_drivers.push_header import PushedHeader, checked_header
from hardware_drivers.push_http import MOST_HEAD_BYTES, PIECE_BYTES, Refusal, Request, answer, read_request, refuse

PATH = "/frames"
SHORTEST_KEY = 16
MOST_CONNECTIONS = 16
RETRY_AFTER_S = 1
SIZE_LIMITS = Limits(1, 16_384, "detector.size_limit_px")


def push_detector(
    instrument: Instrument,
    key: str,
    *,
    name: str = "detector",
    host: str = "127.0.0.1",
    port: int = 8620,
    patience_s: float = 30.0,
    size_limits: Limits = SIZE_LIMITS,
    clock: Clock | None = None,
) -> PushDetector:
    """Listens on `host:port` (0: any free port) for frames that carry `key`; one must come whole within `patience_s`.

    The key goes over the wire as it is: beyond this machine use a network of the microscope's own. Raises `BadInput`
    for a key that is too short, and for a port or time that cannot be.
    """
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise BadInput(
            f"the key of the push source has {len(key)} characters: give at least {SHORTEST_KEY}, letters and digits "
            "(`python -c 'import secrets; print(secrets.token_urlsafe())'` makes one)"
        )
    if not 0 <= port <= 65_535:
        raise BadInput(f"port {port} of the push source is none: give 1 to 65535, or 0 for any that is free")
    if not 0.0 < patience_s <= 3600.0:
        raise BadInput(f"patience_s of the push source is {patience_s:g} s: give more than 0, up to 3600")
    return PushDetector(name, instrument, size_limits, clock or SystemClock(), key, host, port, patience_s)


class PushDetector(PassiveDetector):
    """Holds one frame; who sends faster than frames are used is told to come again (503, Retry-After).

    Reads `frames_taken`, `frames_lost` (gaps in the sender's numbers), `frames_refused` of the present or last run.
    """

    def __init__(
        self,
        name: str,
        instrument: Instrument,
        size_limits: Limits,
        clock: Clock,
        key: str,
        host: str,
        port: int,
        patience_s: float,
    ) -> None:
        super().__init__(name, instrument, size_limits, clock)
        self._key, self._host, self._port, self._patience_s = key, host, port, patience_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._in_hand: Given | None = None
        self._receiving = False
        self._last: PushedHeader | None = None
        self._taken = self._lost = self._refused = 0
        self._last_refusal = ""

    @property
    def address(self) -> str:
        """Where to post to, once entered."""
        if self._server is None:
            raise DeviceFailed(f"{self.name} is not connected; enter it first (async with)")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"

    @property
    def _names(self) -> list[str]:
        return [segment.name for segment in self._instrument.detector.segments]

    async def read(self) -> Readings:
        self._require_connection()
        return {
            "scanning": self._reading(self._scanning),
            "frames_taken": self._reading(self._taken),
            "frames_lost": self._reading(self._lost),
            "frames_refused": self._reading(self._refused),
        }

    async def _connect(self) -> None:
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=MOST_HEAD_BYTES)
        except OSError as error:
            raise DeviceFailed(
                f"{self.name} cannot listen on {self._host}:{self._port} ({error.strerror}): is the port in use?"
            ) from error

    async def _disconnect(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _begin(self) -> None:
        self._last, self._last_refusal = None, ""
        self._taken = self._lost = self._refused = 0

    def _end(self) -> None:
        if self._in_hand is not None:
            self._in_hand = None
            self._tell("the run ended with a frame in hand, which is not in it")

    async def _next(self) -> Given | None:
        while self._armed:
            if self._in_hand is not None:
                given, self._in_hand = self._in_hand, None
                return given
            await self._wait_for_news()
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request; nothing that a sender does ends more than its own connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            # Only leaving cancels. Streams of Python 3.11 take a task that ends cancelled for one that failed.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                async with asyncio.timeout(self._patience_s):
                    tree = await self._handle(reader, writer)
            except TimeoutError:
                raise Refusal(
                    HTTPStatus.REQUEST_TIMEOUT, f"the frame did not come whole within {self._patience_s:g} s"
                ) from None
            await answer(reader, writer, tree)
        except Refusal as refusal:
            self._note(refusal)
            await refuse(reader, writer, refusal)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, object]:
        if len(self._connections) > MOST_CONNECTIONS:
            raise _busy(f"{MOST_CONNECTIONS} connections are open already")
        request = await read_request(reader)
        arrived = self._clock.now()
        self._check_key(request)
        if request.path != PATH or request.method not in ("GET", "POST"):
            raise Refusal(HTTPStatus.NOT_FOUND, f"post frames to {PATH}, or get from there what is expected")
        if request.method == "GET":
            return self._expected()
        length = request.length()
        if not self._armed:
            raise Refusal(
                HTTPStatus.CONFLICT, "nothing takes frames now: start a run of this detector, then send again"
            )
        if self._in_hand is not None or self._receiving:
            raise _busy("one frame is in hand and not used yet")
        self._receiving = True
        try:
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            line = await _header_line(reader)
            header = checked_header(line, length, self._names, self._size_px)
            if self._last is not None and (header.number, header.time_ns) == (self._last.number, self._last.time_ns):
                return {"number": header.number, "taken": False, "detail": "this frame was taken before"}
            images = await self._images(reader, header)
            if not self._armed:
                raise Refusal(HTTPStatus.CONFLICT, "the run ended while this frame came: it is not in it")
            self._take(header, images, arrived)
        finally:
            self._receiving = False
        return {"number": header.number, "taken": True}

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, f"Bearer {self._key}".encode()):
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "send the key of the push source as `Authorization: Bearer KEY`",
                {"WWW-Authenticate": "Bearer"},
            )

    def _expected(self) -> dict[str, object]:
        height, width = self._size_px
        return {
            "armed": self._armed,
            "segments": self._names,
            "width_px": width,
            "height_px": height,
            "dtype": "uint16",
        }

    async def _images(self, reader: asyncio.StreamReader, header: PushedHeader) -> NDArray[np.uint16]:
        """(S, H, W) in the instrument's order."""
        images = np.empty((len(header.segments), header.height_px, header.width_px), np.uint16)
        held, at = images.data.cast("B"), 0
        while at < len(held):
            piece = await reader.read(min(PIECE_BYTES, len(held) - at))
            if not piece:
                self._tell(f"the sender went away after {at} of {len(held)} bytes of frame {header.number}")
                raise ConnectionError("the sender went away")
            held[at : at + len(piece)] = piece
            at += len(piece)
        if sys.byteorder == "big":
            images.byteswap(inplace=True)
        order = [header.segments.index(name) for name in self._names]
        return images if order == sorted(order) else np.ascontiguousarray(images[order])

    def _take(self, header: PushedHeader, images: NDArray[np.uint16], arrived: Instant) -> None:
        last = self._last
        if last is not None and header.number > last.number + 1:
            lost = header.number - last.number - 1
            self._lost += lost
            self._tell(f"{lost} frames of the sender never came: after {last.number} came {header.number}")
        elif last is not None and header.number <= last.number:
            self._tell(f"the sender's numbers begin again: after {last.number} came {header.number}")
        self._last = header
        self._taken += 1
        used = self._instrument.with_scan(
            pixel_size_m=header.pixel_size_m,
            dwell_time_s=header.dwell_time_s,
            energy_ev=header.energy_ev,
            working_distance_m=header.working_distance_m,
            current_a=header.current_a,
        )
        self._in_hand = Given(images, used, arrived, header.time_ns)
        self._news.set()

    def _note(self, refusal: Refusal) -> None:
        """Tell what a person must mend, once for each time it changes; waiting and being idle are no faults."""
        if refusal.status in (HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE):
            return
        self._refused += 1
        if self._armed and str(refusal) != self._last_refusal:
            self._last_refusal = str(refusal)
            self._tell(f"a frame was refused: {refusal}")


async def _header_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, f"the body begins with one line of JSON of at most {MOST_HEAD_BYTES} bytes"
        ) from None


def _busy(reason: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}: send again", {"Retry-After": str(RETRY_AFTER_S)})
