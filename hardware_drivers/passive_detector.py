"""What detectors share that others drive: they cannot start a scan, they take what a microscope or program gives."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import Clock, Instant
from acquisition.devices import Limits, Reading, ScanRequest, require_entered
from acquisition.errors import RequestRefused
from acquisition.frames import Exposure
from acquisition.instrument import Instrument
from acquisition.stamping import optics_of
from hardware_drivers.scanning import require_frames_possible, require_set_up_possible

FULL_SCALE = np.iinfo(np.uint16).max
MOST_TOLD = 100


@dataclass(frozen=True, slots=True)
class Given:
    """One scan as it was given. `ended`: when its last pixel was scanned, as well as this host can know."""

    images: NDArray[np.uint16]
    instrument: Instrument
    ended: Instant
    hardware_time_ns: int | None = None


class PassiveDetector(ABC):
    """Configuring cannot change the microscope: it says what is expected of it. A size that comes otherwise is refused
    frame by frame, with the reason; pixel size, dwell time and beam are used as the frame itself tells them, and as
    configured only where it does not.

    `size_limits` bound width and height in pixels. `told` gives losses and refusals.
    """

    def __init__(self, name: str, instrument: Instrument, size_limits: Limits, clock: Clock) -> None:
        self._name = name
        self._instrument = instrument
        self._size_limits = size_limits
        self._clock = clock
        self._size_px: tuple[int, int] = (0, 0)
        self._connected = False
        self._armed = False
        self._scanning = False
        self._news = asyncio.Event()
        self._told: list[str] = []
        self._unsaid = 0
        self._last_end: Instant | None = None

    @property
    def name(self) -> str:
        return self._name

    async def __aenter__(self) -> Self:
        await self.stop()
        await self._connect()
        self._connected = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connected = False
        await self.stop()
        await self._disconnect()

    async def configure(self, scan: ScanRequest) -> Instrument:
        """What is expected of the next scans. Raises `RequestRefused` while scanning, `LimitExceeded` for size or
        pixel size, `BadInput` for dwell."""
        self._require_connection()
        require_set_up_possible(self.name, scan, self._size_limits, scanning=self._scanning)
        self._instrument = self._instrument.with_scan(pixel_size_m=scan.pixel_size_m, dwell_time_s=scan.dwell_time_s)
        self._size_px = (scan.height_px, scan.width_px)
        return self._instrument

    async def arm(self) -> None:
        """From now on what is given is taken. Raises `RequestRefused` before the first `configure`."""
        self._require_connection()
        if self._size_px == (0, 0):
            raise RequestRefused(f"{self.name} does not know which size to expect", permitted=("configure",))
        if not self._armed:
            self._last_end = None
            await self._begin()
        self._armed = True

    async def exposures(self, count: int | None) -> AsyncIterator[Exposure]:
        """Raises `RequestRefused` unless armed, or while another iterator scans."""
        self._require_connection()
        require_frames_possible(self.name, armed=self._armed, scanning=self._scanning)
        self._scanning = True
        try:
            left = count
            while self._armed and left != 0:
                given = await self._next()
                if given is None or not self._armed:
                    return
                yield self._exposure(given)
                left = None if left is None else left - 1
        finally:
            self._scanning = False
            await self.stop()

    async def stop(self) -> None:
        was_armed, self._armed = self._armed, False
        self._news.set()
        if was_armed:
            self._end()

    def told(self) -> Sequence[str]:
        told, self._told = self._told, []
        if self._unsaid:
            told.append(f"and {self._unsaid} more of such, left out here")
            self._unsaid = 0
        return told

    @abstractmethod
    async def _connect(self) -> None:
        """Raises `DeviceFailed` when there is nothing to take from."""

    @abstractmethod
    async def _disconnect(self) -> None: ...

    @abstractmethod
    async def _begin(self) -> None:
        """Armed: what is given from now on counts."""

    @abstractmethod
    def _end(self) -> None:
        """Armed no more."""

    @abstractmethod
    async def _next(self) -> Given | None:
        """The next scan, waited for while armed; None once that is over. `_news` is set when something happened."""

    def _tell(self, text: str) -> None:
        if len(self._told) < MOST_TOLD:
            self._told.append(text)
        else:
            self._unsaid += 1

    def _require_connection(self) -> None:
        require_entered(self._name, entered=self._connected)

    def _reading(self, value: float, reason: str = "") -> Reading:
        return Reading(float(value), not reason, self._clock.now(), reason)

    async def _wait_for_news(self, seconds: float | None = None) -> None:
        """Until something happened or `seconds` have passed."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def _exposure(self, given: Given) -> Exposure:
        """It lasted as long as its pixels, and begins no earlier than the one before ended: what is given late and in
        a heap has times no better than that."""
        _, height, width = given.images.shape
        end, start = given.ended, given.ended.later(-height * width * given.instrument.beam.dwell_time_s)
        if self._last_end is not None and start.monotonic_ns < self._last_end.monotonic_ns:
            start = self._last_end
            end = max(start, end, key=lambda instant: instant.monotonic_ns)
        self._last_end = end
        saturated = bool((given.images == FULL_SCALE).any())
        return Exposure(
            images=given.images,
            start=start,
            end=end,
            optics=optics_of(given.instrument),
            hardware_time_ns=given.hardware_time_ns,
            flags=frozenset({"saturated"} if saturated else ()),
        )
