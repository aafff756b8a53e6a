"""What the flow controller's driver says and hears, byte for byte; the maker's client understands its emulator."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator

import pytest

from acquisition.clock import SystemClock, VirtualClock
from acquisition.devices import Limits
from acquisition.errors import DeviceFailed, LimitExceeded
from acquisition.instrument import four_quadrant
from byte_scripts import scripted
from hardware_drivers.bronkhorst import BronkhorstBus, BronkhorstFlowController
from hardware_drivers.connection import Connection
from hardware_drivers.emulators.bronkhorst import EmulatedBronkhorstBus, EmulatedFlowController
from hardware_drivers.emulators.line import Line
from hardware_drivers.propar import framed
from hardware_drivers.simulated import World

SCCM = 1e-3 * 101.325 / (8.314462618 * 273.15) / 60
LIMITS = Limits(0.0, 50 * SCCM, "oxygen.flow_limit_mol_per_s")
CLOSED = ((b":088001214300000000\r\n", b":0480000007\r\n"),)
MAKERS_CLIENT = """
import json, sys, propar, serial
master = propar.master(sys.argv[1], 38400, serial_class=serial.serial_for_url)
master.propar.mode = propar.PP_MODE_ASCII
read = lambda dde: master.read_parameters([dict(master.db.get_parameter(dde), node=3)])[0]["data"]
before = [read(dde) for dde in (8, 9, 21, 25, 129, 205)]
set_ok = master.write_parameters([dict(master.db.get_parameter(206), node=3, data=20.0)])
print(json.dumps([before, set_ok, read(206), read(9), read(205)]))
"""


class Script:
    """Requests in order, each with the driver's running index, and their answers."""

    def __init__(self) -> None:
        self._indices = iter(range(1, 32))

    def read(self, process: int, number: int, value: bytes, ask: bytes = b"") -> tuple[bytes, bytes]:
        """`number` with the bits of its type; a string's `value` begins with its length, as `ask` is."""
        index = (number & 0x60) | next(self._indices)
        asked = framed(bytes([0x80, 0x04, process, index, process, number]) + ask)
        return asked, framed(bytes([0x80, 0x02, process, index]) + value)

    def connecting(
        self, fluid: bytes = b"O2", unit: bytes = b"mln/min", mode: int = 0, capacity: bytes = b"\x42\xc8\0\0"
    ) -> Iterator[tuple[bytes, bytes]]:
        yield from CLOSED
        yield self.read(33, 0x43, b"\0\0\0\0")
        yield self.read(113, 0x63, b"\x00M6212345A\x00", b"\x00")
        yield self.read(1, 0x71, b"\x0a" + fluid.ljust(10), b"\x0a")
        yield self.read(1, 0x7F, b"\x07" + unit.ljust(7), b"\x07")
        yield self.read(1, 0x04, bytes([mode]))
        yield self.read(1, 0x4D, capacity)

    def leaving(self) -> Iterator[tuple[bytes, bytes]]:
        yield from CLOSED
        yield self.read(33, 0x43, b"\0\0\0\0")


def controller(connection: Connection, limits: Limits = LIMITS) -> BronkhorstFlowController:
    bus = BronkhorstBus(connection.address)
    bus._connection = connection
    return BronkhorstFlowController("oxygen", bus, SystemClock(), "oxygen", limits)


def test_messages_are_those_of_the_manual() -> None:
    assert framed(bytes.fromhex("030401210120")) == b":06030401210120\r\n"
    assert framed(bytes.fromhex("8001214341480000")) == b":088001214341480000\r\n"


async def test_flow_is_set_in_the_controllers_unit_and_read_back() -> None:
    script = Script()
    conversation = [
        *script.connecting(),
        (b":088001214341480000\r\n", b":0480000007\r\n"),
        script.read(33, 0x43, b"\x41\x48\0\0"),
        *script.leaving(),
    ]
    assert conversation[1][0] == b":06800421412143\r\n"
    async with scripted(*conversation) as connection, controller(connection) as connected:
        await connected.set_flow(12.5 * SCCM)
        assert "100 mln/min of O2" in connected.identification


async def test_flow_and_setpoint_are_read_with_alarm_and_control_mode() -> None:
    script = Script()
    conversation = [
        *script.connecting(),
        script.read(33, 0x40, b"\x41\x20\0\0"),
        script.read(33, 0x43, b"\x41\x48\0\0"),
        script.read(1, 0x14, b"\x00"),
        script.read(1, 0x04, b"\x00"),
        *script.leaving(),
    ]
    async with scripted(*conversation) as connection, controller(connection) as connected:
        readings = await connected.read()
    assert readings["flow_mol_per_s"].value == pytest.approx(10 * SCCM, rel=1e-4)
    assert readings["flow_setpoint_mol_per_s"].value == pytest.approx(12.5 * SCCM, rel=1e-4)


async def test_full_scale_may_be_set_however_it_is_rounded() -> None:
    script = Script()
    full = (b":088001214342C80000\r\n", b":0480000007\r\n")
    conversation = [*script.connecting(), full, script.read(33, 0x43, b"\x42\xc8\0\0"), *script.leaving()]
    wide = Limits(0.0, 1.0, "oxygen.flow_limit_mol_per_s")
    async with scripted(*conversation) as connection, controller(connection, wide) as connected:
        await connected.set_flow(7.436e-5)


@pytest.mark.parametrize(
    ("unit", "full_scale_mol_per_s"),
    [
        (b"mln/min", 100 * SCCM),
        (b"ln/min", 1e5 * SCCM),
        (b"sccm", 100 * SCCM),
        (b"slm", 1e5 * SCCM),
        (b"ln/h", 1e5 * SCCM / 60),
        (b"mls/min", 100 * SCCM * 273.15 / 293.15),
    ],
)
async def test_units_are_those_at_their_own_conditions(unit: bytes, full_scale_mol_per_s: float) -> None:
    script = Script()
    wide = Limits(0.0, 1.0, "oxygen.flow_limit_mol_per_s")
    conversation = [*script.connecting(unit=unit), *script.leaving()]
    async with scripted(*conversation) as connection, controller(connection, wide) as connected:
        with pytest.raises(LimitExceeded, match="capacity") as refusal:
            await connected.set_flow(1.0)
    assert refusal.value.limit == pytest.approx(full_scale_mol_per_s, rel=2e-3)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"fluid": b"H2"}, "oxygen, but it is a controller .* of H2"),
        ({"unit": b"g/h"}, "cannot be used in mol/s"),
        ({"capacity": b"\0\0\0\0"}, "cannot be used in mol/s"),
        ({"mode": 1}, "control mode 1 and follows no setpoint"),
    ],
)
async def test_wrong_controller_is_refused_after_its_valve_was_closed(told: dict[str, bytes], reason: str) -> None:
    async with scripted(*Script().connecting(**told)) as connection:  # type: ignore[arg-type]
        with pytest.raises(DeviceFailed, match=reason):
            await controller(connection).__aenter__()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b":0480000605\r\n", "wrong parameter value"),
        (b":0109\r\n", "error 9"),
        (b":0403000005\r\n", "is none to"),
        (b":0580000005\r\n", "is none to"),
        (b"garbage\r\n", "is none to"),
    ],
)
async def test_setpoint_that_is_not_accepted_is_told_as_gas_that_may_flow(answer: bytes, reason: str) -> None:
    async with scripted((CLOSED[0][0], answer)) as connection:
        with pytest.raises(DeviceFailed, match=f"oxygen may still flow.*{reason}"):
            await controller(connection).__aenter__()


async def test_answer_to_an_earlier_question_is_not_taken_for_this_ones() -> None:
    late = (b":06800421412143\r\n", b":0880022142" + b"00000000\r\n")
    async with scripted(*CLOSED, late) as connection:
        with pytest.raises(DeviceFailed, match="is none to"):
            await controller(connection).__aenter__()


def test_emulator_answers_as_the_manual_tells() -> None:
    world = World("flat", four_quadrant(), VirtualClock())
    bus = EmulatedBronkhorstBus(world, {3: EmulatedFlowController("nitrogen", "N2", 100.0)})
    assert bus.receive(b":06030101213E80\r\n") == b":0403000005\r\n"
    assert bus.receive(b":06030401210120\r\n") == b":06030201213E80\r\n"
    assert bus.receive(b":0703040171017") == b""
    assert bus.receive(b"10A\r\n") == b":0F030201710A4E322020202020202020\r\n"
    assert bus.receive(b":06040401210120\r\n:05030401210120\r\n") == b""
    assert world.flow_mol_per_s("nitrogen") == pytest.approx(50 * SCCM, rel=1e-4)


async def test_makers_own_client_understands_the_emulator() -> None:
    world = World("flat", four_quadrant(), VirtualClock())
    bus = EmulatedBronkhorstBus(world, {3: EmulatedFlowController("oxygen", "O2", 200.0)})
    async with Line(bus) as line:
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MAKERS_CLIENT, line.address, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await asyncio.wait_for(client.communicate(), 60)
    (measure, setpoint, capacity, fluid, unit, flow), status, told, share, flows = json.loads(printed)
    assert (measure, setpoint, capacity, flow) == (0, 0, 200.0, 0.0)
    assert (fluid.strip(), unit.strip(), status) == ("O2", "mln/min", 0)
    assert (told, share) == (20.0, 3200)
    assert flows == pytest.approx(20.0)
