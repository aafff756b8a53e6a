"""Whatever reaches a node and is no sound message is rejected and counted, and the next good one is served."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from acquisition import wire
from acquisition.consumer import DataConsumer, StateListener
from acquisition.control import ControlClient, ControlServer
from acquisition.endpoints import Endpoints
from acquisition.errors import MessageRejected
from acquisition.frames import Heartbeat, Result
from acquisition.stream import StreamServer
from garbage import (
    BAD_CREDITS,
    BAD_LAYERS,
    CREDIT,
    FRAME,
    HAND_BACK,
    RESULT,
    Parts,
    changed,
    damaged,
    few,
    sealed,
    wait_for,
)
from programs import free_ports
from recordings import frame, result, run_started
from streams import PATIENCE_S, Node, Numbered, WorkerThread


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
        beats: list[Heartbeat] = []
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
        with pytest.raises(MessageRejected):
            wire.load_map(sealed(b"\xa2\x61a" + evil))
