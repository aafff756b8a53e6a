"""The bytes of TESCAN's SharkSEM protocol, without any socket: headers, bodies, and the chunks of a scan."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import MessageRejected

HEADER_BYTES = 32
LONGEST_COMMAND = 15
DIGITS = 12
"""Of a float that is sent; all 17 would only spell out what 0.4 is in binary."""
MOST_REPLY_BYTES = 1 << 20
MOST_DATA_BYTES = 1 << 25

_HEADER = struct.Struct("<16sIIHHI")
_UNSIGNED = struct.Struct("<I")
_SIGNED = struct.Struct("<i")
_LONGEST_NUMBER = 64
_PIXELS = {8: "u1", 16: "<u2"}

ByteOrder = Literal["little", "big"]
"""Of a pixel of 16 bits; all else of the protocol is little-endian."""
Argument = int | float | str | bytes | Sequence[int]


class Flags(IntFlag):
    """What a request asks of the server: to answer whatever it is, and to wait until a part of the microscope idles."""

    NONE = 0
    ANSWER = 1 << 0
    WAIT_SCAN = 1 << 8
    WAIT_STAGE = 1 << 9
    WAIT_OPTICS = 1 << 10
    WAIT_AUTOMATIC = 1 << 11


@dataclass(frozen=True, slots=True)
class Header:
    """`body_bytes` counts the padding; a reply has the command and the identifier of its request."""

    command: str
    body_bytes: int
    identifier: int
    flags: int = 0

    def encode(self) -> bytes:
        return _HEADER.pack(self.command.encode("ascii"), self.body_bytes, self.identifier, self.flags, 0, 0)

    @classmethod
    def decode(cls, data: bytes, most_bytes: int) -> Self:
        """Raises `MessageRejected` for what is no header, and for a body above `most_bytes`."""
        if len(data) != HEADER_BYTES:
            raise MessageRejected(f"a header of {len(data)} bytes: {HEADER_BYTES} are needed")
        name, body_bytes, identifier, flags, _, _ = _HEADER.unpack(data)
        command, _, rest = name.partition(b"\0")
        if not command or len(command) > LONGEST_COMMAND or not command.isalnum() or rest.strip(b"\0"):
            raise MessageRejected(f"no command: {name!r}")
        if body_bytes > most_bytes:
            raise MessageRejected(f"{command.decode()} announces {body_bytes} bytes; at most {most_bytes} are taken")
        return cls(command.decode("ascii"), body_bytes, identifier, flags)


def encode_message(command: str, body: bytes, identifier: int, flags: int = Flags.NONE) -> bytes:
    """Raises `ValueError` for a command of more than 15 characters."""
    if not 0 < len(command) <= LONGEST_COMMAND:
        raise ValueError(f"command {command!r} must have 1 to {LONGEST_COMMAND} characters")
    return Header(command, len(body), identifier, int(flags)).encode() + body


def encode_body(*arguments: Argument, rounded_counts: bool = False) -> bytes:
    """Integers as they are, floats as text, texts with their NUL, arrays with their length in bytes.

    `rounded_counts`: count the padding too, as the maker's own client does.
    """
    return b"".join(_encode(argument, rounded_counts) for argument in arguments)


class Body:
    """Reads a body from front to back. Every method raises `MessageRejected` for what is not there or is not that.

    What lies behind the last value that is asked for is let be: later versions append.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return max(len(self._data) - self._at, 0)

    def integer(self) -> int:
        value: int = _SIGNED.unpack(self._take(4))[0]
        return value

    def unsigned(self) -> int:
        value: int = _UNSIGNED.unpack(self._take(4))[0]
        return value

    def number(self) -> float:
        """A float, which travels as text; finite."""
        text = self.text()
        try:
            value = float(text) if len(text) <= _LONGEST_NUMBER and "_" not in text else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise MessageRejected(f"{text[:_LONGEST_NUMBER]!r} is no finite number")
        return value

    def text(self) -> str:
        """Up to the NUL, whether the count includes the padding or not."""
        try:
            return self.bytes().partition(b"\0")[0].decode("utf-8")
        except UnicodeDecodeError as error:
            raise MessageRejected(f"a text is not UTF-8: {error}") from None

    def bytes(self) -> bytes:
        count = self.unsigned()
        data = bytes(self._take(count))
        self._at += -count % 4
        return data

    def integers(self) -> tuple[int, ...]:
        data = self.bytes()
        if len(data) % 4:
            raise MessageRejected(f"an array of {len(data)} bytes holds no whole number of integers")
        return struct.unpack(f"<{len(data) // 4}i", data)

    def _take(self, count: int) -> memoryview:
        if count > self.left:
            raise MessageRejected(f"the body ends {count - self.left} bytes early, at {len(self._data)} bytes")
        self._at += count
        return self._data[self._at - count : self._at]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive pixels of one channel of one frame. `pixels`: (N,) uint16, or uint8 from a channel of 8 bits.

    Those of 16 bits are read with their low byte first; `swapped` is for whoever knows better.
    """

    frame: int
    channel: int
    first_pixel: int
    pixels: NDArray[np.uint8] | NDArray[np.uint16]

    def encode(self) -> bytes:
        """The body of a `ScData`."""
        bits = 8 * self.pixels.itemsize
        data = self.pixels.astype(_PIXELS[bits], copy=False).tobytes()
        return encode_body(self.frame, self.channel, self.first_pixel, bits, data)

    def swapped(self) -> Chunk:
        """The same with the two bytes of each pixel exchanged."""
        return replace(self, pixels=self.pixels.byteswap())

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Raises `MessageRejected`, also for pixels of other than 8 or 16 bits."""
        reader = Body(body)
        frame, channel, first_pixel, bits = (reader.unsigned() for _ in range(4))
        data = reader.bytes()
        if bits not in _PIXELS or 8 * len(data) % bits:
            raise MessageRejected(f"a chunk of {len(data)} bytes has {bits} bits a pixel")
        pixels = np.frombuffer(data, _PIXELS[bits])
        return cls(frame, channel, first_pixel, pixels.astype(pixels.dtype.newbyteorder("="), copy=False))


def _encode(argument: Argument, rounded_counts: bool) -> bytes:
    if isinstance(argument, int):
        return (_SIGNED if argument < 0 else _UNSIGNED).pack(argument)
    if isinstance(argument, float):
        data = f"{float(f'{argument:.{DIGITS}g}')}\0".encode("ascii")
    elif isinstance(argument, str):
        data = f"{argument}\0".encode()
    elif isinstance(argument, bytes):
        data = argument
    else:
        data = struct.pack(f"<{len(argument)}i", *argument)
    padded = data + bytes(-len(data) % 4)
    return _UNSIGNED.pack(len(padded if rounded_counts else data)) + padded
