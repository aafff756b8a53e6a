"""A run that the safe state cuts short keeps its frames and their heights, and says everywhere what ended it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from acquisition.recording import RecordedRun, verify
from recordings import finish, record
from service.commands import recordings as commands
from service.routes.runs import _tree
from streams import Node, WorkerThread


async def test_it_is_complete_and_manifest_verify_and_list_say_what_ended_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Node(tmp_path / "runs", ring_bytes=2**26) as node:
        worker = WorkerThread(node.endpoints.data)
        run_id = (await node.program.carry_out("start", {"frames": 10_000}))["run_id"]
        await node.until(lambda: node.machine.progress.frames > 1, "no frame came")
        await node.program.node.guard.safe_state("permit lost (pressure: above its limit)")
        run = await node.complete(run_id)
        worker.close()
        assert node.machine.state == "idle" and node.machine.fault == ""
    why = "cut short by the safe state: permit lost (pressure: above its limit)"
    recorded = RecordedRun(run)
    frames = len(recorded.frames)
    assert 1 < frames < 10_000 and recorded.missing_heights == []
    assert recorded.finished is not None and recorded.finished.reason == why
    assert (recorded.manifest.status, recorded.manifest.reason) == ("complete", why)
    assert (_tree(run)["status"], _tree(run)["reason"]) == ("complete", why)
    found = verify(run)
    assert found.ok and found.ended == f"{why} ({frames} of the 10000 frames that were asked for)"
    with pytest.raises(typer.Exit) as ended:
        commands.verify(run)
    assert ended.value.exit_code == 0
    assert f"ended: {why}" in " ".join(capsys.readouterr().out.split())


async def test_a_replay_is_not_cut_short_by_it(tmp_path: Path) -> None:
    finish(record(tmp_path / "runs" / "source", 3, []))
    async with Node(tmp_path / "runs") as node:
        await node.program.carry_out("replay", {"run": "source", "speed": "step"})
        await node.program.carry_out("step", {})
        await node.until(lambda: node.machine.progress.frames == 1, "no frame came")
        await node.program.node.guard.safe_state("permit lost")
        assert node.machine.state == "acquiring"
        for _ in range(2):
            await node.program.carry_out("step", {})
        await node.machine.wait()
        assert node.machine.progress.frames == 3


def test_what_ended_a_run_that_was_never_closed_is_not_known(tmp_path: Path) -> None:
    record(tmp_path / "run", 2, []).close("incomplete", "cut off")
    assert verify(tmp_path / "run").ended == ""
