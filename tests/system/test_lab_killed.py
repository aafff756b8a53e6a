"""`eclips up` on real drivers, killed with the laser on: whoever is left brings the lab to rest over the wire."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acquisition.clock import SystemClock
from acquisition.recording import RecordedRun, repair
from emulated_lab import write_lab_settings
from hardware_drivers.probing import probe
from programs import Program, alive, wait_until
from service import wiring
from service.settings import load_settings

SET = ("emission", "current_target_a", "flow_setpoint_mol_per_s")
AT_REST = dict.fromkeys(SET, 0.0)


@contextmanager
def up(config: Path) -> Iterator[Program]:
    program = Program("up", "--config", str(config), runs=config.parent / "runs")
    try:
        yield program
    finally:
        program.close()


def heat(program: Program) -> None:
    """Gas first, then the laser, as a user would."""
    with program.client() as client:
        device = lambda name: client.get(f"/devices/{name}").json()["readings"]  # noqa: E731
        wait_until(lambda: client.get("/ready").json()["ready"], lambda: "never ready")
        wait_until(lambda: device("hydrogen").get("flow_mol_per_s", {}).get("valid"), lambda: "no gas there")
        assert client.post("/devices/hydrogen/setpoints", json={"flow_mol_per_s": 7e-5}).status_code == 200
        wait_until(lambda: (device("gauge").get("pressure_pa", {}).get("value") or 0) > 2, lambda: "no pressure")
        assert client.post("/devices/heater/setpoints", json={"current_a": 0.5}).status_code == 200
        assert client.post("/devices/heater:arm").status_code == 200
        wait_until(lambda: device("heater").get("emission", {}).get("value") == 1, lambda: "the laser never came on")


def told_by_instruments(config: Path) -> dict[str, float]:
    """By somebody who only asks, while no program is on their lines."""
    lab = wiring.lab(load_settings(config), SystemClock())

    async def ask() -> dict[str, float]:
        answers = [await probe(lab.devices[name]) for name in ("heater", "hydrogen")]
        return {name: reading.value for answer in answers for name, reading in answer.readings.items()}

    told = asyncio.run(ask())
    return {name: told[name] for name in SET}


def read_by_the_program(program: Program) -> dict[str, float]:
    with program.client() as client:
        devices = [client.get(f"/devices/{name}").json() for name in ("heater", "hydrogen")]
    told = {name: reading for device in devices for name, reading in device["readings"].items()}
    return {name: told.get(name, {}).get("value") for name in SET}


def test_a_lab_is_at_rest_before_and_after_acquisition_is_started_again_and_when_all_is_killed(tmp_path: Path) -> None:
    """Emulators outlive a killed `up` until then."""
    config = write_lab_settings(tmp_path, 64)
    with up(config) as program:
        heat(program)
        first = program.run_folder()
        os.kill(program.children()["acquire"], signal.SIGKILL)
        killed_at = len(program.lines)
        program.wait_for("acquire ended with status -9: starting it again", killed_at)
        program.wait_for("laser and gas were brought to rest and read back", killed_at)
        assert told_by_instruments(config) == AT_REST, "before the restart"
        second = Path(program.wait_for(r"^recording (.+)$", killed_at)[1])
        wait_until(lambda: None not in read_by_the_program(program).values(), lambda: "devices never came back")
        assert read_by_the_program(program) == AT_REST, "after it: nothing resumes by itself"
        repair(first)
        assert RecordedRun(first).manifest.status == "recovered"
        heat(program)
        children = program.children()
        assert set(children) == {"acquire", "infer", "serve", "emulate"}
        program.process.kill()
        wait_until(lambda: not any(alive(pid) for pid in children.values()), lambda: f"still alive: {children}")
    repair(second)
    run = RecordedRun(second)
    assert any(sample.channel == "heater.emission" and sample.value == 1 for sample in run.states)
    safe = [event for event in run.events if event.name == "safe_state"]
    assert safe and safe[-1].details["unverified"] == []
