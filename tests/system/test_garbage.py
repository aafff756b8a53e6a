"""Whatever arrives that is no sound message is rejected and counted, at every receiving end, and the next good one is
served."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
import xxhash
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streams import PATIENCE_S, Node, Numbered, QuickPipeline, WorkerThread

from acquisition import wire
from acquisition.consumer import DataConsumer, StateListener
from acquisition.control import ControlClient, ControlServer
from acquisition.endpoints import Endpoints
from acquisition.frames import Event, Frame, Heartbeat, Result
from acquisition.stream import StreamServer
from programs import free_ports
from recordings import frame, result, run_started

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


def wait_for(count: Any, expected: int, what: str) -> None:
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
BAD_CREDITS = (
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
BAD_LAYERS = (
    None,
    [],
    [{"name": "height", "dtype": [], "shape": [24, 32]}],
    [{"name": "height", "dtype": "float32", "shape": []}],
    [{"name": "height", "dtype": "float32", "shape": [24, 32], "xxh3": "0" * 16}],
    [{"name": "height", "dtype": "object", "shape": [24, 32]}],
    [{"name": ["height"], "dtype": "float32", "shape": [24, 32]}],
    [7],
)


# The node's sockets


class Sockets:
    """A stream and a control server, and a raw peer for each."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.ports = data, state, control = [f"tcp://127.0.0.1:{port}" for port in free_ports(3)]
        self.stream = StreamServer(self.context, Endpoints(data, state, control), lambda _: "", 2**20)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.control = ControlServer(self.context, control, self._echo, self.loop)
        self.client = ControlClient(self.context, control)
        self.consumer = DataConsumer(self.context, data)
        self.to_data, self.to_control = (self._peer(address) for address in (data, control))

    async def _echo(self, name: str, arguments: Mapping[str, Any]) -> Any:
        return name

    def _peer(self, address: str) -> zmq.Socket[bytes]:
        peer = self.context.socket(zmq.DEALER)
        peer.connect(address)
        return peer

    def close(self) -> None:
        self.stream.close()
        self.control.close()
        self.client.close()
        self.consumer.close()
        self.context.destroy(linger=0)
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture(scope="module")
def node_sockets() -> Iterator[Sockets]:
    sockets = Sockets()
    yield sockets
    sockets.close()


@few
@given(st.lists(damaged(HAND_BACK) | damaged(CREDIT), min_size=10, max_size=30))
def test_damage_on_the_data_socket_is_counted(node_sockets: Sockets, messages: list[Parts]) -> None:
    stream = node_sockets.stream
    before = stream.rejected
    for parts in messages:
        node_sockets.to_data.send_multipart(parts)
    wait_for(lambda: stream.rejected, before + len(messages), "rejected")
    stream.publish_frame(frame(3), run_started())
    assert node_sockets.consumer.ask("frames", timeout_s=PATIENCE_S) is not None
    assert stream.errors == 0


def test_sound_messages_that_ask_for_nonsense_are_counted(node_sockets: Sockets) -> None:
    stream = node_sockets.stream
    before = stream.rejected
    messages = [changed(CREDIT, **bad) for bad in BAD_CREDITS]
    messages += [[HAND_BACK[0], *changed(RESULT, layers=layers)] for layers in BAD_LAYERS]
    messages += [[HAND_BACK[0], *changed(RESULT, figures={str(n): 1.0 for n in range(1000)})]]
    messages += [[HAND_BACK[0], *changed(RESULT, schema=2)], [HAND_BACK[0], *FRAME], [HAND_BACK[0]], [CREDIT[0], b""]]
    for parts in messages:
        node_sockets.to_data.send_multipart(parts)
    wait_for(lambda: stream.rejected, before + len(messages), "rejected")
    assert stream.errors == 0


@few
@given(
    st.lists(
        damaged(
            [wire.dump_map({"id": "1", "name": "x", "arguments": {}, "deadline_utc_ns": 0, "idempotency_key": "k"})]
        ),
        min_size=10,
        max_size=30,
    )
)
def test_damage_on_the_control_socket_is_counted(node_sockets: Sockets, messages: list[Parts]) -> None:
    control = node_sockets.control
    before = control.rejected
    for parts in messages:
        node_sockets.to_control.send_multipart(parts)
    wait_for(lambda: control.rejected, before + len(messages), "rejected")
    assert node_sockets.client.call("echo") == "echo"
    assert control.errors == 0


def test_a_message_too_large_for_any_frame_is_cut_off_and_nobody_else_is(node_sockets: Sockets) -> None:
    node_sockets.to_control.send(bytes(2**21))
    assert node_sockets.client.call("echo") == "echo"


@few
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=10))
def test_bytes_that_are_not_even_a_connection_harm_nobody(node_sockets: Sockets, messages: list[bytes]) -> None:
    for number, message in enumerate(messages):
        port = int(node_sockets.ports[number % 3].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(message)
    assert node_sockets.client.call("echo") == "echo"
    node_sockets.stream.publish_frame(frame(3), run_started())
    assert node_sockets.consumer.ask("frames", timeout_s=PATIENCE_S) is not None


# The consumers' sockets


class FalseNode:
    """Answers every request for data with one of `bad`, as long as there are some, then with `good`."""

    def __init__(self, good: Parts) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self.context.socket(zmq.ROUTER)
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.state = self.context.socket(zmq.PUB)
        self.state_address = f"tcp://127.0.0.1:{self.state.bind_to_random_port('tcp://127.0.0.1')}"
        self.good = good
        self.bad: list[Parts] = []
        self.results: list[Result] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

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
            serial += 1
            note = {"kind": "delivery", "nonce": request["nonce"], "epoch": 1, "serial": serial, "skipped": 0}
            if self.bad:
                bad = self.bad.pop()
                told = note if len(bad) > 1 and bad[0] == NOTE else None
                self._socket.send_multipart([identity, wire.dump_map(note), *bad[1:]] if told else [identity, *bad])
            self._socket.send_multipart([identity, wire.dump_map(note), *self.good])


NOTE = wire.dump_map({"kind": "delivery", "nonce": 1, "epoch": 1, "serial": 1, "skipped": 0})
RUN = as_bytes(wire.encode(run_started()))
OTHER_RUN = as_bytes(wire.encode(run_started("another")))
DELIVERY = [NOTE, *RUN, *FRAME]


@pytest.fixture(scope="module")
def false_node() -> Iterator[FalseNode]:
    node = FalseNode([*RUN, *FRAME])
    yield node
    node.close()


@few
@given(st.lists(damaged(DELIVERY), min_size=1, max_size=20))
def test_damaged_deliveries_are_counted_and_told_as_skipped(false_node: FalseNode, messages: list[Parts]) -> None:
    consumer = DataConsumer(false_node.context, false_node.address)
    false_node.bad = list(messages)
    told = 0
    while consumer.rejected < len(messages):
        delivery = consumer.ask("frames", mode="every", timeout_s=PATIENCE_S)
        assert delivery is not None and isinstance(delivery.message, Frame)
        told += delivery.skipped
        np.testing.assert_array_equal(delivery.message.images, frame(3).images)
    assert consumer.rejected == len(messages)
    assert told <= len(messages)
    consumer.close()


@pytest.mark.parametrize(
    "bad",
    [
        [NOTE, *OTHER_RUN, *FRAME],
        [NOTE, *RUN, *RESULT],
        [NOTE, *FRAME, *RUN],
        [NOTE, *RUN],
        [NOTE, *RUN, *changed(FRAME, schema=2)],
        [NOTE, *RUN, *changed(FRAME, run_id="another")],
        [NOTE, *RUN, *changed(FRAME, shape=[4, 24, 33])],
        [NOTE, *changed(RUN, kind="gossip"), *FRAME],
    ],
)
def test_one_wrong_delivery_is_counted_and_told_as_one_skipped(false_node: FalseNode, bad: Parts) -> None:
    consumer = DataConsumer(false_node.context, false_node.address)
    false_node.bad = [bad]
    delivery = consumer.ask("frames", mode="every", timeout_s=PATIENCE_S)
    assert delivery is not None
    assert (consumer.rejected, delivery.skipped) == (1, 1)
    consumer.close()


@few
@given(st.lists(damaged([*RUN, *FRAME]), min_size=1, max_size=20), st.booleans())
def test_a_worker_outlives_every_damaged_frame(false_node: FalseNode, messages: list[Parts], noted: bool) -> None:
    false_node.bad = [[NOTE, *parts] if noted else parts for parts in messages]
    false_node.results.clear()
    worker = WorkerThread(false_node.address)
    wait_for(lambda: min(len(false_node.results), 1), 1, "heights came back")
    worker.close()
    np.testing.assert_array_equal(false_node.results[0].height_m, frame(3).images[0] * np.float32(1e-9))


def test_a_worker_outlives_frames_on_which_its_networks_fail(false_node: FalseNode) -> None:
    failed: list[int] = []

    def fail(frame: Frame) -> None:
        failed.append(frame.header.sequence)
        raise ZeroDivisionError

    worker = WorkerThread(false_node.address)
    worker.worker._pipeline = QuickPipeline(begun=fail)  # type: ignore[assignment]
    wait_for(lambda: min(len(failed), 3), 3, "failures")
    worker.worker._pipeline = QuickPipeline()  # type: ignore[assignment]
    false_node.results.clear()
    wait_for(lambda: min(len(false_node.results), 1), 1, "heights came back")
    worker.close()


EVENT = as_bytes(wire.encode(Event("run", "test", 1, 2, 3, "alarm", "alarm", "text")))


@few
@given(st.lists(damaged(EVENT), min_size=1, max_size=20))
def test_damaged_state_messages_are_counted(false_node: FalseNode, messages: list[Parts]) -> None:
    listener = StateListener(false_node.context, false_node.state_address)
    wait_for(
        lambda: (false_node.state.send_multipart([b"event", *EVENT]), int(listener.next(0.02) is not None))[1], 1, ""
    )
    for parts in messages:
        false_node.state.send_multipart([b"event", *parts])
    false_node.state.send_multipart([b"heartbeat", *EVENT])
    false_node.state.send_multipart([b"event"])
    last = Event("run", "test", 2, 2, 3, "last", "info", "")
    false_node.state.send_multipart([b"event", *as_bytes(wire.encode(last))])
    with ExitStack() as stack:
        stack.callback(listener.close)
        while listener.next(PATIENCE_S) != last:
            continue
        assert listener.rejected == len(messages) + 2


# The whole node


async def test_results_that_belong_to_no_frame_are_refused_and_the_run_is_whole(tmp_path: Path) -> None:
    async with Node(tmp_path / "runs") as node:
        rogue = DataConsumer(zmq.Context.instance(), node.endpoints.data, None, {"name": "rogue"})
        run_id = await node.start(Numbered(pace_s=0.01), frames=5)
        await node.machine.wait()

        def hand_back(run: str, sequence: int, shape: tuple[int, ...], value: float) -> str:
            header = wire.from_tree({**wire.to_tree(result(sequence).header), "run_id": run, "figures": {"x": value}})
            return rogue.hand_back(Result(header, {"height": np.ones(shape, np.float32)}))

        answers = [
            await asyncio.to_thread(hand_back, *told)
            for told in (
                ("another", 0, (16, 16), 7.0),
                (run_id, 99, (16, 16), 7.0),
                (run_id, -1, (16, 16), 7.0),
                (run_id, 0, (8, 8), 7.0),
                (run_id, 0, (16, 16), float("nan")),
                (run_id, 0, (16, 16), 7.0),
            )
        ]
        for answer, expected in zip(
            answers, ("not open", "not recorded", "not recorded", "shape", "", "already"), strict=True
        ):
            assert expected in answer and bool(expected) == bool(answer)
        assert (node.stream.rejected, node.stream.refused) == (3, 2)
        assert node.program.node.latest_figures == {}
        worker = WorkerThread(node.endpoints.data)
        await node.complete(run_id)
        worker.close()
        rogue.close()
        assert sorted(worker.begun) == [(run_id, sequence) for sequence in range(1, 5)]


async def test_the_node_gives_signs_of_life_whatever_consumers_say_of_themselves(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    async with Node(tmp_path / "runs") as node:
        rude = context.socket(zmq.DEALER)
        rude.connect(node.endpoints.data)
        for bad in BAD_CREDITS:
            rude.send_multipart(changed(CREDIT, **bad))
        await node.until(lambda: node.stream.rejected == len(BAD_CREDITS), "not all were rejected")
        listener = StateListener(context, node.endpoints.state)
        beats = []
        while len(beats) < 2:
            message = await asyncio.to_thread(listener.next, PATIENCE_S)
            assert message is not None
            beats += [message] if isinstance(message, Heartbeat) else []
        assert beats[-1].status["workers"] == []
        assert beats[-1].status["drops"]["rejected"] == len(BAD_CREDITS)
        listener.close()
        rude.close(0)
    context.destroy(linger=0)


def test_a_header_of_nothing_but_nesting_is_rejected() -> None:
    for evil in (b"\x81" * 60_000, b"\x9b" + b"\x7f" * 8, b"\x5b" + b"\x7f" * 8, cbor2.dumps({1: 2})[1:]):
        with pytest.raises(wire.MessageRejected):
            wire.load_map(sealed(b"\xa2\x61a" + evil))
