"""Workers die and lines break: every recorded frame has exactly one height, viewers know what they missed, and what
was ordered is done once."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zmq

from acquisition import socket_thread, sockets
from acquisition.consumer import StateListener
from acquisition.control import ControlClient
from acquisition.recording import RecordedRun, verify
from acquisition.recording.journal import scan_journal
from killable_workers import WorkerHost
from streams import PATIENCE_S, Follower, Node, Numbered, WorkerThread, height_of, images_of
from tcp_proxy import TcpProxy

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="workers are forked")


@pytest.fixture(scope="module")
def host() -> Iterator[WorkerHost]:
    host = WorkerHost()
    yield host
    host.close()


def assert_each_frame_has_one_height_in_its_place(run: Path, frames: int) -> None:
    recorded = RecordedRun(run)
    assert recorded.manifest.status == "complete"
    assert recorded.sequences == list(range(frames))
    pages = tifffile.imread(run / "heights-0000.tif").reshape(-1, *height_of(images_of(0)).shape)
    assert len(pages) == frames
    for sequence, page in enumerate(pages):
        np.testing.assert_array_equal(recorded.read_frame(sequence).images, images_of(sequence))
        np.testing.assert_array_equal(page, height_of(images_of(sequence)))
    # A run that is complete tells each result twice: as it came, and again when all were put in order.
    results = [tree for tree in scan_journal(run / "journal.jsonl").lines if tree["kind"] == "result"]
    as_they_came, in_order = results[:frames], results[frames:]
    assert sorted(tree["sequence"] for tree in as_they_came) == list(range(frames))
    assert [tree["sequence"] for tree in in_order] == list(range(frames))
    made = {tree["sequence"]: tree["monotonic_ns"] for tree in as_they_came}
    assert made == {tree["sequence"]: tree["monotonic_ns"] for tree in in_order}
    assert verify(run).ok


# kill -9


@needs_fork
async def test_the_frame_of_a_killed_worker_goes_to_another_long_before_its_lease_ends(
    host: WorkerHost, tmp_path: Path
) -> None:
    async with Node(tmp_path / "runs") as node:
        dying = host.start(node.endpoints.data, seconds=3600)
        run_id = await node.start(Numbered(), frames=1)
        await node.until(lambda: dying.held == [0], "the worker got no frame")
        living = host.start(node.endpoints.data, seconds=0)
        dying.kill()
        await node.until(lambda: living.held == [0], "the frame of the dead worker went to nobody")
        assert_each_frame_has_one_height_in_its_place(await node.complete(run_id), 1)
        living.kill()


@needs_fork
async def test_a_dead_worker_is_given_no_more_frames_and_is_not_counted(host: WorkerHost, tmp_path: Path) -> None:
    async with Node(tmp_path / "runs") as node:
        idle = host.start(node.endpoints.data, seconds=0)
        await node.until(lambda: len(node.stream.workers()) == 1, "the worker was never seen")
        idle.kill()
        run_id = await node.start(Numbered(pace_s=0.01), frames=5)
        await node.machine.wait()
        await node.until(lambda: node.stream.workers() == [], "a dead worker is still counted")
        living = host.start(node.endpoints.data, seconds=0)
        assert_each_frame_has_one_height_in_its_place(await node.complete(run_id), 5)
        assert sorted(living.held) == list(range(5))
        living.kill()


@pytest.mark.soak
@needs_fork
async def test_of_three_workers_one_is_killed_now_and_then_and_nothing_is_missing_or_made_twice(
    host: WorkerHost, tmp_path: Path, rounds: int
) -> None:
    """Two minutes of it in `make soak`."""
    chance = random.Random(1)
    kills = 3 * rounds // 5
    pauses_s = (0.0, 0.1) if kills < 10 else (1.0, 3.0)
    async with Node(tmp_path / "runs", ring_bytes=2**26) as node:
        follower = Follower(node, keep=100_000)
        workers = [host.start(node.endpoints.data, seconds=0.03) for _ in range(3)]
        run_id = await node.start(Numbered(pace_s=0.01))
        for _ in range(kills):
            victim = chance.randrange(3)
            before = len(workers[victim].held)
            await node.until(lambda v=victim, n=before: len(workers[v].held) > n + 3, "a worker gets no frames")
            await asyncio.sleep(chance.uniform(*pauses_s))
            workers[victim].kill()
            workers[victim] = host.start(node.endpoints.data, seconds=0.03)
        await node.machine.stop()
        frames = node.machine.progress.frames
        assert_each_frame_has_one_height_in_its_place(await node.complete(run_id), frames)
        await node.until(lambda: len(follower.keys) == frames, "a viewer did not get every frame")
        assert list(follower.keys) == [(run_id, sequence) for sequence in range(frames)]
        assert node.stream.given_up == set()
        assert node.stream.errors == 0
        follower.close()
        for worker in workers:
            worker.kill()


# The line between node and worker, viewer, operator

LONGER_THAN_HEARTBEATS_S = 1.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead lines are noticed in tenths of seconds."""
    monkeypatch.setattr(socket_thread, "HEARTBEAT_MS", 200)
    monkeypatch.setattr(socket_thread, "HANDSHAKE_MS", 1000)
    monkeypatch.setattr(sockets, "REOPEN_AFTER_S", 1.0)


async def inflict(proxy: TcpProxy, fault: str, chance: random.Random) -> None:
    match fault:
        case "cut":
            proxy.cut()
        case "cut inside a message":
            proxy.cut_within(chance.randrange(1, 3000))
        case "flipped bit":
            proxy.flip_within(chance.randrange(1, 3000))
        case "stalled":
            proxy.stall()
            await asyncio.sleep(LONGER_THAN_HEARTBEATS_S)
            proxy.flow()
        case "refused":
            proxy.refuse(True)
            proxy.cut()
            await asyncio.sleep(LONGER_THAN_HEARTBEATS_S)
            proxy.refuse(False)


@pytest.mark.parametrize("fault", ["cut", "cut inside a message", "flipped bit", "stalled", "refused"])
async def test_a_broken_line_loses_no_frame_and_doubles_no_height(impatient: None, tmp_path: Path, fault: str) -> None:
    chance = random.Random(fault)
    async with Node(tmp_path / "runs") as node:
        proxy = TcpProxy(node.endpoints.data)
        worker = WorkerThread(proxy.address)
        run_id = await node.start(Numbered(pace_s=0.02))
        for _ in range(1 if fault in ("stalled", "refused") else 3):
            done, connections = worker.worker.done, proxy.connections
            await node.until(lambda n=done: worker.worker.done > n + 2, f"after {fault} the worker never went on")
            await inflict(proxy, fault, chance)
            if fault != "flipped bit":
                await node.until(lambda n=connections: proxy.connections > n, f"after {fault} nobody connected again")
        await node.machine.stop()
        frames = node.machine.progress.frames
        run = await node.complete(run_id)
        worker.close()
        proxy.close()
        assert_each_frame_has_one_height_in_its_place(run, frames)
        assert node.stream.given_up == set()
        assert node.stream.errors == 0


@pytest.mark.parametrize("fault", ["cut", "cut inside a message", "flipped bit", "stalled"])
async def test_a_viewer_behind_a_broken_line_gets_each_frame_once_or_is_told_of_it(
    impatient: None, tmp_path: Path, fault: str
) -> None:
    chance = random.Random(fault)
    async with Node(tmp_path / "runs", ring_bytes=2**26) as node:
        proxy = TcpProxy(node.endpoints.data)
        follower = Follower(node, address=proxy.address)
        await node.start(Numbered(pace_s=0.01), record=False)
        for _ in range(3):
            told = follower.told
            await node.until(lambda n=told: follower.told > n + 5, f"after {fault} the viewer never went on")
            await inflict(proxy, fault, chance)
        told = follower.told
        await node.until(lambda: follower.told > told + 5, f"after {fault} the viewer never went on")
        await node.machine.stop()
        frames = node.machine.progress.frames
        await node.until(lambda: follower.told == frames, f"the viewer was told of {follower.told} of {frames} frames")
        follower.close()
        proxy.close()
        assert proxy.connections > 3 or not fault.startswith("cut")
        assert follower.in_order
        damaged = frames - len(follower.keys)
        assert damaged <= (3 if fault == "flipped bit" else 0)
        assert node.stream.errors == 0


async def test_a_command_whose_answer_a_broken_line_swallows_is_done_once_and_answered(
    impatient: None, tmp_path: Path
) -> None:
    async with Node(tmp_path / "runs") as node:
        proxy = TcpProxy(node.endpoints.control)
        client = ControlClient(zmq.Context.instance(), proxy.address)
        await asyncio.to_thread(client.call, "status")
        connections = proxy.connections
        proxy.cut_within(5)
        plan = {"frames": 2, "record": False}
        started = await asyncio.to_thread(client.call, "start", plan, deadline_s=PATIENCE_S)
        assert proxy.connections > connections, "the line was not cut"
        assert started["run_id"] == node.machine.progress.run.run_id
        assert node.program.node.counters.runs_started == 1
        client.close()
        proxy.close()


async def test_a_listener_whose_line_was_cut_hears_the_node_again(impatient: None, tmp_path: Path) -> None:
    async with Node(tmp_path / "runs") as node:
        proxy = TcpProxy(node.endpoints.state)
        listener = StateListener(zmq.Context.instance(), proxy.address)

        async def hears() -> None:
            await node.until(lambda: listener.next(0.01) is not None, "the listener hears nothing")

        await hears()
        for _ in range(3):
            connections = proxy.connections
            proxy.cut()
            await node.until(lambda n=connections: proxy.connections > n, "nobody connected again")
            while listener.next(0.01) is not None:
                continue
            await hears()
        assert listener.rejected == 0
        listener.close()
        proxy.close()
