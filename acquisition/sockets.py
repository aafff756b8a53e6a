"""How sockets are bound, and a connecting one that connects again by itself whatever cut it off."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence

import zmq
from zmq.utils.monitor import recv_monitor_message

from acquisition.endpoints import CurveKeys, check_reachable_only_by_friends, secure_client, secure_server
from acquisition.errors import BadInput
from acquisition.socket_thread import HANDSHAKE_MS, MAX_SMALL_BYTES, configure
from acquisition.wire import Part

log = logging.getLogger(__name__)

REOPEN_AFTER_S = HANDSHAKE_MS / 1000
TRY_AGAIN_AFTER_S = 1.0

_REFUSALS = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not admit our key: its folder of allowed keys must hold our public key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the handshake failed: either only one of us has keys, or ours of it is wrong",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed: is our file of its public key the right one?",
}


def bind(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    address: str,
    keys: CurveKeys | None,
    high_water_mark: int,
    max_part_bytes: int = MAX_SMALL_BYTES,
) -> zmq.Socket[bytes]:
    """A socket that listens. Raises `BadInput` when the address is taken, or open to others and there are no keys."""
    check_reachable_only_by_friends(address, keys)
    socket = context.socket(kind)
    configure(socket, high_water_mark, max_part_bytes)
    secure_server(socket, keys)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(0)
        raise BadInput(
            f"cannot listen on {address}: {error}; is another eclips running? Else choose another port under [stream]"
        ) from error
    return socket


class ClientSocket:
    """A connecting socket. What is sent goes to a node that is there now or nowhere: nothing old waits for one to come.

    ZeroMQ connects again after a broken connection, but not after a broken protocol or a refused handshake: a socket
    that could not be used for `REOPEN_AFTER_S` is opened anew. `refused` says why the node does not let us in; empty
    when it does, or when there is none. Use from one thread.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        kind: int,
        address: str,
        keys: CurveKeys | None,
        high_water_mark: int,
        max_part_bytes: int = MAX_SMALL_BYTES,
        topics: Sequence[bytes] = (),
    ) -> None:
        self._context = context
        self._kind = kind
        self._address = address
        self._keys = keys
        self._high_water_mark = high_water_mark
        self._max_part_bytes = max_part_bytes
        self._topics = topics
        self.refused = ""
        self.cuts = 0
        self.reopened = 0
        self._open()

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()

    def send(self, parts: Sequence[Part], timeout_s: float) -> bool:
        """False when nobody takes it: there is no node, or it does not let us in."""
        if self._socket.poll(_milliseconds(timeout_s), zmq.POLLOUT):
            with contextlib.suppress(zmq.Again):
                self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
                self._used_at = time.monotonic()
                return True
        self._look_after()
        return False

    def receive(self, timeout_s: float) -> list[Part] | None:
        """The parts of the next message, or None: after `timeout_s` without one, or at once when the line broke and
        whatever was on its way is lost (`cuts` counts that)."""
        deadline, cuts = time.monotonic() + timeout_s, self.cuts
        while (left_s := deadline - time.monotonic()) > 0 and self.cuts == cuts:
            ready = dict(self._poller.poll(_milliseconds(left_s)))
            if self._monitor in ready:
                self._hear_of_the_line()
            if self._socket in ready:
                with contextlib.suppress(zmq.Again):
                    parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
                    self._used_at = time.monotonic()
                    return [part.buffer for part in parts]
        if self._kind == zmq.SUB:
            self._look_after()
        return None

    def _open(self) -> None:
        self._opened_at = self._used_at = time.monotonic()
        self._socket: zmq.Socket[bytes] = self._context.socket(self._kind)
        configure(self._socket, self._high_water_mark, self._max_part_bytes)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        secure_client(self._socket, self._keys)
        for topic in self._topics:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        for event in _REFUSALS:
            events |= event
        self._monitor = self._socket.get_monitor_socket(events)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._socket.connect(self._address)

    def _look_after(self) -> None:
        """After something did not come or go: learn whether we were refused, and open anew what is dead."""
        self._hear_of_the_line()
        now = time.monotonic()
        refused = self.refused and now - self._opened_at > TRY_AGAIN_AFTER_S
        if refused or now - max(self._used_at, self._opened_at) > REOPEN_AFTER_S:
            self.close()
            self.reopened += 1
            self._open()

    def _hear_of_the_line(self) -> None:
        while self._monitor.poll(0):
            event = zmq.Event(recv_monitor_message(self._monitor)["event"])
            if event == zmq.EVENT_DISCONNECTED:
                self.cuts += 1
                continue
            refused = _REFUSALS.get(event, "")
            if refused and refused != self.refused:
                log.warning("the node at %s refuses us: %s", self._address, refused)
            self.refused = refused


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
