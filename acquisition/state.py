"""Samples every device in turn, remembers what was read, and joins it to frames by time."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from acquisition.clock import Clock, Instant
from acquisition.devices import Device, Reading, Telling
from acquisition.errors import EclipsError
from acquisition.frames import JoinedValue

log = logging.getLogger(__name__)

SAMPLE_INTERVAL_S = 0.25
READ_TIMEOUT_S = 2.0
RECONNECT_AFTER_S = 1.0
REMEMBERED_SAMPLES = 2400

SampleTaker = Callable[[str, Reading], None]
"""Called with `device.quantity` and its reading, for every sample."""

DeviceTell = Callable[[str, str], None]
"""Called with a device's name and what it has to say."""


@dataclass(slots=True)
class Connection:
    """Whether a device is there, and if not, why; how often it came, and what it has read since the start."""

    connected: bool = False
    reason: str = "not connected yet"
    connects: int = 0
    readings: int = 0
    invalid_readings: int = 0


class StateKeeper:
    """Holds the devices connected and their latest readings at hand. One task per device: a silent one delays none.

    A device that fails is left, its channels become invalid at once, and it is entered again every second.
    """

    def __init__(
        self,
        devices: Mapping[str, Device],
        clock: Clock,
        take_sample: SampleTaker,
        tell: DeviceTell = lambda name, text: log.warning("%s: %s", name, text),
    ) -> None:
        self._devices = dict(devices)
        self._clock = clock
        self._take_sample = take_sample
        self._tell = tell
        self._histories: dict[str, deque[Reading]] = {}
        self.connections = {name: Connection() for name in self._devices}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to sample; returns once every device answered or failed for the first time."""
        first_rounds = {name: asyncio.Event() for name in self._devices}
        self._tasks = [
            asyncio.create_task(self._keep(device, first_rounds[name]), name=f"sample {name}")
            for name, device in self._devices.items()
        ]
        await asyncio.gather(*(event.wait() for event in first_rounds.values()))

    async def stop(self) -> None:
        """Leave every device; each brings itself to rest as it is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def latest(self) -> dict[str, Reading]:
        """The newest reading of every channel."""
        return {channel: history[-1] for channel, history in self._histories.items() if history}

    def join(self, start: Instant, end: Instant) -> dict[str, JoinedValue]:
        """Every channel at the middle of an exposure, interpolated between the samples around it."""
        middle_ns = (start.monotonic_ns + end.monotonic_ns) // 2
        return {channel: _at(list(history), middle_ns) for channel, history in self._histories.items() if history}

    async def _keep(self, device: Device, first_round: asyncio.Event) -> None:
        connection = self.connections[device.name]
        while True:
            told: Exception | None = None
            try:
                async with device:
                    connection.connected, connection.reason = True, ""
                    connection.connects += 1
                    try:
                        while True:
                            await self._sample(device)
                            first_round.set()
                            await asyncio.sleep(SAMPLE_INTERVAL_S)
                    except Exception as error:  # told before the device is left, which may take as long again
                        told = error
                        self._lose(device.name, error)
                        raise
            except Exception as error:
                if error is not told:
                    self._lose(device.name, error)
            first_round.set()
            await asyncio.sleep(RECONNECT_AFTER_S)

    async def _sample(self, device: Device) -> None:
        async with asyncio.timeout(READ_TIMEOUT_S):
            readings = await device.read()
        for text in device.told() if isinstance(device, Telling) else ():
            self._tell(device.name, text)
        connection = self.connections[device.name]
        for quantity, reading in readings.items():
            connection.readings += 1
            connection.invalid_readings += not reading.valid
            self._remember(f"{device.name}.{quantity}", reading)

    def _lose(self, name: str, error: Exception) -> None:
        if isinstance(error, EclipsError | TimeoutError | OSError):
            reason = str(error) or f"{name} did not answer within {READ_TIMEOUT_S:g} s"
            log.warning("%s: %s", name, reason)
        else:  # a driver that is wrong costs its own device and nothing else
            reason = f"its driver failed: {type(error).__name__}: {error}"
            log.error("%s: its driver failed in a way nobody foresaw", name, exc_info=error)
        connection = self.connections[name]
        connection.connected, connection.reason = False, reason
        lost = Reading(0.0, False, self._clock.now(), reason)
        for channel in [channel for channel in self._histories if channel.startswith(f"{name}.")]:
            self._remember(channel, lost)

    def _remember(self, channel: str, reading: Reading) -> None:
        self._histories.setdefault(channel, deque(maxlen=REMEMBERED_SAMPLES)).append(reading)
        self._take_sample(channel, reading)


def _at(history: list[Reading], middle_ns: int) -> JoinedValue:
    times = [reading.instant.monotonic_ns for reading in history]
    after = bisect_left(times, middle_ns)
    around = history[max(0, after - 1) : after + 1]
    nearest = min(around, key=lambda reading: abs(reading.instant.monotonic_ns - middle_ns))
    age_s = abs(nearest.instant.monotonic_ns - middle_ns) / 1e9
    if not all(reading.valid for reading in around):
        return JoinedValue(None, False, age_s)
    if len(around) == 1:
        return JoinedValue(around[0].value, True, age_s)
    first, second = around
    span_ns = second.instant.monotonic_ns - first.instant.monotonic_ns
    share = (middle_ns - first.instant.monotonic_ns) / span_ns if span_ns else 0.0
    return JoinedValue(first.value + share * (second.value - first.value), True, age_s)
