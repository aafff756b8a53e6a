"""A worker has two frames in hand and hands them back in the order in which they came."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from acquisition.errors import BadInput
from acquisition.frames import Frame, Result
from acquisition.instrument import Instrument
from acquisition.recording import verify
from acquisition.recording.journal import scan_journal
from inference import worker
from inference.worker import Worker
from streams import PATIENCE_S, Node, Numbered, QuickPipeline


class SecondFirst(QuickPipeline):
    """Finishes each even frame only once the odd one after it is done; with `bad` even frames then fail."""

    def __init__(self, *, bad: bool = False) -> None:
        super().__init__()
        self._bad = bad
        self._done: dict[int, threading.Event] = {}
        self._lock = threading.Lock()
        self.overtook: list[int] = []

    def reconstruct(self, frame: Frame, instrument: Instrument) -> Result:
        sequence = frame.header.sequence
        if sequence % 2 == 0 and self._event(sequence + 1).wait(PATIENCE_S):
            self.overtook.append(sequence + 1)
        if sequence % 2 == 0 and self._bad:
            raise BadInput("cannot be reconstructed")
        result = super().reconstruct(frame, instrument)
        self._event(sequence).set()
        return result

    def _event(self, sequence: int) -> threading.Event:
        with self._lock:
            return self._done.setdefault(sequence, threading.Event())


class Counting(QuickPipeline):
    """How many frames it had at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def reconstruct(self, frame: Frame, instrument: Instrument) -> Result:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.2)
        result = super().reconstruct(frame, instrument)
        with self._lock:
            self._now -= 1
        return result


class Working:
    """A worker in a thread."""

    def __init__(self, node: Node, pipeline: Any) -> None:
        self._stop = threading.Event()
        self.worker = Worker(pipeline, node.endpoints.data, None, self._stop)
        self._thread = threading.Thread(target=self.worker.run, args=(lambda _: None,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


async def test_a_frame_that_is_done_sooner_waits_for_the_one_before_it(tmp_path: Path) -> None:
    pipeline = SecondFirst()
    async with Node(tmp_path / "runs") as node:
        working = Working(node, pipeline)
        await node.until(node.stream.workers, "the worker was never seen")
        run_id = await node.start(Numbered(pace_s=0.2), frames=4)
        run = await node.complete(run_id)
        assert len(node.stream.workers()) == 1, "a worker with two frames in hand is one worker"
        working.close()
    assert pipeline.overtook == [1, 3]
    lines = [tree["sequence"] for tree in scan_journal(run / "journal.jsonl").lines if tree["kind"] == "result"]
    assert lines[:4] == [0, 1, 2, 3]
    assert verify(run).ok


async def test_a_frame_that_fails_holds_up_none_and_is_counted(tmp_path: Path) -> None:
    async with Node(tmp_path / "runs") as node:
        working = Working(node, SecondFirst(bad=True))
        await node.until(node.stream.workers, "the worker was never seen")
        await node.start(Numbered(pace_s=0.2), frames=2)
        await node.until(lambda: node.stream.given_up, "the bad frame was never given up")
        (seen,) = node.stream.workers()
        assert working.worker.done == 1
        assert int(seen["done"]) == 1 and int(seen["failed"]) >= 2
        working.close()


@pytest.mark.parametrize(("limit_px", "at_once"), [(2048 * 2048, 2), (1, 1)])
async def test_large_frames_are_reconstructed_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_px: int, at_once: int
) -> None:
    monkeypatch.setattr(worker, "MOST_PIXELS_BESIDE", limit_px)
    pipeline = Counting()
    async with Node(tmp_path / "runs") as node:
        working = Working(node, pipeline)
        await node.until(node.stream.workers, "the worker was never seen")
        await node.complete(await node.start(Numbered(pace_s=0.02), frames=4))
        working.close()
    assert pipeline.most == at_once
