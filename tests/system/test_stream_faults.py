"""Consumers that stall, flood, lie or hold the wrong key harm nobody else, and a node is never stuck."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
import zmq.auth

from acquisition import wire
from acquisition.consumer import DataConsumer, StateListener
from acquisition.control import ControlClient
from acquisition.endpoints import CurveKeys, Endpoints
from acquisition.errors import ComponentFailed
from acquisition.frames import Event, Frame, FrameHeader, RunStarted, checksum
from acquisition.recording import RecordedRun
from acquisition.stream import DATA_HIGH_WATER_MARK, STATE_HIGH_WATER_MARK, StreamServer
from programs import free_ports, wait_until
from recordings import OPTICS
from service.hub import Trend
from streams import Follower, Node, Numbered, WorkerThread, images_of, resident_bytes

SIDE_PX = 128
FRAME_BYTES = 4 * SIDE_PX * SIDE_PX * 2
RING_FRAMES = 16
RUN = RunStarted("run", "test", 0, 1, 2, (4, SIDE_PX, SIDE_PX), "uint16", OPTICS, {}, None, "")


def frame(sequence: int) -> Frame:
    images = images_of(sequence, SIDE_PX)
    header = FrameHeader("run", "test", sequence, 1, 2, 3, 4, None, images.shape, "uint16", checksum(images), OPTICS)
    return Frame(header, images)


def credit(**changes: object) -> dict[str, object]:
    about = {"kind": "credit", "wants": "frames", "mode": "every", "after": 0, "nonce": 1, "epoch": 0}
    return {**about, "received": 0, "lease_s": 0.0, "about": {}, **changes}


class Rig:
    """A stream server that holds 16 frames, and raw sockets to mistreat it with."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.endpoints = Endpoints(*(f"tcp://127.0.0.1:{port}" for port in free_ports(3)))
        self.server = StreamServer(self.context, self.endpoints, lambda _: "", RING_FRAMES * (FRAME_BYTES + 1024))
        self.last = -1

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.last += 1
            self.server.publish_frame(frame(self.last), RUN)

    def raw(self, kind: int, address: str) -> zmq.Socket[bytes]:
        """A socket that keeps next to nothing for its program, so that it stalls when that reads nothing."""
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.setsockopt(zmq.RCVBUF, 4096)
        socket.setsockopt(zmq.LINGER, 0)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(address)
        return socket

    def consumer(self) -> DataConsumer:
        return DataConsumer(self.context, self.endpoints.data, None, {"name": "test"})

    def close(self) -> None:
        self.server.close()
        self.context.destroy(linger=0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


# A consumer stalls


def test_stalled_consumers_hold_two_frames_each_and_others_are_served(rig: Rig) -> None:
    stalled = [rig.raw(zmq.DEALER, rig.endpoints.data) for _ in range(4)]
    other = rig.consumer()
    rig.publish(50)
    before = resident_bytes()
    seen: list[int] = []
    for nonce in range(200):
        for socket in stalled:
            for wants in ("frames", "work"):
                told = credit(wants=wants, nonce=nonce, mode="every" if nonce % 2 else "latest", lease_s=1.0)
                socket.send(wire.dump_map(told))
        rig.publish(10)
        delivery = other.ask("frames", timeout_s=30)
        assert delivery is not None
        seen.append(delivery.message.header.sequence)
        assert rig.server.ring_bytes <= RING_FRAMES * (FRAME_BYTES + 1024)
    grown = resident_bytes() - before
    passed_through = 200 * 10 * FRAME_BYTES
    # Ring, what stalled consumers may hold at both ends of their lines, and what libraries keep for the next message.
    allowed = RING_FRAMES * FRAME_BYTES + len(stalled) * 2 * (DATA_HIGH_WATER_MARK + 2) * FRAME_BYTES + 2**24
    assert allowed < passed_through / 5
    assert grown < allowed, f"{grown} bytes more for {passed_through} that passed"
    assert rig.server.stalled == len(stalled)
    assert seen == sorted(set(seen)) and len(seen) == 200
    assert rig.server.errors == 0
    for socket in stalled:
        socket.close(0)
    wait_until(lambda: (rig.publish(1), rig.server.stalled == 0)[1], lambda: "those who left still count as stalled")


def test_who_stalls_is_told_the_gap_exactly(rig: Rig) -> None:
    consumer = rig.consumer()
    rig.publish(1)
    got: list[int] = []
    told = 0
    for stall in (0, 3, RING_FRAMES, RING_FRAMES + 1, 5 * RING_FRAMES):
        rig.publish(stall)
        last = rig.last
        while not got or got[-1] < last:
            delivery = consumer.ask("frames", mode="every", timeout_s=30)
            assert delivery is not None
            got.append(delivery.message.header.sequence)
            told += delivery.skipped
            assert len(got) + told == got[-1] + 1
    assert got == sorted(set(got))
    # One more than the ring holds is kept where the request that was sent ahead was there in time.
    assert 4 * RING_FRAMES - 1 <= told <= 4 * RING_FRAMES + 1


def test_a_subscriber_that_never_reads_costs_a_bounded_backlog(rig: Rig) -> None:
    raw = rig.raw(zmq.SUB, rig.endpoints.state)
    listener = StateListener(rig.context, rig.endpoints.state)
    text = "x" * 8000
    heard = threading.Event()

    def listen() -> None:
        while not heard.is_set():
            message = listener.next(0.2)
            if isinstance(message, Event) and message.name == "last":
                heard.set()

    thread = threading.Thread(target=listen)
    thread.start()
    before = resident_bytes()
    for number in range(8 * STATE_HIGH_WATER_MARK):
        rig.server.publish(Event("run", "test", number, 1, 2, "news", "info", text))
    wait_until(
        lambda: (rig.server.publish(Event("run", "test", 0, 1, 2, "last", "info", "")), heard.is_set())[1],
        lambda: "the other listener heard nothing",
    )
    grown = resident_bytes() - before
    thread.join()
    listener.close()
    assert grown < 3 * STATE_HIGH_WATER_MARK * len(text) + 2**24 < 8 * STATE_HIGH_WATER_MARK * len(text)
    assert rig.server.errors == 0
    raw.close(0)


def test_a_flood_of_credits_is_one_request(rig: Rig) -> None:
    flood = rig.raw(zmq.DEALER, rig.endpoints.data)
    other = rig.consumer()
    rig.publish(1)
    for nonce in range(1, 5001):
        flood.send(wire.dump_map(credit(nonce=nonce, wants="work", lease_s=30.0)))
    flood.send(b"the end of the flood")
    wait_until(lambda: rig.server.rejected == 1, lambda: "the flood never arrived")
    assert other.ask("frames", timeout_s=30) is not None
    assert rig.server.given_up == set()
    assert [wants for _, wants in list(rig.server._credits)].count("work") <= 1
    flood.close(0)


# The wall clock is stepped


@pytest.mark.parametrize("jump_s", [1, 3600])
async def test_a_stepped_wall_clock_changes_neither_order_nor_ages_nor_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    true_time_ns, step_ns = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: true_time_ns() + step_ns[0])
    async with Node(tmp_path / "runs", ring_bytes=2**26) as node:
        worker = WorkerThread(node.endpoints.data)
        follower = Follower(node)
        run_id = await node.start(Numbered(pace_s=0.01))
        client = ControlClient(zmq.Context.instance(), node.endpoints.control)
        for step in (-jump_s, 2 * jump_s, -jump_s):
            done = worker.worker.done
            await node.until(lambda n=done: worker.worker.done > n + 3, "the worker stopped")
            step_ns[0] += step * 10**9
            status = await asyncio.to_thread(client.call, "status")
            assert 0 <= status["frame_age_s"] < 60
            assert [0 <= seen["last_seen_s"] < 60 for seen in status["workers"]] == [True]
        await asyncio.to_thread(client.call, "stop")
        client.close()
        frames = node.machine.progress.frames
        run = RecordedRun(await node.complete(run_id))
        await node.until(lambda: len(follower.keys) == frames, "the viewer did not get every frame")
        worker.close()
        follower.close()
    headers = [run.frames[sequence].header for sequence in run.sequences]
    assert any(later.utc_ns < earlier.utc_ns for earlier, later in itertools.pairwise(headers))
    assert list(follower.keys) == [(run_id, sequence) for sequence in range(frames)]
    assert run.sequences == list(range(frames)) and run.missing_heights == []


def test_a_trend_goes_on_after_the_wall_clock_was_stepped_back() -> None:
    trend = Trend.empty()
    for utc_s in (7200, 7201, 3600, 3600.2, 3601):
        trend.add(round(utc_s * 1e9), utc_s)
    assert list(trend.values) == [7200, 7201, 3600, 3601]


# Keys


async def test_a_client_without_the_right_key_is_told_so_and_the_node_goes_on(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    for name in ("node", "other-node", "friend", "stranger"):
        zmq.auth.create_certificates(tmp_path, name)
    (allowed / "friend.key").write_bytes((tmp_path / "friend.key").read_bytes())

    def keys(own: str, node: str = "node") -> CurveKeys:
        return CurveKeys(tmp_path / f"{own}.key_secret", tmp_path / f"{node}.key")

    complaints = {
        "a stranger": (keys("stranger"), "does not admit our key"),
        "who takes the node for another": (keys("friend", "other-node"), "the handshake failed"),
        "nobody": (None, "the handshake failed"),
    }
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    async with Node(tmp_path / "runs", keys=CurveKeys(tmp_path / "node.key_secret", allowed)) as node:
        for who, (wrong, complaint) in complaints.items():
            consumer = DataConsumer(context, node.endpoints.data, wrong)
            listener = StateListener(context, node.endpoints.state, wrong)
            client = ControlClient(context, node.endpoints.control, wrong)
            for _ in range(100):
                assert await asyncio.to_thread(consumer.ask, "frames", timeout_s=0.2) is None
                assert await asyncio.to_thread(listener.next, 0.2) is None
                with pytest.raises(ComponentFailed, match=r"did not answer status within 0\.2 s") as silence:
                    await asyncio.to_thread(client.call, "status", deadline_s=0.2)
                if all(complaint in told for told in (consumer.refused, listener.refused, str(silence.value))):
                    break
            else:
                pytest.fail(f"{who} is told: {consumer.refused}, {listener.refused}, {silence.value}")
            for one in (client, consumer, listener):
                one.close()
        worker = WorkerThread(node.endpoints.data, keys=keys("friend"))
        client = ControlClient(context, node.endpoints.control, keys("friend"))
        assert (await asyncio.to_thread(client.call, "status"))["state"] == "idle"
        run_id = await node.start(Numbered(), frames=3)
        await node.complete(run_id)
        client.close()
        worker.close()
    context.destroy(linger=0)


async def test_a_key_that_is_added_or_taken_away_counts_without_a_restart(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    for name in ("node", "friend"):
        zmq.auth.create_certificates(tmp_path, name)
    friend = CurveKeys(tmp_path / "friend.key_secret", tmp_path / "node.key")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    async with Node(tmp_path / "runs", keys=CurveKeys(tmp_path / "node.key_secret", allowed)) as node:
        await node.start(Numbered(pace_s=0.02))
        client = ControlClient(context, node.endpoints.control, friend)
        consumer = DataConsumer(context, node.endpoints.data, friend)

        def answers() -> bool:
            """Node gives frames and carries out commands (True), or neither (False)."""
            while True:
                frame = consumer.ask("frames", timeout_s=0.5)
                try:
                    client.call("status", deadline_s=0.5)
                except ComponentFailed:
                    commands = False
                else:
                    commands = True
                if commands == (frame is not None):
                    return commands

        assert not await asyncio.to_thread(answers)
        for change in ("added", "taken away", "added again", "spoilt"):
            match change:
                case "added" | "added again":
                    (allowed / "friend.key").write_bytes((tmp_path / "friend.key").read_bytes())
                case "taken away":
                    (allowed / "friend.key").unlink()
                case "spoilt":
                    (allowed / "friend.key").write_text("half a k")
            for _ in range(100):
                if await asyncio.to_thread(answers) == change.startswith("added"):
                    break
            else:
                pytest.fail(f"that the key was {change} had no effect")
        client.close()
        consumer.close()
    context.destroy(linger=0)
