"""Commands: one answer each, refusals with reason and limit, repeats answered alike, late ones not begun."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import cbor2
import pytest
import zmq

from acquisition import wire
from acquisition.control import ControlClient, ControlServer
from acquisition.errors import BadInput, ComponentFailed, DeviceFailed, LimitExceeded, RequestRefused
from programs import free_ports, wait_until


class Node:
    """A control server whose handler does what the command's name says."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.server = ControlServer(self.context, self.address, self._handle, self.loop)
        self.client = ControlClient(self.context, self.address)

    async def _handle(self, name: str, arguments: Mapping[str, Any]) -> Any:
        self.begun.append(name)
        match name:
            case "limit":
                raise LimitExceeded("1800 is above 1500", value=1800.0, limit=1500.0, setting="limits.x")
            case "bad":
                raise BadInput("no such thing")
            case "refuse":
                raise RequestRefused("not now", permitted=("stop", "abort"))
            case "fail":
                raise DeviceFailed("the stage does not answer")
            case "bug":
                raise ZeroDivisionError
        return dict(arguments)

    def close(self) -> None:
        self.client.close()
        self.server.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()
        self.context.destroy(linger=0)


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.close()


def test_a_command_is_answered_with_its_value(node: Node) -> None:
    assert node.client.call("echo", {"a": 1.5}) == {"a": 1.5}


def test_a_limit_comes_back_with_value_limit_and_setting(node: Node) -> None:
    with pytest.raises(LimitExceeded, match="1800 is above 1500") as refused:
        node.client.call("limit")
    assert (refused.value.value, refused.value.limit, refused.value.setting) == (1800.0, 1500.0, "limits.x")


def test_a_refusal_comes_back_with_what_is_permitted(node: Node) -> None:
    with pytest.raises(RequestRefused) as refused:
        node.client.call("refuse")
    assert refused.value.permitted == ("stop", "abort")


def test_bad_input_comes_back_as_bad_input(node: Node) -> None:
    with pytest.raises(BadInput, match="no such thing"):
        node.client.call("bad")


def test_numbers_that_are_not_finite_arrive_as_they_are(node: Node) -> None:
    assert node.client.call("echo", {"values": {"a": float("inf")}}) == {"values": {"a": float("inf")}}


@pytest.mark.parametrize("name", ["fail", "bug"])
def test_failures_are_told_and_leave_the_server_alive(node: Node, name: str) -> None:
    with pytest.raises(ComponentFailed):
        node.client.call(name)
    assert node.client.call("echo") == {}


def test_nobody_there_is_said_within_the_deadline() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = ControlClient(context, f"tcp://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(ComponentFailed, match=r"did not answer status within 0\.3 s"):
        client.call("status", deadline_s=0.3)
    client.close()
    context.destroy(linger=0)


def answered_with_damage(times: int) -> tuple[int, str]:
    """How often a command was sent, and what came of it, when so many answers to it are damaged on their way."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    server = context.socket(zmq.ROUTER)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    keys = []

    def serve() -> None:
        while server.poll(2000):
            sender, command = server.recv_multipart()
            asked = wire.load_map(command)
            keys.append(asked["idempotency_key"])
            answer = wire.dump_map({"id": asked["id"], "status": "done", "value": "sound", "reason": "", "details": {}})
            server.send_multipart([sender, answer[:-1] if len(keys) <= times else answer])
            if len(keys) > times or len(keys) == 3:
                return

    serving = threading.Thread(target=serve)
    serving.start()
    client = ControlClient(context, f"tcp://127.0.0.1:{port}")
    try:
        outcome = str(client.call("echo", deadline_s=600))
    except ComponentFailed as error:
        outcome = str(error)
    serving.join()
    client.close()
    server.close(0)
    context.destroy(linger=0)
    assert len(set(keys)) == 1, "what is sent again is done once"
    return len(keys), outcome


def test_a_damaged_answer_is_asked_for_again_at_once() -> None:
    assert answered_with_damage(times=1) == (2, "sound")


def test_an_answer_that_stays_damaged_is_told_long_before_the_deadline() -> None:
    sent, outcome = answered_with_damage(times=3)
    assert sent == 3
    assert "3 answers of the acquisition node" in outcome
    assert "to echo were damaged" in outcome


def raw_command(**changes: object) -> bytes:
    command = {"id": "1", "name": "echo", "arguments": {}, "deadline_utc_ns": time.time_ns() + 10**10}
    return wire.dump_map({**command, "idempotency_key": "k", **changes})


def test_a_repeated_command_is_answered_alike_and_done_once(node: Node) -> None:
    raw = node.context.socket(zmq.DEALER)
    raw.connect(node.address)
    for attempt in ("1", "2"):
        raw.send(raw_command(id=attempt))
        assert raw.poll(5000)
        answer = wire.load_map(raw.recv())
        assert (answer["id"], answer["status"]) == (attempt, "done")
    assert node.begun == ["echo"]
    raw.close(0)


def test_a_command_after_its_deadline_is_not_begun(node: Node) -> None:
    raw = node.context.socket(zmq.DEALER)
    raw.connect(node.address)
    raw.send(raw_command(deadline_utc_ns=time.time_ns() - 1))
    assert raw.poll(5000)
    assert wire.load_map(raw.recv())["status"] == "refused"
    assert node.begun == []
    raw.close(0)


def test_garbage_is_counted_and_harms_nobody(node: Node) -> None:
    raw = node.context.socket(zmq.DEALER)
    raw.connect(node.address)
    for message in (b"", b"\xff\xff", cbor2.dumps(7), wire.dump_map({"id": 1}), raw_command(arguments=[1])):
        raw.send(message)
    wait_until(lambda: node.server.rejected == 5, lambda: f"{node.server.rejected} rejected")
    assert node.client.call("echo") == {}
    raw.close(0)
