"""The node's side of the stream: frames and results over one credit-based socket, small messages over another.

Consumers ask and are answered; nobody is ever queued for. A request (credit) is `[cbor]`; a delivery is
`[note, run_started, header, payload...]`; a result handed back is `[cbor, header, payload...]`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cbor2
import zmq

from acquisition import wire
from acquisition.clock import NANOSECONDS_PER_SECOND
from acquisition.endpoints import CurveKeys, Endpoints, check_reachable_only_by_friends, secure_server
from acquisition.errors import BadInput, MessageRejected
from acquisition.frames import Event, Frame, Heartbeat, Result, RunFinished, RunStarted, StateSample
from acquisition.ring import Backfill, Entry, Ring, WorkBoard
from acquisition.socket_thread import SocketThread, configure

log = logging.getLogger(__name__)

WANTS = ("frames", "results", "work")
MODES = ("latest", "every")
MAX_LEASE_S = 120.0
WORKER_GONE_AFTER_S = 10.0
MAX_ABOUT = 8
MAX_ABOUT_CHARACTERS = 200
RESULT_RING_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Credit:
    """One outstanding request of one consumer. `epoch` tells whose serial numbers `after` belongs to."""

    identity: bytes
    wants: str
    mode: str
    after: int
    nonce: int
    epoch: int
    lease_ns: int
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class WorkerSeen:
    about: dict[str, Any]
    last_seen_ns: int
    holds: tuple[str, int] | None = None


ResultTaker = Callable[[Result], str]
"""Called in the socket thread with a worker's result; returns "" when it was taken, else why not."""


class StreamServer:
    """Owns the data and the state socket of a node. All methods may be called from any thread."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Endpoints,
        take_result: ResultTaker,
        ring_bytes: int,
        keys: CurveKeys | None = None,
    ) -> None:
        self._data = _bind(context, zmq.ROUTER, endpoints.data, keys, high_water_mark=16)
        self._state = _bind(context, zmq.PUB, endpoints.state, keys, high_water_mark=1000)
        self._take_result = take_result
        self._results = Ring(RESULT_RING_BYTES)
        self._board = WorkBoard(Ring(ring_bytes))
        self._credits: dict[tuple[bytes, str], Credit] = {}
        self._workers: dict[bytes, WorkerSeen] = {}
        self._about: dict[str, bytes] = {}
        self._epoch = secrets.randbits(32)
        self.rejected = 0
        self._thread = SocketThread("stream", context)
        self._thread.handle(self._data, self._on_data)
        self._thread.start()

    def close(self) -> None:
        self._thread.close()

    def publish(self, message: RunStarted | RunFinished | StateSample | Event | Heartbeat) -> None:
        """Send a small message to whoever listens on the state socket."""
        parts = wire.encode(message)
        topic = wire.to_tree(message)["kind"].encode()
        self._thread.post(lambda: self._send_state([topic, *parts]))

    def publish_frame(self, frame: Frame, run: RunStarted) -> None:
        """Offer a frame to workers and viewers."""
        parts = wire.encode(frame)
        self._thread.post(lambda: self._offer_frame(frame.header.key, run, parts))

    def add_backfill(self, run: RunStarted, sequences: Sequence[int], load: Callable[[int], Frame]) -> None:
        """Offer recorded frames that lack a height, whenever workers have nothing newer. `load` may be slow."""
        backfill = Backfill(
            run.run_id, self._about_of(run), deque(sequences), lambda sequence: wire.encode(load(sequence))
        )
        self._thread.post(lambda: self._offer_backfill(backfill))

    def drop_run(self, run_id: str) -> None:
        """Forget the work of a run; results for it are refused by the taker from now on."""
        self._thread.post(lambda: self._board.drop_run(run_id))

    @property
    def skipped(self) -> int:
        """Frames that live workers jumped over to stay with the newest."""
        return self._board.skipped

    @property
    def given_up(self) -> set[tuple[str, int]]:
        """Frames, as (run, sequence), on which several workers failed."""
        return set(self._board.given_up)

    @property
    def errors(self) -> int:
        """Calls of the socket thread that failed in a way nobody foresaw; each is in the log."""
        return self._thread.errors

    @property
    def ring_bytes(self) -> int:
        """What recent frames and results hold of memory."""
        return self._board.frames.nbytes + self._results.nbytes

    def workers(self) -> list[dict[str, Any]]:
        """Who asked for work lately: name, provider, model, seconds since last seen."""
        now_ns = time.monotonic_ns()
        seen = [(worker.about, (now_ns - worker.last_seen_ns) / 1e9) for worker in list(self._workers.values())]
        return [{**about, "last_seen_s": age} for about, age in seen if age < WORKER_GONE_AFTER_S]

    @property
    def leased(self) -> int:
        """Frames that were handed to workers and not answered."""
        return len(self._board._leases)

    def _send_state(self, parts: list[wire.Part]) -> None:
        self._state.send_multipart(parts)

    def _offer_backfill(self, backfill: Backfill) -> None:
        self._board.add_backfill(backfill)
        self._serve_all()

    def _offer_frame(self, key: tuple[str, int], run: RunStarted, parts: list[wire.Part]) -> None:
        self._board.frames.add(key, self._about_of(run), parts)
        self._serve_all()

    def _about_of(self, run: RunStarted) -> bytes:
        about = self._about.get(run.run_id)
        if about is None:
            about = bytes(wire.encode(run)[0])
            self._about = {**dict(list(self._about.items())[-7:]), run.run_id: about}
        return about

    def _on_data(self) -> None:
        identity, *parts = self._data.recv_multipart(copy=False)
        try:
            self._on_message(identity.bytes, [part.buffer for part in parts])
        except (MessageRejected, BadInput) as error:
            self.rejected += 1
            log.warning("rejected a message on the data socket: %s", error)

    def _on_message(self, identity: bytes, parts: list[wire.Part]) -> None:
        if not parts:
            raise MessageRejected("an empty message")
        request = wire.load_map(parts[0])
        if request.get("kind") == "credit":
            credit = _credit(identity, request)
            if credit.epoch != self._epoch:
                credit.after = 0
            if credit.wants == "work":
                self._see_worker(credit)
            self._credits[identity, credit.wants] = credit
            self._serve(credit)
        elif request.get("kind") == "result":
            self._on_result(identity, request, parts[1:])
        else:
            raise MessageRejected(f"request kind {request.get('kind')!r} is unknown")

    def _see_worker(self, credit: Credit) -> None:
        """A worker that asks again no longer works on what it held."""
        before = self._workers.get(credit.identity)
        if before is not None and before.holds is not None:
            self._board.release(before.holds)
        self._workers[credit.identity] = WorkerSeen(credit.about, time.monotonic_ns())

    def _on_result(self, identity: bytes, request: dict[str, Any], parts: list[wire.Part]) -> None:
        try:
            result = wire.decode(parts)
            if not isinstance(result, Result):
                raise MessageRejected(f"a worker handed back a {type(result).__name__}")
        except MessageRejected as error:
            self._answer(identity, request, str(error))
            raise
        reason = self._take_result(result)
        self._board.finish(result.header.key)
        worker = self._workers.get(identity)
        if worker is not None:
            worker.holds = None
            worker.last_seen_ns = time.monotonic_ns()
        self._answer(identity, request, reason)
        about = self._about.get(result.header.run_id)
        if not reason and about is not None:
            self._results.add(result.header.key, about, parts)
        self._serve_all()

    def _answer(self, identity: bytes, request: dict[str, Any], reason: str) -> None:
        answer = {"kind": "ack", "nonce": request.get("nonce"), "accepted": not reason, "reason": reason}
        self._data.send_multipart([identity, cbor2.dumps(answer)])

    def _serve_all(self) -> None:
        for credit in list(self._credits.values()):
            self._serve(credit)

    def _serve(self, credit: Credit) -> None:
        entry = self._choose(credit)
        if entry is None:
            return
        del self._credits[credit.identity, credit.wants]
        if credit.wants == "work":
            self._workers[credit.identity].holds = entry.key
        note = {
            "kind": "delivery",
            "wants": credit.wants,
            "nonce": credit.nonce,
            "epoch": self._epoch,
            "serial": entry.serial,
            "skipped": max(0, entry.serial - credit.after - 1) if credit.after else 0,
        }
        parts = [credit.identity, cbor2.dumps(note), entry.about, *entry.parts]
        self._data.send_multipart(parts, copy=False)

    def _choose(self, credit: Credit) -> Entry | None:
        if credit.wants == "work":
            return self._board.next(time.monotonic_ns(), credit.lease_ns)
        ring = self._results if credit.wants == "results" else self._board.frames
        return ring.newest_after(credit.after) if credit.mode == "latest" else ring.next_after(credit.after)


def _credit(identity: bytes, request: dict[str, Any]) -> Credit:
    wants, mode, after, nonce, epoch = (request.get(key) for key in ("wants", "mode", "after", "nonce", "epoch"))
    lease_s = request.get("lease_s", 0.0)
    about = request.get("about", {})
    if wants not in WANTS or mode not in MODES:
        raise MessageRejected(f"a credit wants {wants!r} in mode {mode!r}; known are {WANTS} and {MODES}")
    if type(after) is not int or type(nonce) is not int or type(epoch) is not int or after < 0:
        raise MessageRejected("a credit needs integers after, nonce and epoch, after not negative")
    if (
        not isinstance(about, dict)
        or len(about) > MAX_ABOUT
        or any(
            not isinstance(value, str) or len(name) + len(value) > MAX_ABOUT_CHARACTERS for name, value in about.items()
        )
    ):
        raise MessageRejected(f"a credit tells about its worker in {MAX_ABOUT} short texts at most")
    if not isinstance(lease_s, int | float) or not 0 <= lease_s <= MAX_LEASE_S:
        raise MessageRejected(f"lease of {lease_s!r} s is outside 0 to {MAX_LEASE_S:g} s")
    return Credit(identity, wants, mode, after, nonce, epoch, round(lease_s * NANOSECONDS_PER_SECOND), about)


def _bind(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str, keys: CurveKeys | None, high_water_mark: int
) -> zmq.Socket[bytes]:
    check_reachable_only_by_friends(address, keys)
    socket = context.socket(kind)
    configure(socket, high_water_mark)
    secure_server(socket, keys)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(0)
        raise BadInput(
            f"cannot listen on {address}: {error}; is another eclips running? Else choose another port under [stream]"
        ) from error
    return socket
