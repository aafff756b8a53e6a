"""Real drivers on emulated instruments, and somebody who hears every byte that goes by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from acquisition.clock import Clock
from acquisition.devices import Limits
from hardware_drivers.emulators.line import Fault, Instrument, Line
from hardware_drivers.ostech import OsTechLaserHeater
from hardware_drivers.upp import UppPyrometer

CURRENT = Limits(0.0, 1.5, "heater.current_limit_a")
EMISSIVITY = Limits(0.02, 1.0, "pyrometer.emissivity_limits")


class Eavesdropper:
    """An instrument with somebody listening: `said` are all bytes in order, turn by turn, `>` to it, `<` from it."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self.said: list[tuple[str, bytes]] = []

    @property
    def fault(self) -> Fault:
        return self._instrument.fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._instrument.fault = fault

    def restart(self) -> None:
        self._instrument.restart()

    def receive(self, data: bytes) -> bytes:
        answer = self._instrument.receive(data)
        for turn in ((">", data), ("<", answer)):
            if turn[1]:
                self.said.append(turn)
        return answer


@asynccontextmanager
async def ostech(
    instrument: Instrument, clock: Clock, terminal: bool = False
) -> AsyncIterator[tuple[OsTechLaserHeater, Line]]:
    """The driver, not yet entered, and the line that it is on."""
    async with Line(instrument, terminal=terminal) as line:
        yield OsTechLaserHeater("heater", line.address, clock, CURRENT), line


@asynccontextmanager
async def upp(instrument: Instrument, clock: Clock, terminal: bool = False) -> AsyncIterator[tuple[UppPyrometer, Line]]:
    """The driver, not yet entered, and the line that it is on."""
    async with Line(instrument, terminal=terminal) as line:
        yield UppPyrometer("pyrometer", line.address, clock, EMISSIVITY), line
