"""A recording as just another source of exposures: same pixels, same times between frames, same state."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import Clock, Instant
from acquisition.devices import ScanRequest
from acquisition.errors import BadInput, EclipsError, RequestRefused
from acquisition.frames import Exposure
from acquisition.instrument import Instrument
from acquisition.recording import RecordedRun
from acquisition.recording.verification import gaps, told_spans

SPEEDS = ("step", "max")
SLOWEST, FASTEST = 0.01, 1000.0
LEAST_LOOP_PAUSE_S = 1.0
"""Where the recording tells no pause before its last frame (one frame, or imported ones without times)."""

Tell = Callable[..., None]
"""`tell(name, text, severity, **details)`: see `AcquisitionNode.tell`."""


class ReplaySource:
    """Plays the recorded frames from number `first` to number `last`, both included, at `speed` times their pace.

    `speed` is a number, `max` (as fast as they are taken) or `step` (a frame for each `step` or `seek`). A looping
    replay waits between its last frame and its first as long as before its last. `position` counts the frames of this
    replay from 0 and is the next to be played. What the recording lacks or cannot be read is told, counted and passed
    over. One frame is in memory at a time, and some 30 bytes for each other one. Raises `BadInput` when no frame lies
    from `first` to `last`.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        speed: str = "1",
        loop: bool = False,
        first: int = 0,
        last: int | None = None,
        tell: Tell = lambda *_, **__: None,
    ) -> None:
        self.recorded = RecordedRun(path)
        self.speed = speed
        self._pace = _pace(speed)
        self._clock = clock
        self._loop = loop
        self._tell = tell
        self._sequences = _chosen(self.recorded, first, last)
        self._gaps = gaps(self.recorded, first, last)
        self.damaged: set[int] = set()
        self.position = 0
        self._changed = asyncio.Event()
        self._played: int | None = None
        self._due: Instant | None = None
        self._steps = 0
        self._sought = False
        self._stopped = False

    @property
    def total(self) -> int:
        return len(self._sequences)

    @property
    def missing(self) -> int:
        """How many frames of the span the recording does not have."""
        return sum(last - first + 1 for first, last in self._gaps)

    @property
    def scan(self) -> ScanRequest:
        """The raster as it was recorded."""
        _, height_px, width_px = self.recorded.manifest.shape
        return ScanRequest(width_px, height_px)

    async def configure(self, scan: ScanRequest) -> Instrument:
        """A recording cannot be configured: its own instrument is what counts."""
        return self.recorded.instrument

    async def arm(self) -> None:
        self.position, self._steps = 0, 0
        self._played = self._due = None
        self._sought = self._stopped = False

    async def exposures(self, count: int | None) -> AsyncIterator[Exposure]:
        """Exposures with the header that each was recorded with. Raises `BadInput` when none can be read."""
        self._tell_gaps()
        given = 0
        while not self._stopped and (count is None or given < count):
            if self.position >= self.total:
                if not self._loop:
                    return
                self.position = 0
            position, self._sought = self.position, False
            # Read before its turn, so that it leaves in time.
            exposure = await self._read(position)
            if exposure is not None:
                await self._turn(position)
            if self._sought or self._stopped:
                continue
            self.position = position + 1
            if exposure is not None:
                self._played = position
                given += 1
                yield exposure

    async def stop(self) -> None:
        self._stopped = True
        self._changed.set()

    def seek(self, position: int) -> None:
        """Play `position` at once, then go on from there. Raises `RequestRefused` outside the replay."""
        if not 0 <= position < self.total:
            raise RequestRefused(f"position {position} is outside this replay's 0 to {self.total - 1}")
        self.position = position
        self._played = self._due = None
        self._sought = True
        self._steps = 1
        self._changed.set()

    def step(self) -> None:
        """Let exactly one more frame go. Raises `RequestRefused` unless the speed is `step`."""
        if self.speed != "step":
            raise RequestRefused(
                f"this replay plays at speed {self.speed}: stepping needs one that was started with speed step",
                permitted=("seek", "stop", "abort"),
            )
        self._steps += 1
        self._changed.set()

    async def _read(self, position: int) -> Exposure | None:
        """None for a frame that cannot be read."""
        sequence = self._sequences[position]
        try:
            frame = await asyncio.to_thread(self.recorded.read_frame, sequence)
        except EclipsError as error:
            self._lose(sequence, f"{error}; the replay goes on with the next frame")
            if len(self.damaged) == self.total:
                raise BadInput(f"none of the {self.total} frames of {self.recorded.path} can be read") from error
            return None
        header = frame.header
        return Exposure(
            images=frame.images,
            start=Instant(header.exposure_start_ns, header.utc_ns),
            end=Instant(header.exposure_end_ns, header.utc_ns),
            optics=header.optics,
            hardware_time_ns=header.hardware_time_ns,
            flags=header.flags,
            truth_m=await self._read_truth(sequence),
            recorded=header,
        )

    async def _read_truth(self, sequence: int) -> NDArray[np.float32] | None:
        """A frame is played without a truth that cannot be read."""
        try:
            return await asyncio.to_thread(self.recorded.read_truth, sequence)
        except EclipsError as error:
            self._tell("replay_truth", f"truth of frame {sequence} is lost: {error}", "warning", sequence=sequence)
            return None

    def _lose(self, sequence: int, text: str) -> None:
        """Each damaged frame is told once, however often a loop comes by."""
        if sequence not in self.damaged:
            self.damaged.add(sequence)
            self._tell("replay_damaged", text, "warning", sequence=sequence)

    def _tell_gaps(self) -> None:
        if self._gaps:
            text = f"{self.recorded.manifest.run_id} lacks {told_spans(self._gaps)}: the replay goes on without"
            self._tell("replay_gaps", text, "warning", missing=self.missing)

    async def _turn(self, position: int) -> None:
        """Until the frame at `position` may go, or a seek or the end calls it off."""
        if self.speed == "step":
            while not (self._steps or self._sought or self._stopped):
                self._changed.clear()
                await self._changed.wait()
            if not self._sought:
                self._steps -= 1
        elif self._pace:
            await self._until_due(position)

    async def _until_due(self, position: int) -> None:
        """Due times are counted on from the first frame, so that late frames do not add up."""
        now = self._clock.now()
        if self._due is None or self._played is None:
            self._due = now
            return
        self._due = self._due.later(self._pause_s(self._played, position) / self._pace)
        while not (self._sought or self._stopped) and (wait_s := self._due.seconds_since(self._clock.now())) > 0:
            self._changed.clear()
            waits = [asyncio.ensure_future(self._clock.sleep(wait_s)), asyncio.ensure_future(self._changed.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiting in waits:
                    waiting.cancel()

    def _pause_s(self, before: int, position: int) -> float:
        """Recorded seconds from the end of the frame at `before` to that of the one at `position`."""
        if position > before:
            return max(0.0, self._end_s(position) - self._end_s(before))
        last = self.total - 1
        return max(0.0, self._end_s(last) - self._end_s(max(0, last - 1))) or LEAST_LOOP_PAUSE_S

    def _end_s(self, position: int) -> float:
        return self.recorded.frames[self._sequences[position]].header.exposure_end_ns / 1e9


def _chosen(recorded: RecordedRun, first: int, last: int | None) -> array[int]:
    """The recorded frame numbers from `first` to `last`, in order. Raises `BadInput` beyond the recording."""
    sequences = recorded.sequences
    if not sequences:
        raise BadInput(f"{recorded.path} holds no frames")
    span = f"{recorded.path} holds frames {sequences[0]} to {sequences[-1]}"
    for asked in (first, last):
        if asked is not None and not 0 <= asked <= sequences[-1]:
            raise BadInput(f"frame {asked} is outside the recording: {span}")
    if last is not None and last < first:
        raise BadInput(f"frames {first} to {last} were asked for: the first must not lie after the last; {span}")
    chosen = array("q", (number for number in sequences if first <= number and (last is None or number <= last)))
    if not chosen:
        raise BadInput(f"no frame from {first} to {last} was recorded: {span}")
    return chosen


def _pace(speed: str) -> float:
    """Times the recorded pace; 0 does not pace."""
    if speed in SPEEDS:
        return 0.0
    try:
        pace = float(speed)
    except ValueError:
        pace = 0.0
    if not SLOWEST <= pace <= FASTEST:
        raise BadInput(
            f"replay speed {speed[:40]!r} is not a number from {SLOWEST:g} to {FASTEST:g}, nor {' or '.join(SPEEDS)}"
        )
    return pace
