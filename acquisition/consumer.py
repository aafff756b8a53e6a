"""The other side of the stream: how a worker, a viewer or an archive asks for what it wants."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import cbor2
import zmq

from acquisition import wire
from acquisition.endpoints import CurveKeys, secure_client
from acquisition.errors import ComponentFailed, MessageRejected
from acquisition.frames import Event, Frame, Heartbeat, Message, Result, RunFinished, RunStarted, StateSample
from acquisition.socket_thread import configure

ASK_AGAIN_AFTER_S = 2.0
STATE_KINDS = (b"run_started", b"run_finished", b"state", b"event", b"heartbeat")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame or result with the start of its run. `skipped`: how many were jumped over since the last one."""

    run: RunStarted
    message: Frame | Result
    skipped: int


class DataConsumer:
    """Asks a node for frames, results or work, one outstanding request at a time. Use from one thread."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        keys: CurveKeys | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self._socket = context.socket(zmq.DEALER)
        configure(self._socket, high_water_mark=16)
        secure_client(self._socket, keys)
        self._socket.connect(address)
        self._about = about or {}
        self._nonces = itertools.count(1)
        self._after: dict[str, int] = {}
        self._epoch = 0
        self._ahead: dict[tuple[str, str], int] = {}
        self._run: Message | None = None
        self._encoded_run = b""
        self.rejected = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, wants: str, *, mode: str = "latest", timeout_s: float, lease_s: float = 0.0) -> Delivery | None:
        """Wait up to `timeout_s` for the next delivery of `frames`, `results` or `work`; None when none came.

        The request is repeated now and then, so a node that restarted meanwhile hears of it. In mode `every` the next
        one is asked for before this one is checked, so one more may wait here.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            nonce = self._ahead.pop((wants, mode), None) or self._request(wants, mode, lease_s)
            if nonce is None:
                continue
            answer = self._receive(nonce, min(left_s, ASK_AGAIN_AFTER_S))
            if answer is None:
                continue
            note, parts = answer
            self._count(wants, note)
            # What is wanted next is known only here: it travels while this one is checked and worked on.
            if mode == "every" and (ahead := self._request(wants, mode, lease_s)) is not None:
                self._ahead[wants, mode] = ahead
            delivery = self._unpack(note, parts)
            if delivery is not None:
                return delivery
        return None

    def hand_back(self, result: Result, timeout_s: float = 5.0) -> str:
        """Give a result to the node. Returns "" when it was taken, else why not; raises `ComponentFailed` when the
        node does not answer."""
        nonce = next(self._nonces)
        # A frame that was asked for ahead would be passed over while waiting for the answer, so it is asked for again.
        self._ahead.clear()
        sent = self._send([cbor2.dumps({"kind": "result", "nonce": nonce}), *wire.encode(result)])
        answer = self._receive(nonce, timeout_s) if sent else None
        if answer is None:
            raise ComponentFailed(f"the acquisition node did not acknowledge a result within {timeout_s:g} s")
        return str(answer[0].get("reason", ""))

    def _request(self, wants: str, mode: str, lease_s: float) -> int | None:
        """Send a credit. Returns its nonce, or None when nobody takes it."""
        nonce = next(self._nonces)
        credit = {
            "kind": "credit",
            "wants": wants,
            "mode": mode,
            "after": self._after.get(wants, 0),
            "nonce": nonce,
            "epoch": self._epoch,
            "lease_s": lease_s,
            "about": self._about,
        }
        return nonce if self._send([cbor2.dumps(credit)]) else None

    def _send(self, parts: list[wire.Part]) -> bool:
        """False when nobody takes it: there is no node, or it does not let us in."""
        try:
            self._socket.send_multipart(parts, copy=False)
        except zmq.Again:
            return False
        return True

    def _receive(self, nonce: int, timeout_s: float) -> tuple[dict[str, Any], list[wire.Part]] | None:
        """The answer to `nonce`; answers to earlier requests that were given up are passed over."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            if not self._socket.poll(max(1, round(left_s * 1000))):
                return None
            parts: list[wire.Part] = [part.buffer for part in self._socket.recv_multipart(copy=False)]
            try:
                note = wire.load_map(parts[0])
            except MessageRejected:
                self.rejected += 1
                continue
            if note.get("nonce") == nonce:
                return note, parts[1:]
        return None

    def _count(self, wants: str, note: dict[str, Any]) -> None:
        if note.get("epoch") != self._epoch:
            self._epoch = note["epoch"]
            self._after.clear()
        self._after[wants] = note["serial"]

    def _unpack(self, note: dict[str, Any], parts: list[wire.Part]) -> Delivery | None:
        try:
            run = self._decode_run(parts[:1])
            message = wire.decode(parts[1:])
        except MessageRejected:
            self.rejected += 1
            return None
        if not isinstance(run, RunStarted) or not isinstance(message, Frame | Result):
            self.rejected += 1
            return None
        if message.header.run_id != run.run_id:
            self.rejected += 1
            return None
        return Delivery(run, message, int(note.get("skipped", 0)))

    def _decode_run(self, parts: list[wire.Part]) -> Message | None:
        """A run's start comes with each of its frames: the same bytes are decoded once."""
        encoded = b"".join(parts)
        if encoded != self._encoded_run:
            self._run, self._encoded_run = wire.decode(parts), encoded
        return self._run


class StateListener:
    """Hears run starts and ends, state samples, events and heartbeats. Use from one thread."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, keys: CurveKeys | None = None) -> None:
        self._socket = context.socket(zmq.SUB)
        configure(self._socket, high_water_mark=1000)
        secure_client(self._socket, keys)
        for kind in STATE_KINDS:
            self._socket.setsockopt(zmq.SUBSCRIBE, kind)
        self._socket.connect(address)
        self.rejected = 0

    def close(self) -> None:
        self._socket.close()

    def next(self, timeout_s: float) -> RunStarted | RunFinished | StateSample | Event | Heartbeat | None:
        """The next message, or None after `timeout_s` without one."""
        if not self._socket.poll(max(1, round(timeout_s * 1000))):
            return None
        parts = self._socket.recv_multipart()
        try:
            message: Message = wire.decode(parts[1:])
        except MessageRejected:
            self.rejected += 1
            return None
        return None if isinstance(message, Frame | Result) else message
