"""Whatever is sent to the control and data sockets: it is answered, or rejected and counted; no thread stumbles over
it, and whoever behaves is served as before."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import cbor2
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from acquisition import wire
from acquisition.consumer import DataConsumer
from acquisition.control import ControlClient, ControlServer
from acquisition.credit import MAX_ABOUT, MAX_ABOUT_CHARACTERS
from acquisition.endpoints import Endpoints
from acquisition.errors import BadInput, ComponentFailed, RequestRefused
from acquisition.frames import Frame, Result, ResultHeader
from acquisition.stream import StreamServer
from hostile import BOMBS, Change, bounded_memory, changed, changes, few, header_of, replace_somewhere, sealed, values
from programs import free_ports, wait_until
from recordings import frame, result, run_started

FAR_FUTURE_NS = 2**62


class Control:
    """A control server that echoes arguments back, refuses `refuse`, and a peer that sends it anything."""

    def __init__(self) -> None:
        self.address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.begun: list[str] = []
        self.server = ControlServer(self.context, self.address, self._handle, self.loop)
        self.peer = self.context.socket(zmq.DEALER)
        self.peer.connect(self.address)
        self.client = ControlClient(self.context, self.address)

    async def _handle(self, name: str, arguments: Mapping[str, Any]) -> Any:
        self.begun.append(name)
        if name == "refuse":
            raise RequestRefused("x" * 100_000)
        return dict(arguments)

    def send(self, *parts: bytes) -> list[dict[str, Any]]:
        """Send one message, then a sound command; all answers that came before its own."""
        sentinel = f"sentinel-{time.monotonic_ns()}"
        self.peer.send_multipart(list(parts))
        self.peer.send(command(id=sentinel, idempotency_key=sentinel))
        answers = []
        while self.peer.poll(20_000):
            answer = wire.load_map(self.peer.recv())
            if answer["id"] == sentinel:
                assert answer["status"] == "done"
                return answers
            answers.append(answer)
        pytest.fail("a sound command was not answered")

    def close(self) -> None:
        self.peer.close(0)
        self.client.close()
        self.server.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()
        self.context.destroy(linger=0)


def command_tree(**changes: object) -> dict[str, Any]:
    usual = {"id": "1", "name": "echo", "arguments": {"a": 1.5, "b": ["c"]}, "deadline_utc_ns": FAR_FUTURE_NS}
    return {**usual, "idempotency_key": f"k-{time.monotonic_ns()}", **changes}


def command(**changes: object) -> bytes:
    return header_of(command_tree(**changes))


@pytest.fixture(scope="module")
def control() -> Iterator[Control]:
    made = Control()
    yield made
    made.close()


def assert_answered_or_rejected(control: Control, message: list[bytes]) -> None:
    before = control.server.rejected
    with bounded_memory():
        answers = control.send(*message)
    assert len(answers) + control.server.rejected - before == 1
    assert control.server._thread.errors == 0
    assert all(len(cbor2.dumps(answer)) <= wire.MAX_HEADER_BYTES for answer in answers)


@pytest.mark.parametrize("bomb", list(BOMBS.values()), ids=list(BOMBS))
def test_a_command_that_asks_for_much_is_rejected_and_the_next_one_done(control: Control, bomb: bytes) -> None:
    for message in (bomb, sealed(bomb)):
        assert_answered_or_rejected(control, [message])


@pytest.mark.soak
@few
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=3))
def test_random_bytes_to_the_control_socket(control: Control, parts: list[bytes]) -> None:
    assert_answered_or_rejected(control, parts)


@pytest.mark.soak
@few
@given(st.data(), values)
def test_a_command_with_a_wrong_value_is_answered_or_rejected(
    control: Control, data: st.DataObject, value: Any
) -> None:
    assert_answered_or_rejected(control, [header_of(replace_somewhere(data, command_tree(), value))])


@pytest.mark.soak
@few
@given(st.lists(changes, min_size=1, max_size=3))
def test_a_command_with_changed_bytes_is_answered_or_rejected(control: Control, several: list[Change]) -> None:
    assert_answered_or_rejected(control, [changed(command(), several)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "x" * 201},
        {"name": "x" * 60_000},
        {"idempotency_key": "x" * 60_000},
        {"idempotency_key": 7},
        {"arguments": ["a"]},
        {"arguments": {"a": "x" * 70_000}},
        {"deadline_utc_ns": "soon"},
        {"deadline_utc_ns": float("nan")},
        {"deadline_utc_ns": 1.5},
        {"deadline_utc_ns": 2**70},
    ],
)
def test_a_command_that_cannot_be_is_rejected(control: Control, wrong: dict[str, object]) -> None:
    before = control.server.rejected
    assert control.send(command(**wrong)) == []
    assert control.server.rejected == before + 1


@pytest.mark.parametrize("deadline_ns", [-(2**63), 0, 1])
def test_a_deadline_long_past_is_refused(control: Control, deadline_ns: int) -> None:
    begun = len(control.begun)
    (answer,) = control.send(command(deadline_utc_ns=deadline_ns))
    assert answer["status"] == "refused"
    assert control.begun[begun:] == ["echo"], "only the sound command after it was begun"


@pytest.mark.soak
@few
@given(st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=6), st.integers())
def test_repeated_keys_are_done_once_however_often_and_under_whichever_id(
    control: Control, keys: list[str], round_number: int
) -> None:
    stamp, begun = f"{round_number}-{time.monotonic_ns()}", len(control.begun)
    for number, key in enumerate(keys):
        (answer,) = control.send(command(name="once", id=str(number), idempotency_key=f"{stamp}-{key}"))
        assert (answer["id"], answer["status"]) == (str(number), "done")
    assert control.begun[begun:].count("once") == len(set(keys))


def test_a_reason_of_any_length_fits_into_an_answer(control: Control) -> None:
    with pytest.raises(RequestRefused, match=r"^x{4000}$"):
        control.client.call("refuse")


def test_arguments_that_fit_into_no_header_are_refused_before_they_are_sent(control: Control) -> None:
    with pytest.raises(BadInput, match=f"the limit is {wire.MAX_HEADER_BYTES}"):
        control.client.call("echo", {"a": "x" * 70_000})
    assert control.client.call("echo", {"a": "x" * 60_000}) == {"a": "x" * 60_000}


@pytest.mark.parametrize("reply", [b"\xff", header_of(7), header_of({"id": 1}), sealed(b"\x81" * 1000)])
def test_a_node_that_answers_nonsense_has_not_answered(reply: bytes) -> None:
    with zmq.Context() as context:
        address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
        server = context.socket(zmq.ROUTER)
        server.bind(address)
        client = ControlClient(context, address)
        answering = threading.Thread(target=lambda: server.send_multipart([server.recv_multipart()[0], reply]))
        answering.start()
        try:
            with pytest.raises(ComponentFailed, match="did not answer status"):
                client.call("status", deadline_s=2)
        finally:
            answering.join()
            client.close()
            server.close(0)


class Stream:
    """A stream server that takes every result, a peer that sends it anything, and a consumer that behaves."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        data, state, control = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
        self.taken: list[Result] = []
        self.server = StreamServer(self.context, Endpoints(data, state, control), self._take, 2**20)
        self.peer = self.context.socket(zmq.DEALER)
        self.peer.connect(data)
        self.consumer = DataConsumer(self.context, data, None, {"name": "test"})
        self.sequence = 0

    def _take(self, result: Result) -> str:
        self.taken.append(result)
        return ""

    def send(self, *parts: bytes) -> None:
        """Send one message, then see that the server still hands out a new frame."""
        self.peer.send_multipart(list(parts))
        # What the peer is answered is of no interest, but must not pile up.
        while self.peer.poll(0):
            self.peer.recv_multipart()
        self.sequence += 1
        self.server.publish_frame(frame(self.sequence), run_started())
        delivery = self.consumer.ask("frames", timeout_s=20)
        assert delivery is not None and isinstance(delivery.message, Frame)
        assert delivery.message.header.sequence == self.sequence

    def close(self) -> None:
        self.peer.close(0)
        self.consumer.close()
        self.server.close()
        self.context.destroy(linger=0)


@pytest.fixture(scope="module")
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.close()


def credit(**changes: object) -> dict[str, Any]:
    usual = {"kind": "credit", "wants": "work", "mode": "latest", "after": 0, "nonce": 1, "epoch": 0, "lease_s": 1.0}
    return {**usual, "about": {"name": "peer", "model": "m"}, **changes}


def assert_survived(stream: Stream, message: list[bytes]) -> None:
    with bounded_memory():
        stream.send(*message)
    assert stream.server._thread.errors == 0
    about = stream.server.workers()
    assert len(cbor2.dumps(about)) < wire.MAX_HEADER_BYTES


@pytest.mark.parametrize("bomb", list(BOMBS.values()), ids=list(BOMBS))
def test_a_credit_that_asks_for_much_is_rejected_and_others_are_served(stream: Stream, bomb: bytes) -> None:
    before = stream.server.rejected
    for message in (bomb, sealed(bomb)):
        assert_survived(stream, [message])
    wait_until(lambda: stream.server.rejected == before + 2, lambda: "not counted")


@pytest.mark.soak
@few
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=4))
def test_random_bytes_to_the_data_socket(stream: Stream, parts: list[bytes]) -> None:
    assert_survived(stream, parts)


@pytest.mark.soak
@few
@given(st.data(), values)
def test_a_credit_with_a_wrong_value_is_served_or_rejected(stream: Stream, data: st.DataObject, value: Any) -> None:
    assert_survived(stream, [header_of(replace_somewhere(data, credit(), value))])


@pytest.mark.soak
@few
@given(st.data(), values, st.lists(changes, max_size=1))
def test_a_result_with_a_wrong_value_is_taken_whole_or_rejected(
    stream: Stream, data: st.DataObject, value: Any, several: list[Change]
) -> None:
    header, *payloads = (bytes(part) for part in wire.encode(result(1)))
    tree = replace_somewhere(data, wire.load_map(header), value)
    request = header_of({"kind": "result", "nonce": 1})
    before = len(stream.taken)
    assert_survived(stream, [request, header_of(tree), *(changed(payload, several) for payload in payloads)])
    for taken in stream.taken[before:]:
        assert taken.height_m.dtype == np.float32 and taken.height_m.ndim == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"wants": "everything"},
        {"wants": ["work"]},
        {"mode": None},
        {"after": -1},
        {"after": 1.5},
        {"nonce": "1"},
        {"epoch": None},
        {"lease_s": -1},
        {"lease_s": float("nan")},
        {"lease_s": float("inf")},
        {"lease_s": 1e9},
        {"lease_s": "long"},
        {"about": ["name"]},
        {"about": {"name": 7}},
        {"about": {"name": "x" * (MAX_ABOUT_CHARACTERS + 1)}},
        {"about": {str(number): "x" for number in range(MAX_ABOUT + 1)}},
        {"kind": "gossip"},
        {"kind": {}},
    ],
)
def test_a_credit_that_cannot_be_is_rejected_and_counted(stream: Stream, wrong: dict[str, object]) -> None:
    before = stream.server.rejected
    assert_survived(stream, [header_of(credit(**wrong))])
    wait_until(lambda: stream.server.rejected == before + 1, lambda: "not counted")


def test_a_result_with_more_figures_than_a_status_could_tell_is_rejected(stream: Stream) -> None:
    header = ResultHeader("run", "test", 1, 0, 0, "m", {}, "CPU", "c", 5e-9, {str(n): 1.0 for n in range(101)}, {})
    parts = wire.encode(Result(header, {"height": result(1).height_m}))
    before = stream.server.rejected
    assert_survived(stream, [header_of({"kind": "result", "nonce": 1}), *(bytes(part) for part in parts)])
    wait_until(lambda: stream.server.rejected == before + 1, lambda: "not counted")
