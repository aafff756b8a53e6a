"""What a run needs of each kind of instrument: one small protocol per kind, declared by its consumer.

Every device is an async context manager: entering connects it and brings it to rest, leaving brings it to rest and
disconnects. Constructors do no input or output. A method raises `DeviceFailed` when the device does not answer in
time or answers nonsense, and `LimitExceeded` before anything is sent when a setpoint is out of bounds.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from acquisition.clock import Instant
from acquisition.errors import DeviceFailed, LimitExceeded
from acquisition.frames import Exposure
from acquisition.instrument import Instrument


@dataclass(frozen=True, slots=True)
class Reading:
    """One sampled quantity. An invalid reading has a `reason` and must never be used as a measurement."""

    value: float
    valid: bool
    instant: Instant
    reason: str = ""


Readings = Mapping[str, Reading]
"""Readings by quantity name with unit, e.g. `{"temperature_k": Reading(...)}`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Closed interval that a setpoint must lie in. `setting` names where a user changes it."""

    low: float
    high: float
    setting: str

    def check(self, value: float, what: str) -> None:
        """Raise `LimitExceeded` unless `value` is finite and inside; `what` names the setpoint with its unit."""
        if math.isfinite(value) and self.low <= value <= self.high:
            return
        limit = self.low if value < self.low else self.high
        side = "below" if value < self.low else "above"
        relation = f"{side} its limit of {limit:g}" if math.isfinite(value) else "not a finite number"
        raise LimitExceeded(
            f"{what} {value:g} is {relation} ({self.setting}); nothing was sent",
            value=value,
            limit=limit,
            setting=self.setting,
        )


def require_entered(name: str, *, entered: bool) -> None:
    """Raise `DeviceFailed` unless the device is inside its context, as everything but constructing it demands."""
    if not entered:
        raise DeviceFailed(f"{name} is not connected; enter it first (async with)")


class Device(Protocol):
    """What all kinds share. `name` is the device's name in the settings and in state channels (`name.quantity`)."""

    @property
    def name(self) -> str: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Readings:
        """Sample every quantity of the device once."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A device that has more to say than its readings: what was lost or refused, in words for people."""

    def told(self) -> Sequence[str]:
        """What there is to say since the last call, each with the way out."""
        ...


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """The raster asked of a detector. None leaves the detector's present value."""

    width_px: int
    height_px: int
    pixel_size_m: float | None = None
    dwell_time_s: float | None = None


class SegmentedDetector(Device, Protocol):
    """A scanned segmented backscattered-electron detector: configure, arm, iterate exposures, stop."""

    async def configure(self, scan: ScanRequest) -> Instrument:
        """Set the scan up and return the instrument as it will really be used."""
        ...

    async def arm(self) -> None: ...

    def exposures(self, count: int | None) -> AsyncIterator[Exposure]:
        """Yield `count` exposures, or without end for None. Closing the iterator stops the scan."""
        ...

    async def stop(self) -> None:
        """Stop scanning and blank the beam where possible; harmless when nothing scans."""
        ...


@dataclass(frozen=True, slots=True)
class StagePosition:
    x_m: float
    y_m: float
    z_m: float = 0.0


class Stage(Device, Protocol):
    """Reads `x_m`, `y_m`, `z_m`, `moving` (0 or 1)."""

    async def move(self, target: StagePosition) -> StagePosition:
        """Move and verify; returns where the stage really stands."""
        ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class HeaterStatus:
    """Read back from the device, never from what was last sent."""

    emission_on: bool
    interlock_closed: bool
    current_a: float
    current_target_a: float


class LaserHeater(Device, Protocol):
    """Reads `current_a`, `current_target_a`, `emission` (0 or 1), `interlock` (1 is closed, good).

    One that knows its own faults also reads `healthy`, which is invalid with them in words: the permit needs it then.
    """

    async def arm(self) -> None:
        """Allow emission at the present current target (which is 0 after connecting)."""
        ...

    async def set_current(self, current_a: float) -> None: ...

    async def off(self) -> None:
        """Stop emission, then set the current target to 0. Always permitted, harmless when off."""
        ...

    async def status(self) -> HeaterStatus: ...


@runtime_checkable
class ConstantPower(Protocol):
    """A laser heater that can also hold its optical power, reads `power_w`: what a diode gives at a current falls as it
    warms and ages, and a pyrometer with a wrong emissivity cannot tell. The current limit holds in this mode too."""

    async def set_power(self, power_w: float) -> None:
        """Hold this power, until a current is set or the laser is off. Neither starts nor ends emission."""
        ...


class Pyrometer(Device, Protocol):
    """Reads `temperature_k`, `emissivity`. Over-range or not-ready answers are invalid readings."""

    async def set_emissivity(self, emissivity: float) -> None: ...


class MassFlowController(Device, Protocol):
    """Reads `flow_mol_per_s`, `flow_setpoint_mol_per_s`. One controller per gas."""

    @property
    def gas(self) -> str: ...

    async def set_flow(self, flow_mol_per_s: float) -> None: ...


class PressureGauge(Device, Protocol):
    """Reads `pressure_pa`. `technology` is `capacitance` or `pirani`; only the former may guard an interlock."""

    @property
    def technology(self) -> str: ...
