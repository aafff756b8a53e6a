"""What a run is asked for, what it needs of its node, and how it stands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from acquisition.clock import Instant
from acquisition.devices import ScanRequest
from acquisition.frames import Exposure, Frame, JoinedValue, RunFinished, RunStarted
from acquisition.instrument import Instrument
from acquisition.recording import Recorder

MAX_FRAMES = 10_000_000
CUT_SHORT = "cut short by the safe state"


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
