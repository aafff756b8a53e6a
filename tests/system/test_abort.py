"""A run is aborted in every state: the next one arms at once, and nothing of the old one strays into it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from acquisition.errors import RequestRefused
from acquisition.recording import RecordedRun
from streams import Follower, Node, Numbered, WorkerThread


async def abort_while_arming(node: Node) -> None:
    source = Numbered(arming_s=60)
    starting = asyncio.create_task(node.start(source))
    await node.until(lambda: node.machine.state == "armed", "never armed")
    await node.machine.abort()
    assert node.machine.state == "idle"
    with pytest.raises(RequestRefused, match="aborted while arming"):
        await starting
    assert source.armed == 0


async def abort_as_soon_as_it_acquires(node: Node) -> None:
    await node.start(Numbered(pace_s=60))
    await node.machine.abort()


async def abort_between_frames(node: Node) -> None:
    await node.start(Numbered(pace_s=0.002))
    await node.until(lambda: node.machine.progress.frames > 1, "no frames came")
    await node.machine.abort()


async def abort_while_frames_are_written(node: Node) -> None:
    await node.start(Numbered())
    for _ in range(5):
        await asyncio.sleep(0)
    await node.machine.abort()


async def abort_while_finishing(node: Node) -> None:
    await node.start(Numbered(pace_s=0.002))
    stopping = asyncio.create_task(node.machine.stop())
    await node.until(lambda: node.machine.state != "acquiring", "never finishing")
    if node.machine.state == "finishing":
        await node.machine.abort()
    await stopping


async def abort_in_a_fault(node: Node) -> None:
    await node.machine.fail("a test says so")
    with pytest.raises(RequestRefused, match="possible now: reset"):
        await node.machine.abort()
    node.machine.reset()


async def abort_when_idle(node: Node) -> None:
    with pytest.raises(RequestRefused, match="possible now: start, replay"):
        await node.machine.abort()


ABORTS = (
    abort_while_arming,
    abort_as_soon_as_it_acquires,
    abort_between_frames,
    abort_while_frames_are_written,
    abort_while_finishing,
    abort_in_a_fault,
    abort_when_idle,
)


@pytest.mark.soak
async def test_after_an_abort_in_any_state_the_next_run_arms_and_has_no_stray_frame(
    tmp_path: Path, rounds: int
) -> None:
    async with Node(tmp_path / "runs", ring_bytes=2**26) as node:
        worker, follower = WorkerThread(node.endpoints.data), Follower(node)
        aborts = 21 if rounds < 10 else 10 * rounds
        for number in range(aborts):
            await ABORTS[number % len(ABORTS)](node)
            assert node.machine.state == "idle"
            run_id = await node.start(Numbered(), frames=2)
            await node.machine.wait()
            whole = RecordedRun(await node.complete(run_id))
            assert [frame.header.key for frame in whole.frame_iterator()] == [(run_id, 0), (run_id, 1)]
            assert [height.header.run_id for height in whole.heights.values()] == [run_id, run_id]
        runs = sorted((tmp_path / "runs").iterdir())
        counts = {}
        for path in runs:
            run = RecordedRun(path)
            counts[path.name] = len(run.frames)
            assert run.sequences == list(range(len(run.frames)))
            assert {header.header.run_id for header in run.frames.values()} <= {path.name}
            assert run.finished is not None and run.finished.frames == len(run.frames) == run.manifest.frames
            assert run.finished.digest == run.manifest.digest
        seen = [(run, sequence) for run in counts for sequence in range(counts[run])]
        await node.until(lambda: len(follower.keys) >= len(seen), f"{len(follower.keys)} of {len(seen)} frames came")
        assert list(follower.keys) == seen
        assert node.stream.errors == 0
        worker.close()
        follower.close()
