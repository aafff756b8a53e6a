"""Recordings that are not closed yet: those of the present run, and of ended ones that still lack heights."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from acquisition.counters import NodeCounters
from acquisition.errors import EclipsError, RecordingFailed
from acquisition.frames import Event, Result, StateSample
from acquisition.recording import RecordedRun, Recorder
from acquisition.recording.heights import put_heights_in_order
from acquisition.run import RunMachine
from acquisition.run_plan import Progress
from acquisition.stream import StreamServer

log = logging.getLogger(__name__)

NO_WORKER_PATIENCE_S = 30.0


class RecordingsHost(Protocol):
    """What recordings need of their node. `announce` is told what people at the terminal want to know."""

    machine: RunMachine
    stream: StreamServer
    counters: NodeCounters

    @property
    def announce(self) -> Callable[[str], None]: ...

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None: ...


class OpenRecordings:
    """`awaiting` are those of ended runs. A disk that fails ends the run; everything else that fails is told."""

    def __init__(self, host: RecordingsHost) -> None:
        self._host = host
        self._open: dict[str, Recorder] = {}
        self._hurried = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.awaiting: dict[str, Recorder] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._open

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def frames_without_height(self) -> int:
        return sum(recorder.frames - recorder.manifest.heights for recorder in list(self._open.values()))

    def add(self, recorder: Recorder) -> None:
        """Of a run that begins."""
        self._loop = asyncio.get_running_loop()
        self._open[recorder.run.run_id] = recorder
        self._host.announce(f"recording {recorder.folder}")

    def write_event(self, event: Event) -> None:
        """Into all of them."""
        for recorder in list(self._open.values()):
            self._write(recorder.write_event, event)

    def write_state(self, recorder: Recorder, sample: StateSample) -> None:
        self._write(recorder.write_state, sample)

    def take(self, result: Result) -> str:
        """In the stream's thread: keep a worker's height with its run; why it is not needed, if it is not."""
        run_id = result.header.run_id
        recorder = self._open.get(run_id)
        if recorder is None:
            progress = self._host.machine.progress
            live = progress is not None and progress.run.run_id == run_id and progress.recorder is None
            return "" if live else f"run {run_id} is not open"
        assert self._loop is not None
        try:
            reason = recorder.write_result(result)
        except RecordingFailed as error:
            failure = str(error)
            asyncio.run_coroutine_threadsafe(self._host.machine.fail(failure), self._loop)
            return failure
        if run_id in self.awaiting and recorder.has_all_heights:
            asyncio.run_coroutine_threadsafe(self._complete(recorder), self._loop)
        return reason

    async def run_over(self, progress: Progress, reason: str, whole: bool) -> None:
        """After the last frame: the missing heights are made from the recording."""
        recorder = progress.recorder
        if recorder is None:
            return
        if not whole:
            await self._close_incomplete(recorder, reason)
            return
        self.awaiting[progress.run.run_id] = recorder
        if recorder.has_all_heights:
            await self._complete(recorder)
            return
        recorded = await asyncio.to_thread(RecordedRun, recorder.folder)
        if progress.run.run_id in self.awaiting:
            self._host.stream.add_backfill(progress.run, recorder.missing_heights, recorded.read_frame)

    def hurry(self) -> None:
        """Wait for no heights any more: whoever could make them has gone."""
        self._hurried = True

    async def heights_made(self) -> None:
        """Until every ended run has its heights, or no worker has been seen for `NO_WORKER_PATIENCE_S`."""
        alone_s = 0.0
        while self.awaiting and alone_s < NO_WORKER_PATIENCE_S and not self._hurried:
            await asyncio.sleep(0.1)
            alone_s = 0.0 if self._host.stream.workers() else alone_s + 0.1

    async def give_up_hopeless(self) -> None:
        """Close those of ended runs whose missing heights no worker could make."""
        given_up = self._host.stream.given_up
        self._host.counters.given_up(given_up)
        for run_id, recorder in list(self.awaiting.items()):
            missing = recorder.missing_heights()
            if missing and {(run_id, sequence) for sequence in missing} <= given_up:
                await self._close_incomplete(recorder, f"{len(missing)} frames could not be reconstructed")

    async def close_all(self, reason: str) -> None:
        """What still lacks heights stays incomplete, for that reason."""
        for recorder in list(self._open.values()):
            await self._close_incomplete(recorder, reason)

    async def _complete(self, recorder: Recorder) -> None:
        """Every frame has its height: put them in order and call the run complete."""
        host, run_id = self._host, recorder.run.run_id
        if self._open.pop(run_id, None) is None:
            return
        frames = recorder.frames
        try:
            await asyncio.to_thread(recorder.close, "recording")
            await asyncio.to_thread(put_heights_in_order, recorder.folder)
        except (EclipsError, OSError) as error:
            text = f"the heights of {run_id} could not be put in order: {error}"
            host.tell("recording", text, "alarm", run_id=run_id)
        else:
            host.counters.runs_complete += 1
            host.announce(f"run {recorder.folder} complete: {frames} frames, {frames} heights")
            host.tell("run_complete", f"{run_id}: {frames} frames, {frames} heights", run_id=run_id)
        finally:
            self.awaiting.pop(run_id, None)
            host.stream.drop_run(run_id)

    async def _close_incomplete(self, recorder: Recorder, reason: str) -> None:
        run_id = recorder.run.run_id
        self._open.pop(run_id, None)
        self.awaiting.pop(run_id, None)
        self._host.stream.drop_run(run_id)
        missing = len(recorder.missing_heights())
        self._host.counters.runs_incomplete += 1
        try:
            await asyncio.to_thread(recorder.close, "incomplete", reason)
        except (RecordingFailed, OSError) as error:
            log.critical("%s", error)
        log.warning("run %s is incomplete: %s", run_id, reason, extra={"run_id": run_id, "announced": True})
        self._host.announce(
            f"run {recorder.folder} incomplete: {recorder.frames} frames, {missing} without height: {reason}"
        )

    def _write(self, write: Callable[[Any], None], message: Any) -> None:
        try:
            write(message)
        except RecordingFailed as error:
            self._failing = asyncio.ensure_future(self._host.machine.fail(str(error)))
