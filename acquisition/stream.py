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
from dataclasses import dataclass
from typing import Any

import zmq

from acquisition import wire
from acquisition.allowed_keys import AllowedKeys
from acquisition.clock import NANOSECONDS_PER_SECOND
from acquisition.credit import WANTS, Credit, read_credit
from acquisition.endpoints import CurveKeys, Endpoints
from acquisition.errors import BadInput, MessageRejected
from acquisition.frames import Event, Frame, Heartbeat, Result, RunFinished, RunStarted, StateSample
from acquisition.model_order import ModelOrder
from acquisition.ring import Backfill, Entry, Ring, WorkBoard
from acquisition.socket_thread import MAX_PART_BYTES, SocketThread
from acquisition.sockets import bind

log = logging.getLogger(__name__)

WORKER_GONE_AFTER_S = 10.0
RESULT_RING_BYTES = 64 * 1024 * 1024
PROBE_AFTER_NS = NANOSECONDS_PER_SECOND

# What a consumer that has stalled may hold: two messages, whatever it asks for.
DATA_HIGH_WATER_MARK = 2
STATE_HIGH_WATER_MARK = 1000


@dataclass(slots=True)
class WorkerSeen:
    """`holds` was handed out for request `nonce` at `since_ns`; `probes` were sent since, at ever longer intervals."""

    about: dict[str, str]
    last_seen_ns: int
    holds: Entry | None = None
    nonce: int = 0
    since_ns: int = 0
    probes: int = 0


ResultTaker = Callable[[Result], str]
"""Called in the socket thread with a worker's result; returns "" when it was taken, else why it is not needed, and
raises `MessageRejected` for one that cannot belong to its frame."""


class StreamServer:
    """Owns the data and the state socket of a node. All methods may be called from any thread.

    `rejected` messages were damaged, no messages, or of a peer whose key is allowed no more; `refused` results were
    sound but not needed: late, or the second of their frame.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Endpoints,
        take_result: ResultTaker,
        ring_bytes: int,
        keys: CurveKeys | None = None,
    ) -> None:
        self._data = bind(context, zmq.ROUTER, endpoints.data, keys, DATA_HIGH_WATER_MARK, MAX_PART_BYTES)
        # What cannot be delivered is told instead of dropped.
        self._data.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._state = bind(context, zmq.PUB, endpoints.state, keys, STATE_HIGH_WATER_MARK)
        self._allowed = None if keys is None else AllowedKeys(keys.peers)
        self._take_result = take_result
        self._results = Ring(RESULT_RING_BYTES)
        self._board = WorkBoard(Ring(ring_bytes))
        self._credits: dict[tuple[bytes, str], Credit] = {}
        self._workers: dict[bytes, WorkerSeen] = {}
        self._stalled: set[bytes] = set()
        self._about: dict[str, bytes] = {}
        self._order: ModelOrder | None = None
        self._epoch = secrets.randbits(32)
        self.rejected = 0
        self.refused = 0
        self._thread = SocketThread("stream", context)
        self._thread.handle(self._data, self._on_data)
        self._thread.tick(self._look_after)
        self._thread.start()

    def close(self) -> None:
        self._thread.close()

    def publish(self, message: RunStarted | RunFinished | StateSample | Event | Heartbeat) -> None:
        """Send a small message to whoever listens on the state socket."""
        parts = wire.encode(message)
        topic = wire.kind_of(message).encode()
        self._thread.post(lambda: self._send_state([topic, *parts]))

    def publish_frame(self, frame: Frame, run: RunStarted) -> None:
        """Offer a frame to workers and viewers. It is in the ring at once: however busy the socket thread is, no more
        than the ring's bytes wait for it."""
        self._board.frames.add(frame.header.key, self._about_of(run), wire.encode(frame))
        self._thread.post(self._serve_all)

    def add_backfill(self, run: RunStarted, missing: Callable[[], Sequence[int]], load: Callable[[int], Frame]) -> None:
        """Offer recorded frames that lack a height, whenever workers have nothing newer. `missing` is called where
        results are taken, so that none comes in between; `load` may be slow."""

        def offer() -> None:
            waiting = deque(missing())
            if waiting:
                loaded = lambda sequence: wire.encode(load(sequence))  # noqa: E731
                self._board.add_backfill(Backfill(run.run_id, self._about_of(run), waiting, loaded))
                self._serve_all()

        self._thread.post(offer)

    def drop_run(self, run_id: str) -> None:
        """Forget the work of a run; results for it are refused by the taker from now on."""
        self._thread.post(lambda: self._board.drop_run(run_id))

    def order_model(self, order: ModelOrder) -> None:
        """Have every worker use another model set. Who asks for work without having heard of it is told again."""

        def tell() -> None:
            self._order = order
            for identity in list(self._workers):
                self._send(identity, [wire.dump_map(order.note)])

        self._thread.post(tell)

    @property
    def skipped(self) -> int:
        """Frames that live workers jumped over to stay with the newest."""
        return self._board.skipped

    @property
    def given_up(self) -> set[tuple[str, int]]:
        """Frames, as (run, sequence), on which several workers failed."""
        return self._board.given_up

    @property
    def stalled(self) -> int:
        """Consumers that asked but do not read what they are given."""
        return len(self._stalled)

    @property
    def errors(self) -> int:
        """Calls of the socket thread that failed in a way nobody foresaw; each is in the log."""
        return self._thread.errors

    @property
    def ring_bytes(self) -> int:
        """What recent frames and results hold of memory."""
        return self._board.frames.nbytes + self._results.nbytes

    def workers(self) -> list[dict[str, Any]]:
        """Who asked for work lately: name, provider, model, seconds since last seen. One that has several frames in
        hand asks for each as a consumer of its own, under one name: what it last said counts."""
        now_ns = time.monotonic_ns()
        seen = sorted(self._workers.copy().items(), key=lambda one: one[1].last_seen_ns)
        last = {_program(identity, worker.about): worker for identity, worker in seen}
        ages = [(worker.about, (now_ns - worker.last_seen_ns) / 1e9) for worker in last.values()]
        return [{**about, "last_seen_s": age} for about, age in ages if age < WORKER_GONE_AFTER_S]

    @property
    def leased(self) -> int:
        """Frames that were handed to workers and not answered."""
        return len(self._board._leases)

    def _send_state(self, parts: list[wire.Part]) -> None:
        self._state.send_multipart(parts)

    def _about_of(self, run: RunStarted) -> bytes:
        about = self._about.get(run.run_id)
        if about is None:
            about = bytes(wire.encode(run)[0])
            self._about = {**dict(list(self._about.items())[-7:]), run.run_id: about}
        return about

    def _on_data(self) -> None:
        identity, *parts = self._data.recv_multipart(copy=False)
        try:
            if self._allowed is not None and not self._allowed.admits(identity):
                self._forget(identity.bytes)
                raise MessageRejected("its sender's key is allowed no more")
            self._on_message(identity.bytes, [part.buffer for part in parts])
        except (MessageRejected, BadInput) as error:
            self.rejected += 1
            log.warning("rejected a message on the data socket: %s", error)

    def _on_message(self, identity: bytes, parts: list[wire.Part]) -> None:
        if not parts:
            raise MessageRejected("an empty message")
        request = wire.load_map(parts[0])
        if request.get("kind") == "credit" and len(parts) == 1:
            credit = read_credit(identity, request)
            if credit.epoch != self._epoch:
                credit.after = 0
            if credit.wants == "work":
                self._see_worker(credit)
                if self._order is not None and not self._order.is_answered(credit.about):
                    self._send(identity, [wire.dump_map(self._order.note)])
            self._credits[identity, credit.wants] = credit
            self._serve(credit)
        elif request.get("kind") == "result":
            self._on_result(identity, request, parts[1:])
        else:
            raise MessageRejected(
                f"a request of kind {str(request.get('kind'))[:40]!r} in {len(parts)} parts is unknown"
            )

    def _see_worker(self, credit: Credit) -> None:
        """A worker that asks again no longer works on what it held, or has never received it."""
        before = self._workers.get(credit.identity)
        if before is not None and before.holds is not None:
            if credit.received == before.nonce:
                self._board.release(before.holds.key)
            else:
                self._board.take_back(before.holds)
        self._workers[credit.identity] = WorkerSeen(credit.about, time.monotonic_ns())

    def _look_after(self) -> None:
        """Find out whether those who hold a frame are still there, and serve what became free."""
        now_ns = time.monotonic_ns()
        for identity, worker in list(self._workers.items()):
            if worker.holds is None and now_ns - worker.last_seen_ns > WORKER_GONE_AFTER_S * NANOSECONDS_PER_SECOND:
                del self._workers[identity]
                self._credits.pop((identity, "work"), None)
            elif worker.holds is not None and now_ns - worker.since_ns >= PROBE_AFTER_NS << worker.probes:
                worker.probes += 1
                if self._send(identity, [wire.dump_map({"kind": "probe"})]):
                    worker.last_seen_ns = now_ns
        self._serve_all()

    def _forget(self, identity: bytes) -> None:
        """A peer that has gone: what it held is free for others, what it asked for is not sent."""
        self._stalled.discard(identity)
        worker = self._workers.pop(identity, None)
        if worker is not None and worker.holds is not None:
            self._board.release(worker.holds.key)
        for wants in WANTS:
            self._credits.pop((identity, wants), None)

    def _on_result(self, identity: bytes, request: dict[str, Any], parts: list[wire.Part]) -> None:
        try:
            result = wire.decode(parts)
            if not isinstance(result, Result):
                raise MessageRejected(f"a worker handed back a {type(result).__name__}")
            reason = self._take_result(result)
        except MessageRejected as error:
            self._answer(identity, request, str(error))
            raise
        self._board.finish(result.header.key)
        worker = self._workers.get(identity)
        if worker is not None:
            worker.last_seen_ns = time.monotonic_ns()
            if worker.holds is not None and worker.holds.key == result.header.key:
                worker.holds = None
        about = self._about.get(result.header.run_id)
        if reason:
            self.refused += 1
        elif about is not None:
            self._results.add(result.header.key, about, parts)
        self._answer(identity, request, reason)
        self._serve_all()

    def _answer(self, identity: bytes, request: dict[str, Any], reason: str) -> None:
        answer = {"kind": "ack", "nonce": request.get("nonce"), "accepted": not reason, "reason": reason}
        self._send(identity, [wire.dump_map(answer)])

    def _send(self, identity: bytes, parts: Sequence[wire.Part]) -> bool:
        """Whether the message is on its way. Who reads nothing is not waited for, who left is forgotten."""
        try:
            self._data.send_multipart([identity, *parts], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            if identity not in self._stalled:
                self._stalled.add(identity)
                log.warning(
                    "a consumer reads nothing: what it asked for waits, up to %d messages", DATA_HIGH_WATER_MARK
                )
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget(identity)
            return False
        self._stalled.discard(identity)
        return True

    def _serve_all(self) -> None:
        for credit in list(self._credits.values()):
            self._serve(credit)

    def _serve(self, credit: Credit) -> None:
        entry = self._choose(credit)
        if entry is None:
            return
        note = {
            "kind": "delivery",
            "wants": credit.wants,
            "nonce": credit.nonce,
            "epoch": self._epoch,
            "serial": entry.serial,
            "skipped": max(0, entry.serial - credit.after - 1) if credit.after else 0,
        }
        if not self._send(credit.identity, [wire.dump_map(note), entry.about, *entry.parts]):
            if credit.wants == "work":
                self._board.take_back(entry)
            return
        del self._credits[credit.identity, credit.wants]
        if credit.wants == "work":
            worker = self._workers[credit.identity]
            worker.holds, worker.nonce, worker.probes = entry, credit.nonce, 0
            worker.since_ns = time.monotonic_ns()

    def _choose(self, credit: Credit) -> Entry | None:
        if credit.wants == "work":
            name = _program(credit.identity, credit.about)
            holding = {_program(one, worker.about) for one, worker in self._workers.items() if worker.holds is not None}
            return self._board.next(time.monotonic_ns(), credit.lease_ns, alone=name not in holding)
        ring = self._results if credit.wants == "results" else self._board.frames
        return ring.newest_after(credit.after) if credit.mode == "latest" else ring.next_after(credit.after)


def _program(identity: bytes, about: dict[str, str]) -> str:
    """The worker that a consumer belongs to."""
    return about.get("name") or identity.hex()
