"""`eclips up` as a user starts it: it ends as promised, and survives the death of each of its parts."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

from acquisition.recording import RecordedRun, repair, verify
from programs import Program, alive, wait_until

Start = Callable[..., Program]


def last_acknowledged(program: Program) -> int:
    acknowledged = [int(m[1]) for line in program.lines if (m := re.match(r"acknowledged (\d+)", line))]
    return max(acknowledged, default=-1)


def switch_laser_on(program: Program) -> None:
    with program.client() as client:
        wait_until(lambda: client.get("/ready").json()["ready"], lambda: "never ready")
        assert client.post("/devices/heater/setpoints", json={"current_a": 0.5}).status_code == 200
        assert client.post("/devices/heater:arm").status_code == 200
        emission = lambda: client.get("/devices/heater").json()["readings"]["emission"]["value"]  # noqa: E731
        wait_until(lambda: emission() == 1, lambda: "the laser never came on")


def test_up_with_a_number_of_frames_ends_by_itself(start: Start) -> None:
    program = start("up", "--frames", "8")
    assert program.process.wait(60) == 0
    match = program.wait_for(r"run (.+) complete: 8 frames, 8 heights")
    run = RecordedRun(program.run_folder())
    assert str(run.path) == match[1]
    assert run.manifest.status == "complete"
    assert run.sequences == list(range(8))
    assert verify(run.path).ok
    assert last_acknowledged(program) == 7


def test_ctrl_c_ends_in_order_with_the_laser_off_and_the_run_complete(start: Start) -> None:
    program = start("up")
    switch_laser_on(program)
    children = program.children()
    assert program.interrupt() == 0
    assert not any(alive(pid) for pid in children.values())
    run = RecordedRun(program.run_folder())
    assert run.manifest.status == "complete"
    assert verify(run.path).ok
    safe = [event for event in run.events if event.name == "safe_state"]
    assert safe and safe[-1].details["unverified"] == []
    emissions = [sample for sample in run.states if sample.channel == "heater.emission"]
    assert any(sample.value == 1 for sample in emissions)


def test_a_killed_worker_comes_back_and_no_frame_stays_without_height(start: Start) -> None:
    program = start("up", "--frames", "40", size_px=128)
    program.wait_for("acknowledged")
    os.kill(program.children()["infer"], signal.SIGKILL)
    program.wait_for("infer ended with status -9: starting it again")
    assert program.process.wait(90) == 0
    run = RecordedRun(program.run_folder())
    assert run.manifest.status == "complete"
    assert run.sequences == list(range(40))
    assert run.missing_heights == []
    assert verify(run.path).ok


def test_killing_up_leaves_no_process_and_every_acknowledged_frame(start: Start) -> None:
    program = start("up")
    switch_laser_on(program)
    program.wait_for("acknowledged")
    folder = program.run_folder()
    children = program.children()
    assert set(children) == {"acquire", "infer", "serve"}
    program.process.kill()
    program.process.wait()
    acknowledged = last_acknowledged(program)
    wait_until(lambda: not any(alive(pid) for pid in children.values()), lambda: f"still alive: {children}", 20)
    repair(folder)
    run = RecordedRun(folder)
    assert len(run.frames) > acknowledged
    for sequence in run.sequences:
        run.read_frame(sequence)
    assert any(sample.channel == "heater.emission" and sample.value == 1 for sample in run.states)
    assert any(event.name == "safe_state" and event.details["unverified"] == [] for event in run.events)


def test_a_killed_acquisition_program_is_replaced_after_the_lab_was_brought_to_rest(start: Start) -> None:
    program = start("up")
    program.wait_for("acknowledged [2-9]")
    first = program.run_folder()
    acknowledged = last_acknowledged(program)
    os.kill(program.children()["acquire"], signal.SIGKILL)
    killed_at = len(program.lines)
    program.wait_for("acquire ended with status -9: starting it again", killed_at)
    program.wait_for("laser and gas were brought to rest and read back", killed_at)
    second = program.wait_for(r"^recording (.+)$", killed_at)[1]
    assert second != str(first)
    program.wait_for("acknowledged", killed_at)
    assert program.interrupt() == 0
    repair(first)
    assert len(RecordedRun(first).frames) > acknowledged
    assert RecordedRun(first).manifest.status == "recovered"


def test_two_on_the_same_ports_are_refused_with_the_way_out(start: Start) -> None:
    program = start("up")
    program.wait_for("acknowledged")
    config = program.process.args[-1]  # type: ignore[index]
    second = Program("acquire", "--config", str(config), runs=program.runs)
    assert second.process.wait(30) == 2
    second.close()
    assert "is another eclips running?" in "\n".join(second.lines)
    time.sleep(0.2)
    assert program.process.poll() is None
