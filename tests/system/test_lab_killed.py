"""`eclips up` on real drivers, killed with the laser on: whoever is left brings the lab to rest over the wire."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acquisition.recording import RecordedRun, repair
from emulated_lab import emulating, write_lab_settings
from hardware_drivers.simulated import World
from programs import Program, alive, wait_until


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
        wait_until(lambda: (device("gauge")["pressure_pa"]["value"] or 0) > 2, lambda: "no pressure")
        assert client.post("/devices/heater/setpoints", json={"current_a": 0.5}).status_code == 200
        assert client.post("/devices/heater:arm").status_code == 200
        wait_until(lambda: device("heater")["emission"]["value"] == 1, lambda: "the laser never came on")


def is_at_rest(world: World) -> bool:
    return not world.laser_emitting and world.laser_target_a == 0 and world.flow_mol_per_s("hydrogen") == 0


def test_lab_is_at_rest_before_a_killed_acquisition_program_is_started_again_and_afterwards(tmp_path: Path) -> None:
    config = write_lab_settings(tmp_path, 64, kind="real")
    with emulating(config) as lab, up(config) as program:
        heat(program)
        first = program.run_folder()
        assert lab.world.laser_emitting
        os.kill(program.children()["acquire"], signal.SIGKILL)
        killed_at = len(program.lines)
        program.wait_for("acquire ended with status -9: starting it again", killed_at)
        program.wait_for("laser and gas were brought to rest and read back", killed_at)
        assert is_at_rest(lab.world), "before the restart"
        program.wait_for("^recording ", killed_at)
        assert is_at_rest(lab.world), "after it: nothing resumes by itself"
        repair(first)
        assert RecordedRun(first).manifest.status == "recovered"


def test_emulators_outlive_a_killed_up_until_the_lab_is_at_rest(tmp_path: Path) -> None:
    with up(write_lab_settings(tmp_path, 64)) as program:
        heat(program)
        folder, children = program.run_folder(), program.children()
        assert set(children) == {"acquire", "infer", "serve", "emulate"}
        program.process.kill()
        wait_until(lambda: not any(alive(pid) for pid in children.values()), lambda: f"still alive: {children}")
    repair(folder)
    run = RecordedRun(folder)
    assert any(sample.channel == "heater.emission" and sample.value == 1 for sample in run.states)
    safe = [event for event in run.events if event.name == "safe_state"]
    assert safe and safe[-1].details["unverified"] == []
