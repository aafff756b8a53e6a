"""The run's state machine: idle -> armed -> acquiring -> finishing -> idle, and fault from anywhere until reset."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from acquisition import wire
from acquisition.clock import Clock
from acquisition.counters import RecorderTimes
from acquisition.errors import EclipsError, RequestRefused
from acquisition.frames import RunFinished, RunStarted
from acquisition.instrument import Instrument
from acquisition.recording import Recorder
from acquisition.recording.disk import LOW_SPACE_BYTES, check_disk_space
from acquisition.run_plan import CUT_SHORT, MAX_FRAMES, Progress, RunPlan, RunPorts
from acquisition.stamping import start_run
from acquisition.taking import FrameTaker

log = logging.getLogger(__name__)

STATES = ("idle", "armed", "acquiring", "finishing", "fault")
PERMITTED: Mapping[str, tuple[str, ...]] = {
    "idle": ("start", "replay"),
    "armed": ("abort",),
    "acquiring": ("stop", "abort"),
    "finishing": ("abort",),
    "fault": ("reset",),
}


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
        self._taker: FrameTaker | None = None
        self._task: asyncio.Task[None] | None = None
        self._arming: asyncio.Task[Progress] | None = None
        self._armed_source: object = None
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
        self._armed_source = plan.source
        self._arming = asyncio.create_task(self._arm(plan), name="arm")
        try:
            progress = await self._arming
        except BaseException as error:
            self._enter("idle", str(error))
            if self._arming.cancelled():
                raise RequestRefused("aborted while arming", permitted=self.permitted) from None
            raise
        self.progress = progress
        self._taker = FrameTaker(progress, self._ports, self._clock)
        self._ports.publish_start(progress.run)
        self._enter("acquiring")
        self._taking = asyncio.create_task(self._taker.take_all(), name="frames")
        self._task = asyncio.create_task(self._acquire(progress, self._taker, self._taking), name="run")
        return progress.run

    async def stop(self, reason: str = "stopped") -> None:
        """End in order; returns once the raw data are durable."""
        self._require("stop")
        self.end_soon(reason)
        await self._ended()

    def end_soon(self, reason: str) -> None:
        """Let a run that may be under way end in order, without waiting for it."""
        if self._taker is not None:
            self._taker.end(reason)

    def cut_short(self, source: object, reason: str) -> None:
        """`source` is being brought to rest from outside: if that ends a run, the run shall say so; one that only arms
        is called off."""
        if self.state == "armed" and self._arming is not None and self._armed_source is source:
            self._arming.cancel()
        elif self.state == "acquiring" and self._taker is not None and self._taker.source is source:
            self._taker.cut_short = self._taker.cut_short or f"{CUT_SHORT}: {reason}"

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

    async def _acquire(self, progress: Progress, taker: FrameTaker, taking: asyncio.Task[str]) -> None:
        """A run, whatever ends it: frames, then `finishing`, then idle or fault. Only `taking` is ever cancelled: a
        task that is cancelled before its first step would leave the machine where it is."""
        whole = True
        try:
            reason = await taking
        except asyncio.CancelledError:
            reason, whole = self.fault or "aborted", False
        except (EclipsError, TimeoutError, OSError) as error:
            self.fault = str(error) or type(error).__name__
            reason, whole = _told(taker.cut_short, self.fault), False
        except Exception as error:
            log.exception("run %s", progress.run.run_id)
            self.fault = f"{type(error).__name__}: {error}"
            reason, whole = _told(taker.cut_short, self.fault), False
        self._enter("finishing", reason)
        try:
            await progress.plan.source.stop()
            await self._finish(progress, reason, taker.digest)
        except (EclipsError, TimeoutError, OSError) as error:
            self.fault = self.fault or str(error)
            whole = False
        try:
            await self._ports.run_over(progress, reason, whole)
        except Exception as error:
            log.exception("after run %s", progress.run.run_id)
            self.fault = self.fault or f"{type(error).__name__}: {error}"
        self._enter("fault", self.fault) if self.fault else self._enter("idle")

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


def _told(cut_short: str, fault: str) -> str:
    return f"{cut_short}; {fault}" if cut_short else fault
