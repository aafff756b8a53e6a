"""A whole lab for tests: the acquisition program on the real drivers, whose instruments are emulated beside it."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from acquisition.clock import SystemClock
from acquisition.errors import BadInput
from emulated import Eavesdropper
from hardware_drivers.emulators.lab import EmulatedLab
from hardware_drivers.simulated import World
from programs import Laboratory, free_ports, write_settings
from service import wiring
from service.settings import load_settings

INSTRUMENT = Path(__file__).parents[1] / "deploy" / "tescan-4q.toml"
GASES = {"hydrogen": 3, "oxygen": 4}


def two_ports_in_a_row() -> int:
    """The first of two free ones, as SharkSEM wants them."""
    while True:
        (port,) = free_ports(1)
        with socket.socket() as next_one:
            if port < 65535 and next_one.connect_ex(("127.0.0.1", port + 1)) != 0:
                return port


def write_lab_settings(folder: Path, size_px: int = 32, *, pi_stage: bool = False, **tables: str) -> Path:
    """A settings file for a whole lab on free ports; the stage is the microscope's, or one of PI."""
    heater, pyrometer, gauge, bus, stage = (f'address = "socket://127.0.0.1:{port}"' for port in free_ports(5))
    microscope = f'kind = "sharksem"\naddress = "127.0.0.1:{two_ports_in_a_row()}"'
    gases = ", ".join(f'{{kind = "bronkhorst", gas = "{gas}", {bus}, node = {node}}}' for gas, node in GASES.items())
    pi = f'kind = "gcs2"\n{stage}\naxes = {{x = "1", y = "2", z = "3"}}'
    path = write_settings(
        folder,
        size_px,
        **{
            "microscope": 'kind = "emulated"\nscene = "flat"',
            "instruments": f"gases = [{gases}]",
            "instruments.detector": microscope,
            "instruments.stage": pi if pi_stage else microscope,
            "instruments.heater": f'kind = "ostech"\n{heater}',
            "instruments.pyrometer": f'kind = "upp"\n{pyrometer}',
            "instruments.gauge": f'kind = "mnemonic"\n{gauge}\ntechnology = "capacitance"',
            **tables,
        },
    )
    path.write_text(f'instrument = "{INSTRUMENT.as_posix()}"\n{path.read_text(encoding="utf-8")}', encoding="utf-8")
    return path


@dataclass(frozen=True, slots=True)
class Site:
    """`heard` by role: all that went over its line, each way."""

    lab: EmulatedLab
    laboratory: Laboratory
    heard: dict[str, Eavesdropper]

    @property
    def world(self) -> World:
        return self.lab.world

    @property
    def laser_on(self) -> bool:
        return self.world.laser_emitting or self.world.laser_target_a > 0


def listen_in(lab: EmulatedLab) -> dict[str, Eavesdropper]:
    """From now on."""
    ears = {id(line): Eavesdropper(line.instrument) for line in lab.lines.values()}
    for line in lab.lines.values():
        line.instrument = ears[id(line)]
    return {role: ears[id(line)] for role, line in lab.lines.items()}


def told(ear: Eavesdropper) -> bytes:
    """All that the instrument was told."""
    return b"".join(data for way, data in ear.said if way == ">")


def matches(pattern: bytes, ears: Iterable[Eavesdropper]) -> list[bytes]:
    return [match[0] for ear in ears for match in re.finditer(pattern, told(ear))]


@asynccontextmanager
async def site(folder: Path, *, pi_stage: bool = False, **tables: str) -> AsyncIterator[Site]:
    """All devices connected, nothing on."""
    async with AsyncExitStack() as stack:
        lab = await _served(stack, folder, pi_stage, tables)
        heard = listen_in(lab)
        laboratory = await stack.enter_async_context(Laboratory(folder / "settings.toml"))
        here = Site(lab, laboratory, heard)
        await laboratory.until(lambda: all(at.connected for at in laboratory.program.node.state.connections.values()))
        yield here


async def _served(stack: AsyncExitStack, folder: Path, pi_stage: bool, tables: dict[str, str]) -> EmulatedLab:
    """On other ports when one of those was taken meanwhile."""
    for tries_left in reversed(range(5)):
        settings = load_settings(write_lab_settings(folder, pi_stage=pi_stage, **tables))
        try:
            return await stack.enter_async_context(wiring.emulated_instruments(settings, SystemClock()))
        except BadInput:
            if not tries_left:
                raise
    raise AssertionError
