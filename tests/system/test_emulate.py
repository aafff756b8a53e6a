"""`eclips emulate`: instruments of a settings file, or one alone, and faults as they are typed."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from acquisition.clock import SystemClock
from acquisition.errors import BadInput
from programs import ECLIPS, eclips, free_ports
from service import wiring
from service.settings import load_settings

STATUS_QUESTION = b"GS\r"


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A laser alone, and its port."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [*ECLIPS, "emulate", "ostech", "--port", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "ECLIPS_RUNS": str(tmp_path / "runs")},
    )
    yield process, port
    process.terminate()
    process.wait()


def test_a_laser_alone_answers_until_it_is_told_to_be_silent(emulator: tuple[subprocess.Popen[str], int]) -> None:
    process, port = emulator
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline().split() == ["emulating", "heater", f"socket://127.0.0.1:{port}"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(STATUS_QUESTION)
        answer = line.makefile("rb")
        assert answer.read(len(STATUS_QUESTION)) == STATUS_QUESTION
        process.stdin.write("heater silence\n")
        assert process.stdout.readline() == "heater: silence\n"
        line.settimeout(0.5)
        line.sendall(STATUS_QUESTION)
        with pytest.raises(TimeoutError):
            while line.recv(100):
                pass
    process.stdin.write("toaster silence\nheater tired\n")
    assert "'toaster' is not emulated on a line here; there are heater" in process.stdout.readline()
    assert "'tired' is no fault; known: none, silence" in process.stdout.readline()


def test_what_cannot_be_emulated_alone_is_refused() -> None:
    done = eclips("emulate", "toaster")
    assert done.returncode == 2 and "known: sharksem, gcs2, ostech, upp, mnemonic" in done.stderr


@pytest.mark.parametrize("address", ["/dev/ttyUSB0", "COM3", "socket://192.168.0.7:8401", "socket://127.0.0.1"])
def test_an_emulator_is_served_on_this_machine_only(address: str) -> None:
    settings = load_settings(None, {"instruments": {"heater": {"kind": "ostech", "address": address}}})
    with pytest.raises(BadInput, match=r"give socket://127\.0\.0\.1:PORT"):
        wiring.emulated_instruments(settings, SystemClock())


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"socket://127.0.0.1:{taken.getsockname()[1]}"
        settings = load_settings(None, {"instruments": {"heater": {"kind": "ostech", "address": address}}})
        with pytest.raises(BadInput, match="is another lab running here"):
            async with wiring.emulated_instruments(settings, SystemClock()):
                pass


def test_a_lab_without_a_detector_and_a_gas_without_a_limit_are_refused() -> None:
    laser = {"heater": {"kind": "ostech", "address": "socket://127.0.0.1:1"}}
    with pytest.raises(BadInput, match=r"add \[instruments.detector\]"):
        wiring.check(load_settings(None, {"microscope": {"kind": "real"}, "instruments": laser}))
    argon = {"kind": "bronkhorst", "gas": "argon", "address": "socket://127.0.0.1:1"}
    named = {"detector": {"kind": "sharksem"}, "gases": [argon]}
    with pytest.raises(BadInput, match=r"add limits\.flow_sccm\.argon"):
        wiring.check(load_settings(None, {"microscope": {"kind": "real"}, "instruments": named}))
