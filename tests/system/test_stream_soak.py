"""A long time at full speed: no frame lost, none doubled, memory flat."""

from __future__ import annotations

import asyncio
import gc
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from acquisition import state
from acquisition.recording import verify
from streams import Follower, Node, Numbered, WorkerThread, resident_bytes

RING_BYTES = 128 * 2**20
FULL_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Load:
    """Runs of so many frames, each removed once it was checked: a few in `make test`, all in `make soak`."""

    side_px: int
    frames_of_a_run: int
    runs: int
    few_frames_of_a_run: int
    few_runs: int


LOADS = (Load(64, 5000, 20, 100, 3), Load(1024, 100, 20, 2, 2))


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load.side_px} px")
async def test_at_full_speed_nothing_is_lost_or_doubled_and_memory_stays_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, load: Load
) -> None:
    # The histories of the devices are full after ten minutes otherwise, which would look like growth.
    monkeypatch.setattr(state, "REMEMBERED_SAMPLES", 100)
    full = rounds >= FULL_ROUNDS
    frames = load.frames_of_a_run if full else load.few_frames_of_a_run
    runs = load.runs if full else load.few_runs
    memory: list[int] = []
    async with Node(tmp_path / "runs", ring_bytes=RING_BYTES) as node:
        worker, follower = WorkerThread(node.endpoints.data), Follower(node, keep=1)
        for number in range(1, runs + 1):
            run_id = await node.start(Numbered(side_px=load.side_px), frames=frames)
            await node.machine.wait()
            run = await node.complete(run_id)
            found = await asyncio.to_thread(verify, run)
            assert found.ok, found.findings
            assert found.sequences == tuple(range(frames)) and found.heights == frames
            shutil.rmtree(run)
            del found
            await node.until(lambda n=number: follower.told == n * frames, f"told of {follower.told} frames")
            assert follower.in_order and follower.last == (run_id, frames - 1)
            assert node.stream.ring_bytes <= RING_BYTES + 2**26
            node.said.clear()
            gc.collect()
            memory.append(resident_bytes())
        await node.until(lambda: worker.worker.done >= runs * frames, "a height was not acknowledged")
        assert worker.worker.done == runs * frames
        assert node.stream.errors == node.stream.rejected == node.stream.refused == 0
        worker.close()
        follower.close()
    if full:
        # What frames take while they pass goes up and down; what is never given back raises the least that is held.
        third, fourth = memory[runs // 2 : 3 * runs // 4], memory[3 * runs // 4 :]
        assert min(fourth) < 1.01 * min(third), f"{memory}"
