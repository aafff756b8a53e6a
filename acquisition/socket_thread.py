"""A thread that owns ZeroMQ sockets: other threads hand it calls, it alone touches the sockets."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import zmq

log = logging.getLogger(__name__)

LINGER_MS = 500
HEARTBEAT_MS = 2000
SEND_TIMEOUT_MS = 500
HANDSHAKE_MS = 5000
TICK_S = 0.5
MAX_SMALL_BYTES = 2**20
MAX_PART_BYTES = 2**30


class SocketThread:
    """Polls its sockets and runs calls posted to it, in order, until closed.

    A handler's exception is logged and counted in `errors`, never ends the thread: a bad peer must not stop a run.
    """

    def __init__(self, name: str, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self._calls: deque[Callable[[], None]] = deque()
        self._handlers: dict[zmq.Socket[bytes], Callable[[], None]] = {}
        self._address = f"inproc://wake-{name}-{id(self):x}"
        self._wake_in = context.socket(zmq.PAIR)
        self._wake_in.bind(self._address)
        self._wake_out = context.socket(zmq.PAIR)
        self._wake_out.connect(self._address)
        self._wake_lock = threading.Lock()
        self._closing = False
        self._ticks: list[Callable[[], None]] = []
        self.errors = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def handle(self, socket: zmq.Socket[bytes], handler: Callable[[], None]) -> None:
        """Call `handler` whenever `socket` can be read. Before `start` only."""
        self._handlers[socket] = handler

    def tick(self, call: Callable[[], None]) -> None:
        """Run `call` about every `TICK_S` in the socket thread. Before `start` only."""
        self._ticks.append(call)

    def start(self) -> None:
        self._thread.start()

    def post(self, call: Callable[[], None]) -> None:
        """Run `call` soon in the socket thread; from any thread. Calls after `close` are dropped."""
        self._calls.append(call)
        self._wake()

    def close(self) -> None:
        """Run what was posted, then close the sockets and end the thread."""
        if not self._closing and self._thread.is_alive():
            self.post(self._stop)
            self._thread.join(timeout=5)
        with self._wake_lock:
            self._closing = True
            self._wake_out.close(0)

    def _stop(self) -> None:
        self._closing = True

    def _wake(self) -> None:
        with self._wake_lock:
            if not self._wake_out.closed:
                # Again means that the thread has a thousand wake-ups waiting already.
                with contextlib.suppress(zmq.Again):
                    self._wake_out.send(b"", zmq.NOBLOCK)

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._wake_in, *self._handlers):
            poller.register(socket, zmq.POLLIN)
        due = time.monotonic() + TICK_S
        while not self._closing:
            for socket, _ in poller.poll(max(0, round((due - time.monotonic()) * 1000))):
                if socket is self._wake_in:
                    self._drain_calls()
                else:
                    self._guarded(self._handlers[socket])
            if time.monotonic() >= due:
                due = time.monotonic() + TICK_S
                for call in self._ticks:
                    self._guarded(call)
        for socket in self._handlers:
            socket.close(LINGER_MS)
        self._wake_in.close(0)

    def _drain_calls(self) -> None:
        self._wake_in.recv()
        while self._calls:
            self._guarded(self._calls.popleft())

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            self.errors += 1
            log.exception("socket thread %s", self._thread.name)


def configure(socket: zmq.Socket[bytes], high_water_mark: int, max_part_bytes: int = MAX_SMALL_BYTES) -> None:
    """The settings every socket gets: nothing queues without bound, nothing lingers, dead peers are noticed.

    A peer that sends a part above `max_part_bytes` is cut off before it is taken into memory.
    """
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    # A peer that refuses the handshake leaves a sender without a pipe, where it would wait for ever.
    socket.setsockopt(zmq.SNDTIMEO, SEND_TIMEOUT_MS)
    socket.setsockopt(zmq.SNDHWM, high_water_mark)
    socket.setsockopt(zmq.RCVHWM, high_water_mark)
    socket.setsockopt(zmq.MAXMSGSIZE, max_part_bytes)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
