"""ProPar, the protocol of Bronkhorst instruments, in ASCII: several nodes on one bus that shares one port.

The maker's library (bronkhorst-propar) is used by a test only: it tells silence as None or False, reopens a lost port
by itself, and cannot end its threads, where gas needs each failure told and each port closed.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from dataclasses import dataclass

from acquisition.errors import DeviceFailed
from hardware_drivers.connection import Connection

ANSWERS_WITHIN_S = 0.8
"""For a busy computer. The others on a bus wait for a silent node this long, and again for its line to be quiet, and
still answer within the 2 s after which a reading is lost."""
WRITE_WITH_STATUS, ANSWER, REQUEST, STATUS = 0x01, 0x02, 0x04, 0x00
STATUSES = {
    1: "process claimed",
    2: "command error",
    3: "unknown process",
    4: "unknown parameter",
    5: "wrong parameter type",
    6: "wrong parameter value",
    7: "network is not active",
    8: "timeout at the start character",
    9: "timeout on the serial line",
    10: "hardware memory error",
    11: "wrong node number",
    12: "general communication error",
    13: "parameter is read-only",
    14: "error in the communication with the computer",
    15: "no RS232 connection",
}
BYTE, FLOAT, STRING = 0x00, 0x40, 0x60
SIZES = {BYTE: 1, FLOAT: 4}


@dataclass(frozen=True, slots=True)
class Parameter:
    """Process, number and type (manual 9.17.027). A string has the `length` asked for; 0 is up to its NUL."""

    process: int
    number: int
    kind: int
    what: str
    length: int = 0


class BronkhorstBus:
    """The port that controllers share (serial 8N1, or a TCP converter), open while any of them is entered.

    A node that fails costs the others nothing but its timeout: the next exchange begins on a fresh port. Answers carry
    the node and a running index of the question, so that a late one is never taken for another's.
    """

    def __init__(self, address: str, *, baud: int = 38400, timeout_s: float = ANSWERS_WITHIN_S) -> None:
        self._connection = Connection(address, baud=baud, timeout_s=timeout_s)
        self._members: set[str] = set()
        self._lock = asyncio.Lock()
        self._indices = itertools.cycle((*range(1, 32), 0))

    @property
    def address(self) -> str:
        return self._connection.address

    async def join(self, member: str) -> None:
        async with self._lock:
            if not self._connection.in_step:
                await self._connection.open()
            self._members.add(member)

    async def leave(self, member: str) -> None:
        async with self._lock:
            self._members.discard(member)
            if not self._members:
                await self._connection.close()

    async def read_number(self, node: int, parameter: Parameter) -> float:
        """The value of a byte or float. Raises `DeviceFailed`."""
        value = await self._read(node, parameter)
        return float(value[0]) if parameter.kind == BYTE else float(struct.unpack(">f", value)[0])

    async def read_text(self, node: int, parameter: Parameter) -> str:
        """A string without its padding. Raises `DeviceFailed`."""
        return (await self._read(node, parameter)).partition(b"\0")[0].decode("ascii", "replace").rstrip()

    async def write(self, node: int, parameter: Parameter, value: float) -> None:
        """Set a float and wait for its status. Raises `DeviceFailed` unless that is good."""
        sent = bytes([node, WRITE_WITH_STATUS, parameter.process, parameter.kind | parameter.number])
        async with self._lock:
            await self._exchange(node, f"writing {parameter.what}", sent + struct.pack(">f", value), b"")

    async def _read(self, node: int, parameter: Parameter) -> bytes:
        async with self._lock:
            index = parameter.kind | next(self._indices)
            asked = [node, REQUEST, parameter.process, index, parameter.process, parameter.kind | parameter.number]
            length = [parameter.length] if parameter.kind == STRING else []
            begins = bytes([node, ANSWER, parameter.process, index])
            answer = await self._exchange(node, f"reading {parameter.what}", bytes([*asked, *length]), begins)
        value, size = (answer[1:], answer[:1]) if parameter.kind == STRING else (answer, bytes([SIZES[parameter.kind]]))
        if not value or (len(value) != size[0] and size != b"\0"):
            raise DeviceFailed(f"node {node} at {self.address} answered {answer!r} when reading {parameter.what}")
        return value

    async def _exchange(self, node: int, doing: str, sent: bytes, begins: bytes) -> bytes:
        """What follows `begins` in the answer. Where `begins` is empty a good status is the answer."""
        try:
            if not self._connection.in_step:
                await self._connection.open()
            came = await self._connection.ask(framed(sent), b"\r\n")
        except DeviceFailed as failure:
            raise DeviceFailed(f"node {node} failed in {doing}: {failure}") from failure
        message = _unframed(came)
        if message[:2] == bytes([node, STATUS]) and len(message) == 4:
            if message[2] == 0 and not begins:
                return b""
            reason = STATUSES.get(message[2], f"status {message[2]}")
        elif begins and message.startswith(begins):
            return message[len(begins) :]
        elif len(message) == 1:
            reason = f"the interface reports error {message[0]}, no such node or a broken message"
        else:
            await self._connection.close()
            reason = f"the answer {came!r} is none to {framed(sent)!r}: check baud rate and wiring"
        raise DeviceFailed(f"node {node} at {self.address} failed in {doing}: {reason}")


def framed(message: bytes) -> bytes:
    """`:`, the number of bytes that follow, they themselves in hexadecimal, CR LF (manual 9.17.027, ASCII mode)."""
    return b":" + bytes([len(message), *message]).hex().upper().encode() + b"\r\n"


def _unframed(came: bytes) -> bytes:
    """The bytes behind the length, or none where the line is no whole message."""
    try:
        content = bytes.fromhex(came[1:].decode("ascii")) if came.startswith(b":") else b""
    except ValueError:
        return b""
    return content[1:] if content and content[0] == len(content) - 1 else b""
