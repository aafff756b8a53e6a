"""Lines that carry the heartbeat of the laser's relay: a serial port's control line, its bytes, or a file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

import serial

from acquisition.errors import DeviceFailed

WRITE_TIMEOUT_S = 0.5
BAUD = 9600

SerialSignal = Literal["dtr", "rts", "byte"]


class SerialLine:
    """`dtr` and `rts` are raised and lowered; `byte` sends `1` and `0` (8N1, 9600 baud), for a relay with a wit of its
    own. `port` is a device (`/dev/ttyUSB0`, `COM3`) or any other address of pyserial."""

    def __init__(self, port: str, signal: SerialSignal) -> None:
        self._address = port
        self._signal = signal
        self._port: serial.SerialBase | None = None

    @property
    def name(self) -> str:
        return f"{self._address} ({self._signal})"

    def open(self) -> None:
        """With the line low from the first moment on. Raises `DeviceFailed`."""
        try:
            port = serial.serial_for_url(self._address, baudrate=BAUD, write_timeout=WRITE_TIMEOUT_S, do_not_open=True)
            port.dtr = port.rts = False
            port.open()
        except (serial.SerialException, ValueError, OSError) as error:
            way_out = "check cable and relay.port; `eclips doctor` lists the ports"
            raise DeviceFailed(f"the relay's line {self._address} cannot be opened: {error}; {way_out}") from error
        self._port = port

    def set(self, high: bool) -> None:
        if self._port is None:
            raise DeviceFailed(f"the relay's line {self.name} is not open; open it first")
        try:
            if self._signal == "byte":
                self._port.write(b"1" if high else b"0")
                self._port.flush()
            else:
                setattr(self._port, self._signal, high)
        except (serial.SerialException, OSError) as error:
            raise DeviceFailed(f"the relay's line {self.name} does not take an edge: {error}; check cable") from error

    def close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(serial.SerialException, OSError):
                if self._signal != "byte":
                    setattr(port, self._signal, False)
                port.close()


class FileLine:
    """Writes `1` and `0` to the start of a file that is there already, such as a GPIO's
    `/sys/class/gpio/gpio17/value`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @property
    def name(self) -> str:
        return str(self._path)

    def open(self) -> None:
        """Raises `DeviceFailed`; a path that is not there is never made, it would move no relay."""
        try:
            self._file = os.open(self._path, os.O_WRONLY)
        except OSError as error:
            raise DeviceFailed(f"the relay's file {self._path} cannot be opened: {error}; see relay.path") from error
        self.set(False)

    def set(self, high: bool) -> None:
        if self._file is None:
            raise DeviceFailed(f"the relay's file {self._path} is not open; open it first")
        try:
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, b"1" if high else b"0")
        except OSError as error:
            raise DeviceFailed(f"the relay's file {self._path} does not take an edge: {error}") from error

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(DeviceFailed):
                self.set(False)
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                os.close(file)
