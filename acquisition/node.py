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
from acquisition.control_lock import ControlLock
from acquisition.counters import NodeCounters
from acquisition.device_changes import DeviceChanges
from acquisition.devices import Reading, ScanRequest
from acquisition.endpoints import CurveKeys, Endpoints
from acquisition.frames import Event, Frame, Heartbeat, JoinedValue, Result, RunFinished, RunStarted, StateSample
from acquisition.guard import Guard
from acquisition.heartbeat import HeartbeatLine, RelayHeartbeat
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.live_figures import LiveFigures
from acquisition.model_choice import ModelChoice
from acquisition.open_recordings import OpenRecordings
from acquisition.recipes.runner import RecipeRunner
from acquisition.recording.disk import LOW_SPACE_BYTES
from acquisition.replay import ReplaySource
from acquisition.residual_watch import ResidualWatch
from acquisition.run import RunMachine
from acquisition.run_plan import Progress
from acquisition.state import StateKeeper
from acquisition.stream import StreamServer

log = logging.getLogger(__name__)

HOUSEKEEPING_INTERVAL_S = 0.5
RELAY_AT_END_S = 0.5
SOURCE = "acquisition"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """`scan` is the default raster of a run, `fuse_frames` how many frames it fuses when it does not say; a run is
    refused that would leave less than `low_space_bytes` free, and ended in order once less is free. `restarts`: how
    often a supervisor had to start this program again. `relay` carries the heartbeat of a relay in the laser's loop."""

    endpoints: Endpoints
    runs_folder: Path
    ring_bytes: int = 256 * 1024 * 1024
    keys: CurveKeys | None = None
    scan: ScanRequest = field(default_factory=lambda: ScanRequest(512, 512))
    interlocks: InterlockLimits = field(default_factory=InterlockLimits)
    fuse_frames: int = 0
    low_space_bytes: int = LOW_SPACE_BYTES
    restarts: int = 0
    relay: HeartbeatLine | None = None
    relay_period_s: float = 0.5


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
        self.announce = announce
        self._context = context
        self._sequence = itertools.count()
        self.recordings = OpenRecordings(self)
        self.counters = NodeCounters()
        self.control: ControlServer | None = None
        self.latest_figures: Mapping[str, float] = {}
        self.figures = LiveFigures()
        self.state = StateKeeper(lab.devices, clock, self._take_sample, self._tell_of_device)
        self.guard = Guard(lab, self.state, settings.interlocks, clock, self.tell)
        self.residuals = ResidualWatch(self.guard.alarms, self.tell)
        self.machine = RunMachine(settings.runs_folder, clock, self, settings.low_space_bytes)
        self.guard.before_scan_stops = lambda reason: self.machine.cut_short(lab.detector, reason)
        self.driver = ControlLock("with --take-over")
        self.recipes: RecipeRunner | None = None
        self.device_changes: DeviceChanges | None = None
        self.relay: RelayHeartbeat | None = None
        if settings.relay is not None:
            period_s = settings.relay_period_s
            self.relay = RelayHeartbeat(settings.relay, period_s, self.guard.unwell, clock, self._relay_changed)

    async def start(self) -> None:
        """Bind the stream, connect the devices (which brings them to rest) and begin to watch over them."""
        endpoints, keys = self.settings.endpoints, self.settings.keys
        self.stream = StreamServer(self._context, endpoints, self._take_result, self.settings.ring_bytes, keys)
        self.models = ModelChoice(self.stream, self.tell)
        await self.state.start()
        self._tasks = [asyncio.create_task(self.guard.watch()), asyncio.create_task(self._keep_house())]
        if self.relay is not None:
            self.relay.start()

    async def end(self) -> None:
        """Lab to rest first; then the run ends in order and its missing heights are waited for."""
        self.machine.end_soon("the acquisition program was ended")
        making_safe = asyncio.create_task(self.guard.safe_state("the acquisition program is ending"))
        await asyncio.wait([making_safe], timeout=RELAY_AT_END_S)
        if self.relay is not None:  # however long the devices take to answer
            self.relay.end()
        await making_safe
        if self.recipes is not None:
            await self.recipes.wait()
        await self.machine.wait()
        await self.recordings.heights_made()
        await self.recordings.close_all("the program ended before all heights were made")
        for task in self._tasks:
            task.cancel()
        if self.relay is not None:
            await self.relay.closed()
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
    def run_fault(self) -> str:
        """Why the run is in its fault state; empty when it is not."""
        return self.machine.fault if self.machine.state == "fault" else ""

    @property
    def run_id(self) -> str:
        """The present or last run; empty before the first one."""
        return self.machine.progress.run.run_id if self.machine.progress else ""

    # What a run needs of its node (acquisition.run.RunPorts)

    def join_state(self, start: Instant, end: Instant) -> Mapping[str, JoinedValue]:
        return self.state.join(start, end)

    def publish_start(self, run: RunStarted) -> None:
        progress = self.machine.progress
        if progress is not None and progress.recorder is not None:
            self.recordings.add(progress.recorder)
        self.figures.begin()
        self.residuals.begin(run.run_id)
        self.counters.runs_started += 1
        self.stream.publish(run)

    def publish_frame(self, frame: Frame, run: RunStarted) -> None:
        self.figures.exposed(frame.header)
        recorded = run.run_id in self.recordings
        self.counters.published(frame.header.key, self.clock.now().monotonic_ns, recorded=recorded)
        self.stream.publish_frame(frame, run)

    def publish_finish(self, finished: RunFinished) -> None:
        self.stream.publish(finished)

    def acknowledge(self, run_id: str, sequence: int) -> None:
        self.counters.acknowledged(run_id, sequence)
        self.announce(f"acknowledged {sequence}")

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        """Put an event on the stream, into the recordings that are open, and into the log."""
        at = self.clock.now()
        event = Event(
            self.run_id, SOURCE, next(self._sequence), at.monotonic_ns, at.utc_ns, name, severity, text, details
        )
        log.log(logging.INFO if severity == "info" else logging.WARNING, "%s: %s", name, text)
        self.counters.event(name, severity)
        self.stream.publish(event)
        self.recordings.write_event(event)

    async def run_over(self, progress: Progress, reason: str, whole: bool) -> None:
        """After the last frame: lab to rest, then the recording to its heights."""
        if progress.plan.source is self.lab.detector and not (whole and progress.plan.hold_after):
            await self.guard.safe_state(f"run over ({reason})")
        await self.recordings.run_over(progress, reason, whole)

    def publish_heartbeat(self, status: Mapping[str, Any]) -> None:
        """A sign of life with the status as a tree."""
        at = self.clock.now()
        self.stream.publish(Heartbeat("", SOURCE, next(self._sequence), at.monotonic_ns, at.utc_ns, status))

    def _take_result(self, result: Result) -> str:
        """In the stream's thread: keep a worker's height with its run, and count it."""
        reason = self.recordings.take(result)
        header = result.header
        if not reason:
            self.figures.take(header)
            self.residuals.take(header)
            finite = {name: value for name, value in header.figures.items() if math.isfinite(value)}
            self.latest_figures = {**self.residuals.band, **finite}
        self.counters.height(header.key, self.clock.now().monotonic_ns, dict(header.timing_s), kept=not reason)
        return reason

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
            self.recordings.write_state(progress.recorder, sample)

    def _tell_of_device(self, name: str, text: str) -> None:
        self.tell("device", f"{name}: {text}", "warning", device=name)

    def _relay_changed(self, reason: str) -> None:
        if reason:
            text, way_out = f"the laser's relay gets no heartbeat: {reason}", "mend the cause; the beat then resumes"
            self.guard.alarms.sound("relay", text, way_out, self.clock.now().utc_ns)
            self.tell("relay", text, "alarm")
        else:
            self.guard.alarms.cease("relay")
            self.tell("relay", "the laser's relay gets its heartbeat")

    async def _keep_house(self) -> None:
        """What must be looked after although nobody asks for it."""
        while True:
            self.residuals.look(self.clock.now().utc_ns)
            await self.recordings.give_up_hopeless()
            await self._end_before_the_disk_is_full()
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_S)

    async def _end_before_the_disk_is_full(self) -> None:
        folder, limit = self.settings.runs_folder, self.settings.low_space_bytes
        if self.machine.state != "acquiring" or not self.recordings:
            return
        try:
            free = shutil.disk_usage(folder).free
        except OSError:  # a disk that is gone fails the recorder, which ends the run
            return
        if free < limit:
            reason = f"{folder} has {free} bytes free, below the limit of {limit}: the run was ended in order"
            self.tell("low_space", f"{reason}; make room", "alarm", free_bytes=free, limit_bytes=limit)
            await self.machine.stop(reason)
