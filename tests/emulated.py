"""Real drivers on emulated instruments, and somebody who hears every byte that goes by."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from acquisition.clock import Clock
from acquisition.devices import Limits
from hardware_drivers.emulators.line import Fault, Instrument, Line
from hardware_drivers.ostech import OsTechLaserHeater
from hardware_drivers.upp import UppPyrometer

TERMINALS = os.name == "posix"
CURRENT = Limits(0.0, 1.5, "heater.current_limit_a")
POWER = Limits(0.0, 26.0, "heater.power_limit_w")
EMISSIVITY = Limits(0.02, 1.0, "pyrometer.emissivity_limits")


class Eavesdropper:
    """An instrument with somebody listening: `said` are all bytes in order, turn by turn, `>` to it, `<` from it."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.said: list[tuple[str, bytes]] = []

    @property
    def fault(self) -> Fault:
        return self.instrument.fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self.instrument.fault = fault

    def restart(self) -> None:
        self.instrument.restart()

    def receive(self, data: bytes) -> bytes:
        answer = self.instrument.receive(data)
        for turn in ((">", data), ("<", answer)):
            if turn[1]:
                self.said.append(turn)
        return answer


@asynccontextmanager
async def ostech(
    instrument: Instrument, clock: Clock, terminal: bool = TERMINALS
) -> AsyncIterator[tuple[OsTechLaserHeater, Line]]:
    """The driver, not yet entered, and the line that it is on: a terminal where there are any, as a serial port is."""
    async with Line(instrument, terminal=terminal) as line:
        yield OsTechLaserHeater("heater", line.address, clock, CURRENT), line


@asynccontextmanager
async def upp(instrument: Instrument, clock: Clock) -> AsyncIterator[tuple[UppPyrometer, Line]]:
    """As `ostech`, always on TCP: terminals know no parity."""
    async with Line(instrument) as line:
        yield UppPyrometer("pyrometer", line.address, clock, EMISSIVITY), line
