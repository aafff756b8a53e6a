"""All instruments of a settings file, emulated on one world and served where its drivers look for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from acquisition.errors import BadInput, DeviceFailed
from hardware_drivers.emulators.bronkhorst import EmulatedBronkhorstBus, EmulatedFlowController
from hardware_drivers.emulators.gcs2 import EmulatedAxis, EmulatedGcs2
from hardware_drivers.emulators.line import Fault, Instrument, Line
from hardware_drivers.emulators.mnemonic_gauge import EmulatedMnemonicGauge
from hardware_drivers.emulators.ostech import OsTechEmulator
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.emulators.upp import UppEmulator
from hardware_drivers.instruments import Instruments, PiStageEntry, SharkSemDetectorEntry, SharkSemStageEntry
from hardware_drivers.simulated.world import World

FLUIDS = {"hydrogen": "H2", "oxygen": "O2", "argon": "Ar", "nitrogen": "N2", "methane": "CH4"}
FULL_SCALE_SCCM = 200.0
GAUGE_TYPES = {"capacitance": "CDG", "pirani": "PSG"}


class EmulatedLab:
    """Serves while entered. `lines` by role, such as `heater`, or `hydrogen` for the bus that it is on; what goes over
    SharkSEM is `microscope`. Instruments change one world: a current set at the laser heats what the pyrometer sees.

    Raises `BadInput` for an address that is not on this machine or is no TCP port, and for one that is taken.
    """

    def __init__(self, world: World, instruments: Instruments) -> None:
        self.world = world
        self.microscope: SharkSemEmulator | None = None
        self.lines: dict[str, Line] = {}
        self._served: list[Line] = []
        self._stack = AsyncExitStack()
        for address in _sharksem_addresses(instruments):
            host, port = _host_and_port(address)
            self.microscope = SharkSemEmulator(world, host, port)
            if isinstance(instruments.detector, SharkSemDetectorEntry):
                self.microscope.byte_order = instruments.detector.byte_order
        for roles, address, instrument in _instruments(world, instruments):
            host, port = _host_and_port(address)
            line = Line(instrument, host=host, port=port)
            self.lines |= dict.fromkeys(roles, line)
            self._served.append(line)

    @property
    def addresses(self) -> dict[str, str]:
        """Where each role is served."""
        found = {role: line.address for role, line in self.lines.items()}
        return {"microscope": self.microscope.address, **found} if self.microscope else found

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                # First, as loading its rendering takes seconds in which a line would be slow to answer.
                if self.microscope is not None:
                    await stack.enter_async_context(self.microscope)
                for line in self._served:
                    await stack.enter_async_context(line)
            except (OSError, DeviceFailed) as error:
                raise BadInput(f"an emulator cannot be served: {error}; is another lab running here?") from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def misbehave(self, role: str, fault: str) -> None:
        """Let the instrument of a role misbehave from now on; `none` ends it. Raises `BadInput` for unknown ones."""
        if role not in self.lines:
            raise BadInput(f"{role!r} is not emulated on a line here; there are {', '.join(self.lines)}")
        if fault not in list(Fault):
            raise BadInput(f"{fault!r} is no fault; known: {', '.join(Fault)}")
        self.lines[role].fault = Fault(fault)

    @property
    def in_use(self) -> bool:
        """Whether somebody is on a line."""
        return any(line.connected for line in self._served)


def _sharksem_addresses(instruments: Instruments) -> set[str]:
    named = (instruments.detector, instruments.stage)
    found = {one.address for one in named if isinstance(one, SharkSemDetectorEntry | SharkSemStageEntry)}
    if len(found) > 1:
        raise BadInput(f"detector and stage name two TESCAN microscopes ({', '.join(sorted(found))}): one is emulated")
    return found


def _instruments(world: World, named: Instruments) -> Iterator[tuple[tuple[str, ...], str, Instrument]]:
    """Roles, address and emulator of everything on a line of its own or on a bus."""
    if isinstance(named.stage, PiStageEntry):
        axes = {axis: EmulatedAxis(f"{name}_m") for name, axis in named.stage.axes.items()}
        yield ("stage",), named.stage.address, EmulatedGcs2(world, axes)
    if named.heater:
        yield ("heater",), named.heater.address, OsTechEmulator(world)
    if named.pyrometer:
        yield ("pyrometer",), named.pyrometer.address, UppEmulator(world, station=named.pyrometer.station)
    if named.gauge:
        gauges = ("noSEn",) * (named.gauge.channel - 1) + (GAUGE_TYPES[named.gauge.technology],)
        yield ("gauge",), named.gauge.address, EmulatedMnemonicGauge(world, gauges)
    for address in dict.fromkeys(entry.address for entry in named.gases):
        on_bus = [entry for entry in named.gases if entry.address == address]
        nodes = {
            entry.node: EmulatedFlowController(entry.gas, FLUIDS.get(entry.gas, entry.gas), FULL_SCALE_SCCM)
            for entry in on_bus
        }
        yield tuple(entry.gas for entry in on_bus), address, EmulatedBronkhorstBus(world, nodes)


def _host_and_port(address: str) -> tuple[str, int]:
    """Of `socket://host:port`, or SharkSEM's plain `host:port`."""
    parts = urlsplit(address if "://" in address else f"socket://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "socket" or host not in ("127.0.0.1", "localhost") or not port:
        raise BadInput(
            f"an emulator is served on this machine's TCP ports: give socket://127.0.0.1:PORT, not {address}"
        )
    return "127.0.0.1", port
