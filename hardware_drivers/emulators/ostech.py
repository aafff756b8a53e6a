"""An OsTech laser diode driver that heats the simulated specimen."""

from __future__ import annotations

import re
import struct

from hardware_drivers.emulators.line import Fault
from hardware_drivers.simulated.world import World

ESC, BACKSPACE, CR = 0x1B, 0x08, 0x0D
LONGEST_LINE = 14
ECHO_OFF, BINARY, REDUCED = 0x0002, 0x0008, 0x8000
ALL_GOOD = 0x0001 | 0x0004 | 0x0008 | 0x0400 | 0x0800
INTERLOCK, LASER_SENSOR, TOO_HOT, EMITTING = 0x0001, 0x0400, 0x2000, 0x4000
FIRST_LIMIT_MA = 5000.0
IMPOSSIBLE_MA = 99999.9

COMMAND = re.compile(r"R?(LCT|LCL|LCA|LTM|GM[SCT]?|GS|L)([RS]|[0-9.]*)")
COMMENTS = {
    "L": ("Laser: ", ""),
    "LCT": ("Laser Current Target: ", " mA"),
    "LCL": ("Laser Current Limit: ", " mA"),
    "LCA": ("Laser Current Actual: ", " mA"),
    "LTM": ("Laser Temperature Maximum: ", " C"),
    "GS": ("Status: ", ""),
    **dict.fromkeys(("GM", "GMS", "GMC", "GMT"), ("Mode: ", "")),
}


class OsTechEmulator:
    """Echoes in capitals and answers with comment and unit unless in reduced mode, as the LDC manual's chapter 7 says.

    `Fault.OVER_RANGE` makes the actual current impossible, `Fault.SENSOR` takes the diode's sensor off, and
    `Fault.NOT_READY` overheats the diode. Unverified, as the manual is silent on it: only the target's comment is the
    manual's, a target beyond the limit is taken as the limit, and lines that are too long or unknown get no answer.
    """

    def __init__(self, world: World) -> None:
        self.fault = Fault.NONE
        self.mode = 0
        self.limit_ma = FIRST_LIMIT_MA
        self._hottest_c = 35.0
        self._world = world
        self._line = ""

    def restart(self) -> None:
        self._line = ""

    def receive(self, data: bytes) -> bytes:
        return b"".join(self._key(key) for key in data)

    def _key(self, key: int) -> bytes:
        echo = b"" if self.mode & ECHO_OFF else bytes((key,)).upper()
        if key == CR:
            line, self._line = self._line, ""
            return echo + self._obey(line)
        if key == ESC:
            self._line = ""
        elif key == BACKSPACE:
            self._line = self._line[:-1]
        else:
            self._line += chr(key).upper()
        return echo

    def _obey(self, line: str) -> bytes:
        command = COMMAND.fullmatch(line.replace(" ", ""))
        if command is None or len(line) > LONGEST_LINE:
            return b""
        name, parameter = command.groups()
        try:
            value = self._value(name, parameter)
        except ValueError:
            return b""
        if self.mode & BINARY:
            return _binary(value)
        bare = bool(self.mode & REDUCED) or line.startswith("R")
        comment, unit = ("", "") if bare else COMMENTS[name]
        return f"{comment}{_text(value)}{unit}\r".encode()

    def _value(self, name: str, parameter: str) -> float | int | bool:
        """Carry the command out and give its value: a float, a word, or a switch."""
        match name:
            case "L":
                return self._switch(parameter)
            case "LCT":
                if parameter:
                    target_ma = min(float(parameter), self.limit_ma)
                    self._world.drive_laser(target_ma / 1e3, self._world.laser_emitting)
                return self._world.laser_target_a * 1e3
            case "LCL":
                self.limit_ma = float(parameter or self.limit_ma)
                return self.limit_ma
            case "LTM":
                self._hottest_c = float(parameter or self._hottest_c)
                return self._hottest_c
            case "LCA":
                flows_ma = self._world.laser_target_a * 1e3 if self._world.laser_emitting else 0.0
                return IMPOSSIBLE_MA if self.fault is Fault.OVER_RANGE else flows_ma
            case "GS":
                return self._status()
        return self._set_mode(name, int(parameter or 0))

    def _switch(self, parameter: str) -> bool:
        if parameter:
            running = parameter == "R" and not self._status() & TOO_HOT
            self._world.drive_laser(self._world.laser_target_a, emitting=running)
        return self._world.laser_emitting

    def _set_mode(self, name: str, bits: int) -> int:
        changes = {"GM": self.mode, "GMS": self.mode | bits, "GMC": self.mode & ~bits, "GMT": self.mode ^ bits}
        self.mode = changes[name]
        return self.mode

    def _status(self) -> int:
        word = ALL_GOOD
        if not self._world.interlock_closed:
            word &= ~INTERLOCK
        if self._world.laser_emitting:
            word |= EMITTING
        if self.fault is Fault.SENSOR:
            word &= ~LASER_SENSOR
        if self.fault is Fault.NOT_READY:
            word |= TOO_HOT
        return word


def _text(value: float | int | bool) -> str:
    if isinstance(value, bool):
        return "R" if value else "S"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _binary(value: float | int | bool) -> bytes:
    """Big-endian with a checksum that begins at 0x55 (from an open driver, unverified)."""
    if isinstance(value, bool):
        return b"\xaa" if value else b"\x55"
    data = struct.pack(">f" if isinstance(value, float) else ">H", value)
    return data + bytes(((0x55 + sum(data)) & 0xFF,))
