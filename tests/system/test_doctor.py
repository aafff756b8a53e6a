"""`eclips doctor` asks the instruments of a lab and changes nothing: they hear questions and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from acquisition.clock import SystemClock
from acquisition.devices import StagePosition
from acquisition.errors import RequestRefused
from acquisition.instrument import four_quadrant
from emulated import CURRENT
from emulated_lab import Site, listen_in, site, told, write_lab_settings
from hardware_drivers.emulators.lab import EmulatedLab
from hardware_drivers.emulators.line import Line
from hardware_drivers.emulators.ostech import ECHO_OFF, REDUCED, OsTechEmulator
from hardware_drivers.ostech import OsTechLaserHeater
from hardware_drivers.probing import probe
from hardware_drivers.simulated import World
from programs import write_settings
from service import wiring
from service.cli import app
from service.commands import doctor
from service.settings import load_settings

QUESTIONS = {
    "heater": rb"(\x1b|(GM|GS|LCA|LCT)\r)*",
    "pyrometer": rb"(00(ms|em)\r)*",
    "gauge": rb"(\x03|\x05|(AYT|PNR|UNI|TID|PR1)\r)*",
    "hydrogen": rb"(:0[67][0-9A-F]{2}04([0-9A-F]{2}){4,5}\r\n)*",
    "stage": rb"(\x05|(\*IDN\?|POS\? \d|FRF\? \d)\n)*",
}
MICROSCOPE_QUESTIONS = r"Tcp(GetVersion)|Get\w+|HVGet\w+|VacGet\w+|DtEnum\w+|DtGet\w+|DtStateGet|StgGet\w+|StgIsBusy"


class Asked:
    """A lab that was left with everything on, and what `eclips doctor` tells of it."""

    def __init__(self, folder: Path, pi_stage: bool) -> None:
        self.settings = load_settings(write_lab_settings(folder, pi_stage=pi_stage))
        self.lab: EmulatedLab = wiring.emulated_instruments(self.settings, SystemClock())
        self.heard = listen_in(self.lab)
        world = self.lab.world
        world.drive_laser(0.7, emitting=True)
        world.set_flow("oxygen", 1e-5)
        world.stage = StagePosition(1e-4, 2e-4, 3e-4)

    async def findings(self) -> dict[str, doctor.Finding]:
        return {finding.name: finding for finding in await doctor.ask_lab(self.settings)}


@pytest.fixture(params=[True, False], ids=["PI stage", "microscope's stage"])
async def asked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Asked]:
    here = Asked(tmp_path, request.param)
    async with here.lab:
        yield here


async def test_every_instrument_tells_who_it_is_and_what_it_reads(asked: Asked) -> None:
    found = await asked.findings()
    assert {name: finding.error for name, finding in found.items()} == dict.fromkeys(found, "")
    assert set(found) == {"detector", "stage", "heater", "pyrometer", "gauge", "hydrogen", "oxygen"}
    assert "SharkSEM 3.2" in found["detector"].identification
    assert "VGC502" in found["gauge"].identification and "of O2" in found["oxygen"].identification
    assert found["heater"].readings["emission"] == "1" and found["heater"].readings["current_target_a"] == "0.7"
    assert found["stage"].readings["x_m"] == "0.0001"
    assert all(finding.address and finding.kind for finding in found.values())


async def test_nothing_but_questions_is_sent_and_nothing_changes(asked: Asked) -> None:
    await asked.findings()
    for role, ear in asked.heard.items():
        questions = QUESTIONS.get(role, QUESTIONS["hydrogen"])
        assert re.fullmatch(questions, told(ear)), (role, told(ear))
        assert told(ear)
    assert asked.lab.microscope is not None
    for command in asked.lab.microscope.received:
        assert re.fullmatch(MICROSCOPE_QUESTIONS, command), command
    world = asked.lab.world
    assert (world.laser_target_a, world.laser_emitting) == (0.7, True)
    assert world.flow_mol_per_s("oxygen") == 1e-5
    assert world.stage == StagePosition(1e-4, 2e-4, 3e-4)


async def test_an_instrument_that_fails_is_told_in_one_line_and_the_others_answer(asked: Asked) -> None:
    asked.lab.misbehave("gauge", "silence")
    asked.lab.misbehave("pyrometer", "not_ready")
    found = await asked.findings()
    assert asked.lab.lines["gauge"].address in found["gauge"].error and "\n" not in found["gauge"].error
    assert "invalid (the pyrometer is not ready" in found["pyrometer"].readings["temperature_k"]
    assert [name for name, finding in found.items() if finding.error] == ["gauge"]


@pytest.mark.parametrize("mode", [0, REDUCED, ECHO_OFF, ECHO_OFF | REDUCED])
async def test_a_laser_is_asked_in_the_mode_that_it_is_in_and_stays_in_it(mode: int) -> None:
    instrument = OsTechEmulator(World("flat", four_quadrant(), SystemClock()))
    instrument.mode = mode
    async with Line(instrument) as line:
        told = await probe(OsTechLaserHeater("heater", line.address, SystemClock(), CURRENT))
    assert told.readings["emission"].value == 0 and told.readings["healthy"].valid
    assert instrument.mode == mode


async def test_a_device_in_use_is_not_asked_besides(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        for device in here.laboratory.program.node.lab.devices.values():
            with pytest.raises(RequestRefused, match="in use"):
                await probe(device)


async def test_nobody_is_asked_while_a_node_has_the_instruments(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        before = connections(here)
        told = await asyncio.to_thread(run, "--config", str(tmp_path / "settings.toml"))
        assert "a node runs on these settings" in told
        assert connections(here) == before


def connections(here: Site) -> list[int]:
    return [len(line._writers) for line in here.lab.lines.values()]


def test_a_simulated_lab_has_nobody_to_ask_and_ports_have_descriptions(tmp_path: Path) -> None:
    told: dict[str, Any] = json.loads(run("--json", "--config", str(write_settings(tmp_path))))
    assert told["lab"] == [] and "simulated" in told["lab not asked"]
    assert told["serial ports"] == doctor.serial_ports()


def test_a_lab_that_is_not_there_is_told_device_by_device(tmp_path: Path) -> None:
    told = run("--config", str(write_lab_settings(tmp_path)))
    assert told.count("    NO: ") == 7 and "eclips emulate" in told
    assert re.search(r"heater +ostech +socket://127\.0\.0\.1:\d+\n +NO: .*could not be opened", told)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == 0, result.output
    return result.output
