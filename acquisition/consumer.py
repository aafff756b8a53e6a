"""The other side of the stream: how a worker, a viewer or an archive asks for what it wants."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from typing import Any

import zmq

from acquisition import wire
from acquisition.endpoints import CurveKeys
from acquisition.errors import ComponentFailed, MessageRejected
from acquisition.frames import Event, Frame, Heartbeat, Message, Result, RunFinished, RunStarted, StateSample
from acquisition.model_order import KIND as MODEL_ORDER
from acquisition.model_order import ModelOrder, read_order
from acquisition.socket_thread import MAX_PART_BYTES
from acquisition.sockets import ClientSocket

log = logging.getLogger(__name__)

ASK_AGAIN_AFTER_S = 2.0
STATE_KINDS = ("run_started", "run_finished", "state", "event", "heartbeat")
ANSWERS = ("delivery", "ack", "probe", MODEL_ORDER)
HIGH_WATER_MARK = 4
STATE_HIGH_WATER_MARK = 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame or result with the start of its run. `skipped`: how many were jumped over since the last one."""

    run: RunStarted
    message: Frame | Result
    skipped: int


class DataConsumer:
    """Asks a node for frames, results or work, one outstanding request at a time. Use from one thread.

    `rejected` counts messages that failed a check. It connects again by itself; `refused` says why the node does not
    let us in, empty when it does. `order` is the model set that the node last asked its workers to use.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        keys: CurveKeys | None = None,
        about: dict[str, str] | None = None,
    ) -> None:
        self._socket = ClientSocket(context, zmq.DEALER, address, keys, HIGH_WATER_MARK, MAX_PART_BYTES)
        self._about = about or {}
        self._nonces = itertools.count(1)
        self._after: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._received = 0
        self._epoch = 0
        self._ahead: dict[tuple[str, str], int] = {}
        self._run: Message | None = None
        self._encoded_run = b""
        self.order: ModelOrder | None = None
        self.rejected = 0

    @property
    def refused(self) -> str:
        return self._socket.refused

    def close(self) -> None:
        self._socket.close()

    def ask(self, wants: str, *, mode: str = "latest", timeout_s: float, lease_s: float = 0.0) -> Delivery | None:
        """Wait up to `timeout_s` for the next delivery of `frames`, `results` or `work`; None when none came.

        The request is repeated now and then, so a node that restarted meanwhile hears of it. In mode `every` the next
        one is asked for before this one is checked, so one more may wait here.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            patience_s = min(left_s, ASK_AGAIN_AFTER_S)
            nonce = self._ahead.pop((wants, mode), None) or self._request(wants, mode, lease_s, patience_s)
            answer = None if nonce is None else self._receive(nonce, patience_s)
            if answer is None or not self._count(wants, answer[0]):
                continue
            # What is wanted next is known only here: it travels while this one is checked and worked on.
            if mode == "every" and (ahead := self._request(wants, mode, lease_s, 0.0)) is not None:
                self._ahead[wants, mode] = ahead
            delivery = self._unpack(wants, answer[1])
            if delivery is not None:
                return delivery
        return None

    def hand_back(self, result: Result, timeout_s: float = 5.0) -> str:
        """Give a result to the node, again where the line broke. Returns "" when it was taken, else why not; raises
        `ComponentFailed` when the node does not answer."""
        # A frame that was asked for ahead would be passed over while waiting for the answer, so it is asked for again.
        self._ahead.clear()
        deadline, nonce = time.monotonic() + timeout_s, next(self._nonces)
        parts = [wire.dump_map({"kind": "result", "nonce": nonce}), *wire.encode(result)]
        while (left_s := deadline - time.monotonic()) > 0:
            if self._socket.send(parts, min(left_s, ASK_AGAIN_AFTER_S)):
                answer = self._receive(nonce, deadline - time.monotonic())
                if answer is not None:
                    return str(answer[0].get("reason", ""))
        raise ComponentFailed(f"the acquisition node did not acknowledge a result within {timeout_s:g} s")

    def _request(self, wants: str, mode: str, lease_s: float, timeout_s: float) -> int | None:
        """Send a credit. Returns its nonce, or None when nobody takes it."""
        nonce = next(self._nonces)
        credit = {
            "kind": "credit",
            "wants": wants,
            "mode": mode,
            "after": self._after.get(wants, 0),
            "nonce": nonce,
            "epoch": self._epoch,
            "received": self._received,
            "lease_s": lease_s,
            "about": self._about,
        }
        return nonce if self._socket.send([wire.dump_map(credit)], timeout_s) else None

    def _receive(self, nonce: int, timeout_s: float) -> tuple[dict[str, Any], list[wire.Part]] | None:
        """The answer to `nonce`, None when none came or the line broke; answers to earlier requests that were given up
        are passed over."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            parts = self._socket.receive(left_s)
            if parts is None:
                return None
            try:
                note = wire.load_map(parts[0])
                if note.get("kind") not in ANSWERS:
                    raise MessageRejected(f"an answer of kind {str(note.get('kind'))[:40]!r} is unknown")
                if note["kind"] == MODEL_ORDER:
                    self.order = read_order(note)
                    continue
            except MessageRejected as error:
                self._reject(error)
                continue
            if note.get("nonce") == nonce:
                return note, parts[1:]
        return None

    def _count(self, wants: str, note: dict[str, Any]) -> bool:
        """Take in what a delivery's note says of its place; False when it says nothing sensible."""
        try:
            epoch, serial, skipped = _numbers(note)
        except MessageRejected as error:
            self._lose(wants, error)
            return False
        if epoch != self._epoch:
            self._epoch = epoch
            self._after.clear()
            self._lost.clear()
        self._after[wants] = serial
        self._received = int(note["nonce"])
        self._lost[wants] = self._lost.get(wants, 0) + skipped
        return True

    def _unpack(self, wants: str, parts: list[wire.Part]) -> Delivery | None:
        """What was delivered, or None when it fails a check: then it counts as skipped, and the next one tells so."""
        try:
            run, message = _checked(wants, self._decode_run(parts[:1]), wire.decode(parts[1:]))
        except MessageRejected as error:
            self._lose(wants, error)
            return None
        return Delivery(run, message, self._lost.pop(wants))

    def _decode_run(self, parts: list[wire.Part]) -> Message | None:
        """A run's start comes with each of its frames: the same bytes are decoded once."""
        encoded = b"".join(parts)
        if encoded != self._encoded_run:
            self._run, self._encoded_run = wire.decode(parts), encoded
        return self._run

    def _lose(self, wants: str, error: MessageRejected) -> None:
        self._lost[wants] = self._lost.get(wants, 0) + 1
        self._reject(error)

    def _reject(self, error: MessageRejected) -> None:
        self.rejected += 1
        log.warning("rejected a delivery: %s", error)


class StateListener:
    """Hears run starts and ends, state samples, events and heartbeats; connects again by itself. `rejected` counts
    messages that failed a check. Use from one thread."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, keys: CurveKeys | None = None) -> None:
        self._socket = ClientSocket(
            context, zmq.SUB, address, keys, STATE_HIGH_WATER_MARK, topics=[kind.encode() for kind in STATE_KINDS]
        )
        self.rejected = 0

    @property
    def refused(self) -> str:
        """Why the node does not let us in; empty when it does."""
        return self._socket.refused

    def close(self) -> None:
        self._socket.close()

    def next(self, timeout_s: float) -> RunStarted | RunFinished | StateSample | Event | Heartbeat | None:
        """The next message, or None after `timeout_s` without one."""
        parts = self._socket.receive(timeout_s)
        if parts is None:
            return None
        try:
            message: Message = wire.decode(parts[1:])
            if isinstance(message, Frame | Result) or wire.kind_of(message).encode() != bytes(parts[0]):
                raise MessageRejected(f"a {type(message).__name__} came under the topic {bytes(parts[0])[:40]!r}")
        except MessageRejected as error:
            self.rejected += 1
            log.warning("rejected a state message: %s", error)
            return None
        return message


def _numbers(note: dict[str, Any]) -> tuple[int, int, int]:
    """Epoch, serial number and skipped of a delivery's note."""
    epoch, serial, skipped = numbers = [note.get(name) for name in ("epoch", "serial", "skipped")]
    if type(epoch) is not int or type(serial) is not int or type(skipped) is not int or min(epoch, serial, skipped) < 0:
        raise MessageRejected(f"a delivery needs whole numbers epoch, serial and skipped, not {str(numbers)[:80]}")
    return epoch, serial, skipped


def _checked(wants: str, run: Message | None, message: Message) -> tuple[RunStarted, Frame | Result]:
    kind = Result if wants == "results" else Frame
    if not isinstance(run, RunStarted) or not isinstance(message, kind):
        raise MessageRejected(f"asked for {wants}, got a {type(message).__name__} with a {type(run).__name__}")
    if message.header.run_id != run.run_id:
        raise MessageRejected(f"a message of run {message.header.run_id[:80]} came as one of {run.run_id[:80]}")
    return run, message
