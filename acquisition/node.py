"""What lives in the acquisition program, tied together: lab, run, recordings, guard and stream."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from acquisition.clock import Clock, Instant
from acquisition.control import ControlServer
from acquisition.counters import NodeCounters
from acquisition.devices import Reading, ScanRequest
from acquisition.endpoints import CurveKeys, Endpoints
from acquisition.errors import EclipsError, RecordingFailed
from acquisition.frames import Event, Frame, Heartbeat, JoinedValue, Result, RunFinished, RunStarted, StateSample
from acquisition.guard import Guard
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.recording import RecordedRun, Recorder
from acquisition.recording.disk import LOW_SPACE_BYTES
from acquisition.recording.heights import put_heights_in_order
from acquisition.replay import ReplaySource
from acquisition.run import Progress, RunMachine
from acquisition.state import StateKeeper
from acquisition.stream import StreamServer

log = logging.getLogger(__name__)

HOUSEKEEPING_INTERVAL_S = 0.5
NO_WORKER_PATIENCE_S = 30.0
SOURCE = "acquisition"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """`scan` is the default raster of a run, `fuse_frames` how many frames it fuses when it does not say; a run is
    refused that would leave less than `low_space_bytes` free, and ended in order once less is free. `restarts`: how
    often a supervisor had to start this program again."""

    endpoints: Endpoints
    runs_folder: Path
    ring_bytes: int = 256 * 1024 * 1024
    keys: CurveKeys | None = None
    scan: ScanRequest = field(default_factory=lambda: ScanRequest(512, 512))
    interlocks: InterlockLimits = field(default_factory=InterlockLimits)
    fuse_frames: int = 0
    low_space_bytes: int = LOW_SPACE_BYTES
    restarts: int = 0


class AcquisitionNode:
    """`announce` is told, in one line each, what people at the terminal want to know."""

    def __init__(
        self,
        lab: Lab,
        settings: NodeSettings,
        clock: Clock,
        announce: Callable[[str], None],
        context: zmq.Context[zmq.Socket[bytes]],
    ) -> None:
        self.lab = lab
        self.settings = settings
        self.clock = clock
        self._announce = announce
        self._context = context
        self._sequence = itertools.count()
        self._recorders: dict[str, Recorder] = {}
        self.awaiting_heights: dict[str, Recorder] = {}
        self._hurried = False
        self.counters = NodeCounters()
        self.control: ControlServer | None = None
        self.latest_figures: Mapping[str, float] = {}
        self.state = StateKeeper(lab.devices, clock, self._take_sample, self._tell_of_device)
        self.guard = Guard(lab, self.state, settings.interlocks, clock, self.tell)
        self.machine = RunMachine(settings.runs_folder, clock, self, settings.low_space_bytes)

    async def start(self) -> None:
        """Bind the stream, connect the devices (which brings them to rest) and begin to watch over them."""
        self._loop = asyncio.get_running_loop()
        endpoints, keys = self.settings.endpoints, self.settings.keys
        self.stream = StreamServer(self._context, endpoints, self._take_result, self.settings.ring_bytes, keys)
        await self.state.start()
        self._tasks = [asyncio.create_task(self.guard.watch()), asyncio.create_task(self._keep_house())]

    async def end(self) -> None:
        """Lab to rest first; then the run ends in order and its missing heights are waited for."""
        self.machine.end_soon()
        await self.guard.safe_state("the acquisition program is ending")
        await self.machine.wait()
        await self.heights_made()
        for recorder in list(self._recorders.values()):
            await self._close_incomplete(recorder, "the program ended before all heights were made")
        for task in self._tasks:
            task.cancel()
        await self.state.stop()

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()

    @property
    def replaying(self) -> ReplaySource | None:
        """The recording that is being replayed at present."""
        progress = self.machine.progress
        if self.machine.state != "acquiring" or progress is None:
            return None
        return progress.plan.source if isinstance(progress.plan.source, ReplaySource) else None

    @property
    def run_id(self) -> str:
        """The present or last run; empty before the first one."""
        return self.machine.progress.run.run_id if self.machine.progress else ""

    @property
    def heights_waiting(self) -> int:
        """Recorded frames of open runs that have no height yet."""
        return sum(recorder.frames - recorder.manifest.heights for recorder in list(self._recorders.values()))

    def hurry(self) -> None:
        """End without waiting for heights: whoever could make them has gone."""
        self._hurried = True

    async def heights_made(self) -> None:
        """Until every ended run has its heights, or no worker has been seen for `NO_WORKER_PATIENCE_S`."""
        alone_s = 0.0
        while self.awaiting_heights and alone_s < NO_WORKER_PATIENCE_S and not self._hurried:
            await asyncio.sleep(0.1)
            alone_s = 0.0 if self.stream.workers() else alone_s + 0.1

    # What a run needs of its node (acquisition.run.RunPorts)

    def join_state(self, start: Instant, end: Instant) -> Mapping[str, JoinedValue]:
        return self.state.join(start, end)

    def publish_start(self, run: RunStarted) -> None:
        progress = self.machine.progress
        if progress is not None and progress.recorder is not None:
            self._recorders[run.run_id] = progress.recorder
            self._announce(f"recording {progress.recorder.folder}")
        self.counters.runs_started += 1
        self.stream.publish(run)

    def publish_frame(self, frame: Frame, run: RunStarted) -> None:
        recorded = run.run_id in self._recorders
        self.counters.published(frame.header.key, self.clock.now().monotonic_ns, recorded=recorded)
        self.stream.publish_frame(frame, run)

    def publish_finish(self, finished: RunFinished) -> None:
        self.stream.publish(finished)

    def acknowledge(self, run_id: str, sequence: int) -> None:
        self.counters.acknowledged(run_id, sequence)
        self._announce(f"acknowledged {sequence}")

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        """Put an event on the stream, into the recordings that are open, and into the log."""
        at = self.clock.now()
        event = Event(
            self.run_id, SOURCE, next(self._sequence), at.monotonic_ns, at.utc_ns, name, severity, text, details
        )
        log.log(logging.INFO if severity == "info" else logging.WARNING, "%s: %s", name, text)
        self.counters.event(name, severity)
        self.stream.publish(event)
        for recorder in list(self._recorders.values()):
            self._record(recorder.write_event, event)

    async def run_over(self, progress: Progress, reason: str, whole: bool) -> None:
        """After the last frame: lab to rest, then the missing heights from the recording."""
        if progress.plan.source is self.lab.detector and not (whole and progress.plan.hold_after):
            await self.guard.safe_state(f"run over ({reason})")
        recorder = progress.recorder
        if recorder is None:
            return
        if not whole:
            await self._close_incomplete(recorder, reason)
            return
        self.awaiting_heights[progress.run.run_id] = recorder
        if recorder.has_all_heights:
            await self._complete(recorder)
            return
        recorded = await asyncio.to_thread(RecordedRun, recorder.folder)
        if progress.run.run_id in self.awaiting_heights:
            self.stream.add_backfill(progress.run, recorder.missing_heights, recorded.read_frame)

    def publish_heartbeat(self, status: Mapping[str, Any]) -> None:
        """A sign of life with the status as a tree."""
        at = self.clock.now()
        self.stream.publish(Heartbeat("", SOURCE, next(self._sequence), at.monotonic_ns, at.utc_ns, status))

    # Heights

    def _take_result(self, result: Result) -> str:
        """In the stream's thread: keep a worker's height with its run, and count it."""
        reason = self._keep_result(result)
        header = result.header
        if not reason:
            self.latest_figures = {name: value for name, value in header.figures.items() if math.isfinite(value)}
        self.counters.height(header.key, self.clock.now().monotonic_ns, dict(header.timing_s), kept=not reason)
        return reason

    def _keep_result(self, result: Result) -> str:
        run_id = result.header.run_id
        recorder = self._recorders.get(run_id)
        if recorder is None:
            progress = self.machine.progress
            live = progress is not None and progress.run.run_id == run_id and progress.recorder is None
            return "" if live else f"run {run_id} is not open"
        try:
            reason = recorder.write_result(result)
        except RecordingFailed as error:
            failure = str(error)
            asyncio.run_coroutine_threadsafe(self.machine.fail(failure), self._loop)
            return failure
        if run_id in self.awaiting_heights and recorder.has_all_heights:
            asyncio.run_coroutine_threadsafe(self._complete(recorder), self._loop)
        return reason

    async def _complete(self, recorder: Recorder) -> None:
        """Every frame has its height: put them in order and call the run complete."""
        run_id = recorder.run.run_id
        if self._recorders.pop(run_id, None) is None:
            return
        frames = recorder.frames
        try:
            await asyncio.to_thread(recorder.close, "recording")
            await asyncio.to_thread(put_heights_in_order, recorder.folder)
        except (EclipsError, OSError) as error:
            text = f"the heights of {run_id} could not be put in order: {error}"
            self.tell("recording", text, "alarm", run_id=run_id)
        else:
            self.counters.runs_complete += 1
            self._announce(f"run {recorder.folder} complete: {frames} frames, {frames} heights")
            self.tell("run_complete", f"{run_id}: {frames} frames, {frames} heights", run_id=run_id)
        finally:
            self.awaiting_heights.pop(run_id, None)
            self.stream.drop_run(run_id)

    async def _close_incomplete(self, recorder: Recorder, reason: str) -> None:
        run_id = recorder.run.run_id
        self._recorders.pop(run_id, None)
        self.awaiting_heights.pop(run_id, None)
        self.stream.drop_run(run_id)
        missing = len(recorder.missing_heights())
        self.counters.runs_incomplete += 1
        try:
            await asyncio.to_thread(recorder.close, "incomplete", reason)
        except (RecordingFailed, OSError) as error:
            log.critical("%s", error)
        log.warning("run %s is incomplete: %s", run_id, reason, extra={"run_id": run_id, "announced": True})
        self._announce(
            f"run {recorder.folder} incomplete: {recorder.frames} frames, {missing} without height: {reason}"
        )

    async def _give_up_hopeless(self) -> None:
        self.counters.given_up(self.stream.given_up)
        for run_id, recorder in list(self.awaiting_heights.items()):
            given_up = [sequence for run, sequence in self.stream.given_up if run == run_id]
            missing = recorder.missing_heights()
            if missing and set(missing) <= set(given_up):
                await self._close_incomplete(recorder, f"{len(missing)} frames could not be reconstructed")

    # State and status

    def _take_sample(self, channel: str, reading: Reading) -> None:
        progress = self.machine.progress
        sample = StateSample(
            run_id=self.run_id,
            source=SOURCE,
            sequence=next(self._sequence),
            monotonic_ns=reading.instant.monotonic_ns,
            utc_ns=reading.instant.utc_ns,
            channel=channel,
            value=reading.value if reading.valid else None,
            valid=reading.valid,
            reason=reading.reason,
        )
        self.stream.publish(sample)
        acquiring = self.machine.state == "acquiring" and self.replaying is None
        if acquiring and progress is not None and progress.recorder is not None:
            self._record(progress.recorder.write_state, sample)

    def _tell_of_device(self, name: str, text: str) -> None:
        self.tell("device", f"{name}: {text}", "warning", device=name)

    def _record(self, write: Callable[[Any], None], message: Any) -> None:
        try:
            write(message)
        except RecordingFailed as error:
            self._failing = asyncio.ensure_future(self.machine.fail(str(error)))

    async def _keep_house(self) -> None:
        """What must be looked after although nobody asks for it."""
        while True:
            await self._give_up_hopeless()
            await self._end_before_the_disk_is_full()
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_S)

    async def _end_before_the_disk_is_full(self) -> None:
        folder, limit = self.settings.runs_folder, self.settings.low_space_bytes
        if self.machine.state != "acquiring" or not self._recorders:
            return
        try:
            free = shutil.disk_usage(folder).free
        except OSError:  # a disk that is gone fails the recorder, which ends the run
            return
        if free < limit:
            reason = f"{folder} has {free} bytes free, below the limit of {limit}: the run was ended in order"
            self.tell("low_space", f"{reason}; make room", "alarm", free_bytes=free, limit_bytes=limit)
            await self.machine.stop(reason)
