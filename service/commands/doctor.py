"""`eclips doctor`: what this machine can do, and which instruments of the settings answer, asked and not touched."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import zmq

from acquisition.clock import SystemClock
from acquisition.devices import Device, Reading
from acquisition.errors import EclipsError
from hardware_drivers.probing import probe
from service import wiring
from service.commands.shared import AsJson, Config, say, say_json
from service.settings import Settings, load_settings

NAMES_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Finding:
    """One instrument: what it says it is and reads, or why it does not. `readings` are in words."""

    name: str
    kind: str
    address: str
    identification: str = ""
    readings: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def lines(self) -> Iterator[str]:
        told = ", ".join(f"{quantity} {value}" for quantity, value in self.readings.items())
        yield f"  {self.name:10s} {self.kind:11s} {self.address}"
        yield from (f"    {text}" for text in (self.identification, told) if text)
        if self.error:
            yield f"    NO: {self.error}"


def doctor(config: Config = None, as_json: AsJson = False) -> None:
    """What this machine can do: processors, providers really in use, ports, disk, logs, serial ports; and who answers.

    Instruments of the settings are asked who they are and what they read. Nothing is set, started or stopped, so it
    may be run at any time; while a node runs on the same settings, its page tells better, and nobody is asked.

    Example: eclips doctor --config deploy/emulated-lab.toml
    """
    settings = load_settings(config)
    found = _machine(settings)
    ports = {f"port {port} ({name})": _is_free(settings, name) for name, port in _ports(settings).items()}
    found |= {name: "free" if free else "in use" for name, free in ports.items()}
    reason = _why_nobody_is_asked(settings)
    lab = [] if reason else asyncio.run(ask_lab(settings))
    if as_json:
        say_json({**found, "lab": [asdict(finding) for finding in lab], "lab not asked": reason})
        return
    for name, value in found.items():
        if isinstance(value, list):
            say(f"{name:{NAMES_WIDTH}s} {'' if value else 'none'}".rstrip())
            for line in value:
                say(f"  {line}")
        else:
            say(f"{name:{NAMES_WIDTH}s} {value}")
    say(f"{'lab':{NAMES_WIDTH}s} {reason or f'{settings.microscope.kind}; asked, nothing was changed'}")
    for finding in lab:
        for line in finding.lines():
            say(line)
    if settings.microscope.kind == "emulated" and lab and all(finding.error for finding in lab):
        say("  nobody answers: start the emulators with `eclips emulate --config FILE`")


def _machine(settings: Settings) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "inference provider": wiring.pipeline(settings).provider,
        "runs folder": str(settings.runs_folder),
        "logs": str(settings.logs_folder),
        "free disk in GB": round(_free_bytes(settings.runs_folder) / 1e9, 1),
        "zmq": zmq.zmq_version(),
        "CURVE": zmq.has("curve"),
        "serial ports": serial_ports(),
    }


def serial_ports() -> list[str]:
    """Each with what the system knows of it: `/dev/ttyUSB0: FT232R USB UART (FTDI, serial number A50285BI)`."""
    from serial.tools import list_ports

    def described(port: Any) -> str:
        known = [port.manufacturer, port.serial_number and f"serial number {port.serial_number}"]
        what = "" if port.description in (None, "n/a") else f": {port.description}"
        return f"{port.device}{what}" + (f" ({', '.join(filter(None, known))})" if any(known) else "")

    return [described(port) for port in sorted(list_ports.comports())]


def _ports(settings: Settings) -> dict[str, int]:
    stream = settings.stream
    node = {"data": stream.data_port, "state": stream.state_port, "control": stream.control_port}
    return {**node, "page": settings.serve.port}


def _is_free(settings: Settings, name: str) -> bool:
    host = settings.serve.host if name == "page" else settings.stream.host
    try:
        with socket.create_connection((host, _ports(settings)[name]), timeout=1.0):
            return False
    except OSError:
        return True


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


# Instruments


def _why_nobody_is_asked(settings: Settings) -> str:
    if settings.microscope.kind == "simulated":
        return "simulated: there is no instrument to ask"
    if not all(_is_free(settings, name) for name in ("data", "state", "control")):
        return "a node runs on these settings and has the instruments: see its page"
    return ""


async def ask_lab(settings: Settings) -> list[Finding]:
    """One after the other, as some share a line."""
    lab = wiring.lab(settings, SystemClock())
    entries = _entries(settings)
    return [await _ask(device, *entries[device.name]) for _, device in lab.kinds()]


def _entries(settings: Settings) -> dict[str, tuple[str, str]]:
    """Kind and address in the settings, by the name of the device."""
    named = settings.instruments
    if named is None:
        return {}
    roles: dict[str, Any] = {"detector": named.detector, "stage": named.stage, "heater": named.heater}
    roles |= {"pyrometer": named.pyrometer, "gauge": named.gauge, **{entry.gas: entry for entry in named.gases}}
    return {name: (entry.kind, str(getattr(entry, "address", ""))) for name, entry in roles.items() if entry}


async def _ask(device: Device, kind: str, address: str) -> Finding:
    try:
        told = await probe(device)
    except EclipsError as error:
        return Finding(device.name, kind, address, error=str(error))
    readings = {quantity: _in_words(reading) for quantity, reading in told.readings.items()}
    return Finding(device.name, kind, address, told.identification, readings)


def _in_words(reading: Reading) -> str:
    return f"{reading.value:.5g}" if reading.valid else f"invalid ({reading.reason})"
