"""Bronkhorst mass flow controllers on one bus, answering ProPar in ASCII and letting gas into the simulated chamber."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from hardware_drivers.emulators.line import Fault
from hardware_drivers.simulated.world import World

MOL_PER_NORMAL_LITRE = 101325.0 * 1e-3 / (8.314462618 * 273.15)
MOL_PER_S = {"mln/min": 1e-3 * MOL_PER_NORMAL_LITRE / 60, "ln/min": MOL_PER_NORMAL_LITRE / 60}
WRITE_WITH_STATUS, WRITE, REQUEST = 0x01, 0x02, 0x04
BYTE, INTEGER, LONG, STRING = 0x00, 0x20, 0x40, 0x60
OK, UNKNOWN_PARAMETER, WRONG_VALUE, READ_ONLY = 0x00, 0x04, 0x06, 0x0D
HARDWARE_ALARM = 0x80
FULL_SCALE = 32000
HIGHEST_SHARE = 1.31
BUS_SETPOINT = 0
MESSAGE = re.compile(rb":([0-9A-Fa-f]+)\r\n")


@dataclass(slots=True)
class EmulatedFlowController:
    """One node: `gas` is the world's name, `fluid` what the instrument calls it, `capacity` its 100 % in `unit`.

    `obeys` False acknowledges a setpoint and keeps the old one; `flow_shown` (in `unit`) replaces the measured flow;
    `alarm` is the alarm info byte; `control_mode` other than 0 follows another source than the bus.
    """

    gas: str
    fluid: str
    capacity: float
    unit: str = "mln/min"
    serial_number: str = "M6212345A"
    setpoint: float = 0.0
    obeys: bool = True
    flow_shown: float | None = None
    alarm: int = 0
    control_mode: int = BUS_SETPOINT
    silent: bool = False


class EmulatedBronkhorstBus:
    """`nodes` by address. A node that is absent or silent answers nothing, as on the real bus.

    `Fault.OVER_RANGE` shows more flow than can be, `SENSOR` raises the hardware alarm, `REFUSING` takes no setpoint.
    """

    def __init__(self, world: World, nodes: Mapping[int, EmulatedFlowController]) -> None:
        self._world = world
        self.nodes = dict(nodes)
        self.fault = Fault.NONE
        self._received = b""

    def restart(self) -> None:
        self._received = b""

    def receive(self, data: bytes) -> bytes:
        self._received += data
        answers = b""
        while b"\r\n" in self._received:
            message, _, self._received = self._received.partition(b"\r\n")
            whole = MESSAGE.fullmatch(message + b"\r\n")
            answers += self._obey(bytes.fromhex(whole[1].decode())) if whole and len(whole[1]) % 2 == 0 else b""
        return answers

    def _obey(self, message: bytes) -> bytes:
        node = self.nodes.get(message[1]) if len(message) >= 5 and message[0] == len(message) - 1 else None
        if node is None or node.silent:
            return b""
        address, command, body = message[1], message[2], message[3:]
        if command == REQUEST:
            return self._tell(address, node, body)
        if command == WRITE_WITH_STATUS:
            return _framed(bytes([address, 0x00, self._write(node, body), len(message) - 2]))
        if command == WRITE:
            self._write(node, body)
        return b""

    def _tell(self, address: int, node: EmulatedFlowController, body: bytes) -> bytes:
        process_back, index_back, process, number = body[:4]
        value = self._values(node).get((process, number & 0x1F))
        if value is None:
            return _framed(bytes([address, 0x00, UNKNOWN_PARAMETER, 0x05]))
        if number & STRING == STRING:
            length = body[4]
            text = value + b"\x00" if length == 0 else value[:length].ljust(length)
            value = bytes([length]) + text
        return _framed(bytes([address, WRITE, process_back, index_back]) + value)

    def _values(self, node: EmulatedFlowController) -> dict[tuple[int, int], bytes]:
        share = self._flow(node) / node.capacity
        measure = round(FULL_SCALE * min(max(share, 0.0), HIGHEST_SHARE)) if math.isfinite(share) else 0
        return {
            (1, 0): struct.pack(">H", measure),
            (1, 1): struct.pack(">H", round(FULL_SCALE * node.setpoint / node.capacity)),
            (1, 4): bytes([node.control_mode]),
            (1, 13): struct.pack(">f", node.capacity),
            (1, 17): node.fluid.encode(),
            (1, 20): bytes([HARDWARE_ALARM if self.fault is Fault.SENSOR else node.alarm]),
            (1, 31): node.unit.encode(),
            (33, 0): struct.pack(">f", self._flow(node)),
            (33, 3): struct.pack(">f", node.setpoint),
            (113, 3): node.serial_number.encode(),
        }

    def _write(self, node: EmulatedFlowController, body: bytes) -> int:
        process, number, value = body[0], body[1], body[2:]
        if (process, number) == (33, 3 | LONG):
            setpoint = float(struct.unpack(">f", value)[0])
        elif (process, number) == (1, 1 | INTEGER):
            setpoint = node.capacity * int(struct.unpack(">H", value)[0]) / FULL_SCALE
        else:
            return READ_ONLY if (process, number & 0x1F) in self._values(node) else UNKNOWN_PARAMETER
        if self.fault is Fault.REFUSING:
            return WRONG_VALUE
        if node.obeys:
            node.setpoint = setpoint
            self._world.set_flow(node.gas, setpoint * MOL_PER_S[node.unit])
        return OK

    def _flow(self, node: EmulatedFlowController) -> float:
        if node.flow_shown is not None:
            return node.flow_shown
        if self.fault is Fault.OVER_RANGE:
            return 1.4 * node.capacity
        return self._world.flow_mol_per_s(node.gas) / MOL_PER_S[node.unit]


def _framed(message: bytes) -> bytes:
    return b":" + bytes([len(message), *message]).hex().upper().encode() + b"\r\n"
