"""A recording as just another source of exposures: same pixels, same times between frames, same state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from acquisition.clock import Clock, Instant
from acquisition.devices import ScanRequest
from acquisition.errors import BadInput, RequestRefused
from acquisition.frames import Exposure
from acquisition.instrument import Instrument
from acquisition.recording import RecordedRun

SPEEDS = ("step", "max")


class ReplaySource:
    """Plays frames `first` to `last` (positions in the recording) at `speed` times the recorded pace.

    `speed` is a positive number, `max` (as fast as they are taken) or `step` (each frame waits for `step`).
    `position` is the next frame to be played; `seek` moves it. Raises `BadInput` on a run without frames.
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
    ) -> None:
        self.recorded = RecordedRun(path)
        self._clock = clock
        self.speed = speed
        self._pace = _pace(speed)
        self._loop = loop
        self._sequences = self.recorded.sequences[first : None if last is None else last + 1]
        if not self._sequences:
            raise BadInput(f"{path} holds {len(self.recorded.frames)} frames, none of them from {first} to {last}")
        self.position = 0
        self._moved = asyncio.Event()

    @property
    def total(self) -> int:
        return len(self._sequences)

    @property
    def scan(self) -> ScanRequest:
        """The raster as it was recorded."""
        _, height_px, width_px = self.recorded.manifest.shape
        return ScanRequest(width_px, height_px)

    async def configure(self, scan: ScanRequest) -> Instrument:
        """A recording cannot be configured: its own instrument is what counts."""
        return self.recorded.instrument

    async def arm(self) -> None:
        self.position = 0

    async def exposures(self, count: int | None) -> AsyncIterator[Exposure]:
        """Exposures with the header that each was recorded with."""
        given = 0
        while count is None or given < count:
            if self.position >= self.total:
                if not self._loop:
                    return
                self.position = 0
            await self._wait_for_turn()
            sequence = self._sequences[self.position]
            self.position += 1
            frame = await asyncio.to_thread(self.recorded.read_frame, sequence)
            header = frame.header
            yield Exposure(
                images=frame.images,
                start=Instant(header.exposure_start_ns, header.utc_ns),
                end=Instant(header.exposure_end_ns, header.utc_ns),
                optics=header.optics,
                hardware_time_ns=header.hardware_time_ns,
                flags=header.flags,
                truth_m=self.recorded.read_truth(sequence),
                recorded=header,
            )
            given += 1

    async def stop(self) -> None:
        self._moved.set()

    def seek(self, position: int) -> None:
        """Play `position` next. Raises `RequestRefused` outside the recording."""
        if not 0 <= position < self.total:
            raise RequestRefused(f"position {position} is outside this replay's 0 to {self.total - 1}")
        self.position = position
        self._due = None
        self._moved.set()

    def step(self) -> None:
        """Let one more frame go when the speed is `step`."""
        self._moved.set()

    _due: Instant | None = None

    async def _wait_for_turn(self) -> None:
        if self.speed == "step":
            await self._moved.wait()
            self._moved.clear()
        elif self._pace:
            await self._pace_by_recorded_times()

    async def _pace_by_recorded_times(self) -> None:
        """Due times are counted on from the first frame, so that late frames do not add up."""
        now = self._clock.now()
        if self._due is None or self.position == 0:
            self._due = now
            return
        frames = self.recorded.frames
        before = frames[self._sequences[self.position - 1]].header.exposure_end_ns
        after = frames[self._sequences[self.position]].header.exposure_end_ns
        self._due = self._due.later(max(0, after - before) / 1e9 / self._pace)
        self._moved.clear()
        wait_s = self._due.seconds_since(now)
        if wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._moved.wait()
            except TimeoutError:
                return


def _pace(speed: str) -> float:
    """Times the recorded pace; 0 does not pace."""
    if speed in SPEEDS:
        return 0.0
    try:
        pace = float(speed)
    except ValueError:
        pace = 0.0
    if not 0.01 <= pace <= 1000:
        raise BadInput(f"replay speed {speed!r} is not a number from 0.01 to 1000, nor {' or '.join(SPEEDS)}")
    return pace
