"""Sound messages, everything that can be wrong with them, and a node that sends such things."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import xxhash
import zmq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from acquisition import wire
from acquisition.consumer import DataConsumer
from acquisition.frames import Event, Result
from recordings import frame, result, run_started
from streams import PATIENCE_S

Parts = list[bytes]
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))

simple = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=9) | st.text(max_size=9)
trees = st.recursive(simple, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(simple, inner, max_size=3))
headers = st.dictionaries(st.text(max_size=9), trees, max_size=5)


def sealed(cbor: bytes) -> bytes:
    """Bytes with a checksum that holds, so that the decoder gets to see them."""
    marked = cbor + wire._CHECK_MARK
    return marked + xxhash.xxh3_64_digest(marked)


@st.composite
def damaged(draw: st.DrawFn, parts: Parts) -> Parts:
    """A sound message with something wrong with it."""
    parts = list(parts)
    at = draw(st.integers(0, len(parts) - 1))
    match draw(st.sampled_from(["flip", "flip", "cut", "swap", "extra", "random", "huge", "other map", "nonsense"])):
        case "flip":
            bit = draw(st.integers(0, 8 * len(parts[at]) - 1))
            flipped = bytearray(parts[at])
            flipped[bit // 8] ^= 1 << bit % 8
            parts[at] = bytes(flipped)
        case "cut":
            parts[at] = parts[at][: draw(st.integers(0, len(parts[at]) - 1))]
        case "swap" if len(parts) > 1:
            parts[at], parts[at - 1] = parts[at - 1], parts[at]
        case "random":
            parts = draw(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
        case "huge":
            parts[0] = wire.dump_map({**wire.load_map(parts[0]), "notes": "x" * wire.MAX_HEADER_BYTES})
        case "other map":
            parts[0] = wire.dump_map(draw(headers))
        case "nonsense":
            parts[0] = sealed(b"\xb9\xff\xff" + draw(st.binary(max_size=50)))
        case _:
            parts.append(b"")
    return parts


def as_bytes(parts: list[wire.Part]) -> Parts:
    return [bytes(part) for part in parts]


def changed(parts: Parts, **changes: Any) -> Parts:
    """With other entries in the header, and a checksum that holds."""
    return [wire.dump_map({**wire.load_map(parts[0]), **changes}), *parts[1:]]


def wait_for(count: Callable[[], int], expected: int, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while count() < expected:
        assert time.monotonic() < deadline, f"{count()} of {expected} {what}"
        time.sleep(0.002)
    assert count() == expected, what


FRAME = as_bytes(wire.encode(frame(3)))
RESULT = as_bytes(wire.encode(result(3)))
CREDIT = [
    wire.dump_map(
        {"kind": "credit", "wants": "work", "mode": "latest", "after": 0, "nonce": 1, "epoch": 0, "about": {}}
    )
]
HAND_BACK = [wire.dump_map({"kind": "result", "nonce": 1}), *RESULT]
BAD_CREDITS: tuple[dict[str, Any], ...] = (
    {"wants": ["work"]},
    {"mode": {}},
    {"after": -1},
    {"nonce": 2**70},
    {"epoch": True},
    {"received": "now"},
    {"lease_s": float("nan")},
    {"about": {"name": b"\xff"}},
    {"about": {7: "name"}},
    {"about": {"name": "x" * 10_000}},
    {"about": [1]},
)
BAD_LAYERS: tuple[Any, ...] = (
    None,
    [],
    [{"name": "height", "dtype": [], "shape": [24, 32]}],
    [{"name": "height", "dtype": "float32", "shape": []}],
    [{"name": "height", "dtype": "float32", "shape": [24, 32], "xxh3": "0" * 16}],
    [{"name": "height", "dtype": "object", "shape": [24, 32]}],
    [{"name": ["height"], "dtype": "float32", "shape": [24, 32]}],
    [7],
)
NOTE = wire.dump_map({"kind": "delivery", "nonce": 1, "epoch": 1, "serial": 1, "skipped": 0})
RUN = as_bytes(wire.encode(run_started()))
OTHER_RUN = as_bytes(wire.encode(run_started("another")))
DELIVERY = [NOTE, *RUN, *FRAME]
EVENT = as_bytes(wire.encode(Event("run", "test", 1, 2, 3, "alarm", "alarm", "text")))


class FalseNode:
    """Answers requests for work, and those of the last `victim` for data, with one of `bad` as long as there are some,
    and else with `good`: what a consumer that has gone still had asked for must not take them."""

    def __init__(self, good: Parts) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self.context.socket(zmq.ROUTER)
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.state = self.context.socket(zmq.PUB)
        self.state_address = f"tcp://127.0.0.1:{self.state.bind_to_random_port('tcp://127.0.0.1')}"
        self.good = good
        self.bad: list[Parts] = []
        self._victims = 0
        self.results: list[Result] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def victim(self, bad: list[Parts]) -> DataConsumer:
        """A new consumer, which alone gets what is `bad`."""
        self._victims += 1
        consumer = DataConsumer(self.context, self.address, about={"name": str(self._victims)})
        self.bad = bad
        return consumer

    def close(self) -> None:
        self._closing.set()
        self._thread.join(PATIENCE_S)
        self.context.destroy(linger=0)

    def _answer(self) -> None:
        serial = 0
        while not self._closing.is_set():
            if not self._socket.poll(50):
                continue
            identity, *parts = self._socket.recv_multipart()
            request = wire.load_map(parts[0])
            if request["kind"] == "result":
                message = wire.decode(parts[1:])
                assert isinstance(message, Result)
                self.results.append(message)
                ack = wire.dump_map({"kind": "ack", "nonce": request["nonce"], "reason": ""})
                self._socket.send_multipart([identity, ack])
                continue
            if self._socket.poll(0):
                continue  # asked again since: what is sent for this request would be passed over uncounted
            serial += 1
            note = {"kind": "delivery", "nonce": request["nonce"], "epoch": 1, "serial": serial, "skipped": 0}
            if self.bad and (request["wants"] == "work" or request["about"].get("name") == str(self._victims)):
                bad = self.bad.pop()
                told = note if len(bad) > 1 and bad[0] == NOTE else None
                self._socket.send_multipart([identity, wire.dump_map(note), *bad[1:]] if told else [identity, *bad])
            self._socket.send_multipart([identity, wire.dump_map(note), *self.good])
