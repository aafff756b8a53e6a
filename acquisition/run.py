"""The run's state machine: idle -> armed -> acquiring -> finishing -> idle, and fault from anywhere until reset."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import xxhash

from acquisition import wire
from acquisition.clock import Clock, Instant
from acquisition.counters import RecorderTimes
from acquisition.devices import ScanRequest
from acquisition.errors import EclipsError, RequestRefused
from acquisition.frames import Exposure, Frame, JoinedValue, RunFinished, RunStarted
from acquisition.instrument import Instrument
from acquisition.recording import Recorder
from acquisition.recording.disk import LOW_SPACE_BYTES, check_disk_space
from acquisition.stamping import stamp, start_run

log = logging.getLogger(__name__)

STATES = ("idle", "armed", "acquiring", "finishing", "fault")
PERMITTED: Mapping[str, tuple[str, ...]] = {
    "idle": ("start", "replay"),
    "armed": ("abort",),
    "acquiring": ("stop", "abort"),
    "finishing": ("abort",),
    "fault": ("reset",),
}
MAX_FRAMES = 10_000_000


class FrameSource(Protocol):
    """Where a run's exposures come from: the detector, or a recording."""

    async def configure(self, scan: ScanRequest) -> Instrument: ...

    async def arm(self) -> None: ...

    def exposures(self, count: int | None) -> AsyncIterator[Exposure]: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a user asks for. `frames` None runs until stopped; `name` becomes part of the run's name."""

    source: FrameSource
    source_name: str
    scan: ScanRequest
    record: bool = True
    frames: int | None = None
    name: str = "run"
    notes: str = ""
    simulated: bool = False
    keep_truth: bool = False
    hold_after: bool = False
    fuse_frames: int = 0


@dataclass(slots=True)
class Progress:
    """How the present or last run stands."""

    run: RunStarted
    instrument: Instrument
    plan: RunPlan
    recorder: Recorder | None
    frames: int = 0
    last_frame: Instant | None = None
    dose_electrons_per_m2: float = 0.0


class RunPorts(Protocol):
    """What a run needs of the node that it lives in."""

    def join_state(self, start: Instant, end: Instant) -> Mapping[str, JoinedValue]: ...

    def publish_start(self, run: RunStarted) -> None: ...

    def publish_frame(self, frame: Frame, run: RunStarted) -> None: ...

    def publish_finish(self, finished: RunFinished) -> None: ...

    def acknowledge(self, run_id: str, sequence: int) -> None: ...

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None: ...

    def run_over(self, progress: Progress, reason: str, whole: bool) -> Awaitable[None]: ...


class RunMachine:
    """One run at a time. Commands raise `RequestRefused` with what is permitted instead."""

    def __init__(
        self, runs_folder: Path, clock: Clock, ports: RunPorts, low_space_bytes: int = LOW_SPACE_BYTES
    ) -> None:
        self._runs_folder = runs_folder
        self._low_space_bytes = low_space_bytes
        self._clock = clock
        self._ports = ports
        self.state = "idle"
        self.fault = ""
        self.progress: Progress | None = None
        self.recorder_times = RecorderTimes()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._arming: asyncio.Task[Progress] | None = None
        self._armed_no_more = asyncio.Event()
        self._taking: asyncio.Task[str] | None = None

    @property
    def permitted(self) -> tuple[str, ...]:
        return PERMITTED[self.state]

    async def start(self, plan: RunPlan) -> RunStarted:
        """Arm and begin; returns once exposures are under way. What fails while arming leaves the machine idle."""
        self._require("start")
        if plan.frames is not None and not 1 <= plan.frames <= MAX_FRAMES:
            raise RequestRefused(f"{plan.frames} frames were asked for; ask for 1 to {MAX_FRAMES}, or none for endless")
        self._enter("armed")
        self._arming = asyncio.create_task(self._arm(plan), name="arm")
        try:
            progress = await self._arming
        except BaseException as error:
            self._enter("idle", str(error))
            if self._arming.cancelled():
                raise RequestRefused("aborted while arming", permitted=self.permitted) from None
            raise
        self.progress = progress
        self._stop = asyncio.Event()
        self._stop_reason = "stopped"
        self._ports.publish_start(progress.run)
        self._enter("acquiring")
        digest = xxhash.xxh3_64()
        self._taking = asyncio.create_task(self._take_frames(progress, digest), name="frames")
        self._task = asyncio.create_task(self._acquire(progress, self._taking, digest), name="run")
        return progress.run

    async def stop(self, reason: str = "stopped") -> None:
        """End in order; returns once the raw data are durable."""
        self._require("stop")
        self._stop_reason = reason
        self.end_soon()
        await self._ended()

    def end_soon(self) -> None:
        """Let a run that may be under way end in order, without waiting for it."""
        self._stop.set()

    async def abort(self) -> None:
        """End now; what was recorded stays, marked incomplete."""
        self._require("abort")
        if self.state == "armed" and self._arming is not None:
            aborted = self._arming.cancel()
            await self._armed_no_more.wait()
            if aborted:
                return
        if self._taking is not None:
            self._taking.cancel()
            await self._ended()

    def reset(self) -> None:
        """Leave the fault state."""
        self._require("reset")
        self.fault = ""
        self._enter("idle")

    async def wait(self) -> None:
        """Until the present run has ended, if there is one."""
        await self._ended()

    async def fail(self, reason: str) -> None:
        """A part that the run cannot do without is gone: end it and stay in `fault`."""
        self.fault = reason
        if self._taking is not None and self._task is not None and not self._task.done():
            self._taking.cancel()
            await self._ended()
        elif self.state != "fault":
            self._enter("fault", reason)

    def _require(self, command: str) -> None:
        if command not in self.permitted:
            because = f" ({self.fault})" if self.fault else ""
            raise RequestRefused(
                f"{command} is not possible while {self.state}{because}; possible now: {', '.join(self.permitted)}",
                permitted=self.permitted,
            )

    def _enter(self, state: str, reason: str = "") -> None:
        before, self.state = self.state, state
        self._armed_no_more.clear() if state == "armed" else self._armed_no_more.set()
        severity = "alarm" if state == "fault" else "info"
        text = f"{before} -> {state}" + (f": {reason}" if reason else "")
        self._ports.tell("transition", text, severity, before=before, after=state)

    async def _ended(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _arm(self, plan: RunPlan) -> Progress:
        instrument = await plan.source.configure(plan.scan)
        size_px = (plan.scan.height_px, plan.scan.width_px)
        about = (plan.frames, plan.notes, plan.fuse_frames)
        run = start_run(self._clock.now(), plan.name, plan.source_name, instrument, size_px, *about)
        wire.check_size(run)
        try:
            await plan.source.arm()
            recorder = self._recorder(run, instrument, plan) if plan.record else None
        except BaseException:
            await plan.source.stop()
            raise
        return Progress(run, instrument, plan, recorder)

    def _recorder(self, run: RunStarted, instrument: Instrument, plan: RunPlan) -> Recorder:
        self._runs_folder.mkdir(parents=True, exist_ok=True)
        check_disk_space(self._runs_folder, run.shape, plan.frames, self._low_space_bytes, with_truth=plan.keep_truth)
        return Recorder(
            self._runs_folder / run.run_id,
            run,
            instrument,
            lambda sequence: self._ports.acknowledge(run.run_id, sequence),
            simulated=plan.simulated,
            times=self.recorder_times,
        )

    async def _acquire(self, progress: Progress, taking: asyncio.Task[str], digest: xxhash.xxh3_64) -> None:
        """A run, whatever ends it: frames, then `finishing`, then idle or fault. Only `taking` is ever cancelled: a
        task that is cancelled before its first step would leave the machine where it is."""
        whole = True
        try:
            reason = await taking
        except asyncio.CancelledError:
            reason, whole = self.fault or "aborted", False
        except (EclipsError, TimeoutError, OSError) as error:
            self.fault = reason = str(error) or type(error).__name__
            whole = False
        except Exception as error:
            log.exception("run %s", progress.run.run_id)
            self.fault = reason = f"{type(error).__name__}: {error}"
            whole = False
        self._enter("finishing", reason)
        try:
            await progress.plan.source.stop()
            await self._finish(progress, reason, digest.hexdigest())
        except (EclipsError, TimeoutError, OSError) as error:
            self.fault = self.fault or str(error)
            whole = False
        try:
            await self._ports.run_over(progress, reason, whole)
        except Exception as error:
            log.exception("after run %s", progress.run.run_id)
            self.fault = self.fault or f"{type(error).__name__}: {error}"
        self._enter("fault", self.fault) if self.fault else self._enter("idle")

    async def _take_frames(self, progress: Progress, digest: xxhash.xxh3_64) -> str:
        stopped = asyncio.create_task(self._stop.wait())
        try:
            async with aclosing(progress.plan.source.exposures(progress.plan.frames)) as exposures:  # type: ignore[type-var]
                while True:
                    coming = asyncio.ensure_future(anext(exposures))
                    try:
                        await asyncio.wait([coming, stopped], return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if not coming.done():
                            coming.cancel()
                            await asyncio.wait([coming])
                    if coming.cancelled():
                        return self._stop_reason
                    try:
                        exposure = coming.result()
                    except StopAsyncIteration:
                        if self._stop.is_set():
                            return self._stop_reason
                        whole = progress.frames == progress.plan.frames
                        return "all frames were taken" if whole else "the source has ended"
                    await _to_the_end(self._take(progress, exposure, digest))
        finally:
            stopped.cancel()

    async def _take(self, progress: Progress, exposure: Exposure, digest: xxhash.xxh3_64) -> None:
        state = self._ports.join_state(exposure.start, exposure.end)
        frame = stamp(progress.run, progress.frames, exposure, state)
        if progress.recorder is not None:
            truth_m = exposure.truth_m if progress.plan.keep_truth else None
            await asyncio.to_thread(progress.recorder.write_frame, frame, truth_m)
        self._ports.publish_frame(frame, progress.run)
        digest.update(frame.header.xxh3.encode())
        progress.frames += 1
        progress.last_frame = self._clock.now()
        beam = progress.instrument.beam
        electrons_per_pixel = beam.current_a * frame.header.optics.dwell_time_s / 1.602176634e-19
        progress.dose_electrons_per_m2 += electrons_per_pixel / frame.header.optics.pixel_size_m**2

    async def _finish(self, progress: Progress, reason: str, digest: str) -> None:
        end = self._clock.now()
        finished = RunFinished(
            run_id=progress.run.run_id,
            source=progress.run.source,
            sequence=progress.frames,
            monotonic_ns=end.monotonic_ns,
            utc_ns=end.utc_ns,
            frames=progress.frames,
            last_sequence=progress.frames - 1,
            reason=reason,
            digest=digest,
        )
        if progress.recorder is not None:
            await asyncio.to_thread(progress.recorder.finish_frames, finished)
        self._ports.publish_finish(finished)


async def _to_the_end(step: Coroutine[Any, Any, None]) -> None:
    """Carry `step` out as a whole: who is cancelled meanwhile is so afterwards. A frame that is being recorded is
    recorded, counted and published, or none of it."""
    task, cancelled = asyncio.ensure_future(step), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
