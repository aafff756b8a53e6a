"""From the source's exposures to frames that are recorded and published, until something ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import xxhash

from acquisition.clock import Clock
from acquisition.frames import Exposure
from acquisition.run_plan import Progress, RunPorts
from acquisition.stamping import stamp

COULOMB_PER_ELECTRON = 1.602176634e-19


class FrameTaker:
    """Takes the frames of one run. `cut_short` says what brought its source to rest from outside, if anything did."""

    def __init__(self, progress: Progress, ports: RunPorts, clock: Clock) -> None:
        self._progress = progress
        self._ports = ports
        self._clock = clock
        self.source = progress.plan.source
        self._digest = xxhash.xxh3_64()
        self._end = asyncio.Event()
        self._end_reason = ""
        self.cut_short = ""

    @property
    def digest(self) -> str:
        """xxh3 over the checksums of all frames in order."""
        return self._digest.hexdigest()

    def end(self, reason: str) -> None:
        """Take no further frame; the first reason counts."""
        self._end_reason = self._end_reason or reason
        self._end.set()

    async def take_all(self) -> str:
        """Until the last frame; returns what ended it. Raises what the source or the recorder raises."""
        stopped = asyncio.create_task(self._end.wait())
        try:
            exposures = self.source.exposures(self._progress.plan.frames)
            async with aclosing(exposures):  # type: ignore[type-var]
                while True:
                    coming = asyncio.ensure_future(anext(exposures))
                    try:
                        await asyncio.wait([coming, stopped], return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if not coming.done():
                            coming.cancel()
                            await asyncio.wait([coming])
                    if coming.cancelled():
                        return self._end_reason
                    try:
                        exposure = coming.result()
                    except StopAsyncIteration:
                        return self._why_it_ended()
                    await _to_the_end(self._take(exposure))
        finally:
            stopped.cancel()

    def _why_it_ended(self) -> str:
        if self._end.is_set():
            return self._end_reason
        if self._progress.frames == self._progress.plan.frames:
            return "all frames were taken"
        return self.cut_short or "the source has ended"

    async def _take(self, exposure: Exposure) -> None:
        progress = self._progress
        state = self._ports.join_state(exposure.start, exposure.end)
        frame = stamp(progress.run, progress.frames, exposure, state)
        if progress.recorder is not None:
            truth_m = exposure.truth_m if progress.plan.keep_truth else None
            await asyncio.to_thread(progress.recorder.write_frame, frame, truth_m)
        self._ports.publish_frame(frame, progress.run)
        self._digest.update(frame.header.xxh3.encode())
        progress.frames += 1
        progress.last_frame = self._clock.now()
        beam = progress.instrument.beam
        electrons_per_pixel = beam.current_a * frame.header.optics.dwell_time_s / COULOMB_PER_ELECTRON
        progress.dose_electrons_per_m2 += electrons_per_pixel / frame.header.optics.pixel_size_m**2


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
