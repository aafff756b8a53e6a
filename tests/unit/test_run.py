"""The run's state machine: every way in, every way out, and nothing left behind by what failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acquisition.clock import Instant, SystemClock
from acquisition.devices import ScanRequest
from acquisition.errors import DeviceFailed, RequestRefused
from acquisition.frames import Exposure, Frame, JoinedValue, RunFinished, RunStarted
from acquisition.instrument import Instrument, four_quadrant
from acquisition.recording import RecordedRun
from acquisition.run import RunMachine
from acquisition.run_plan import Progress, RunPlan
from acquisition.stamping import optics_of

IMAGES = np.ones((4, 16, 16), np.uint16)


class Source:
    """Gives `good` exposures, then does what it is told to."""

    def __init__(self, good: int = 3, then: str = "end") -> None:
        self.good = good
        self.then = then
        self.stopped = 0

    async def configure(self, scan: ScanRequest) -> Instrument:
        if self.then == "fail to configure":
            raise DeviceFailed("the detector does not answer")
        return four_quadrant()

    async def arm(self) -> None:
        if self.then == "hang while arming":
            await asyncio.sleep(60)
        if self.then == "fail to arm":
            raise DeviceFailed("the detector does not arm")

    async def exposures(self, count: int | None) -> AsyncIterator[Exposure]:
        for _ in range(self.good if count is None else min(count, self.good)):
            await asyncio.sleep(0)
            now = SystemClock().now()
            yield Exposure(IMAGES, now, now, optics_of(four_quadrant()))
        if self.then == "hang":
            await asyncio.sleep(60)
        if self.then == "fail":
            raise DeviceFailed("the detector went silent")

    async def stop(self) -> None:
        self.stopped += 1


class Ports:
    """What a node would do, written down."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.finished: list[RunFinished] = []
        self.over: list[tuple[str, bool]] = []
        self.transitions: list[str] = []

    def join_state(self, start: Instant, end: Instant) -> Mapping[str, JoinedValue]:
        return {}

    def publish_start(self, run: RunStarted) -> None: ...

    def publish_frame(self, frame: Frame, run: RunStarted) -> None:
        self.published.append(frame.header.sequence)

    def publish_finish(self, finished: RunFinished) -> None:
        self.finished.append(finished)

    def acknowledge(self, run_id: str, sequence: int) -> None: ...

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        if name == "transition":
            self.transitions.append(details["after"])

    async def run_over(self, progress: Progress, reason: str, whole: bool) -> None:
        self.over.append((reason, whole))
        if progress.recorder is not None:
            progress.recorder.close("complete" if whole else "incomplete", reason)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def rig(folder: Path) -> tuple[RunMachine, Ports]:
    ports = Ports()
    return RunMachine(folder / "runs", SystemClock(), ports), ports


def plan(source: Source, **changes: Any) -> RunPlan:
    return replace(RunPlan(source, "test", ScanRequest(16, 16)), **changes)


async def test_a_run_goes_through_its_states_and_is_recorded(tmp_path: Path) -> None:
    machine, ports = rig(tmp_path)
    run = await machine.start(plan(Source(), frames=3))
    await machine.wait()
    assert ports.transitions == ["armed", "acquiring", "finishing", "idle"]
    assert ports.published == [0, 1, 2]
    assert ports.over == [("all frames were taken", True)]
    recorded = RecordedRun(tmp_path / "runs" / run.run_id)
    assert recorded.sequences == [0, 1, 2]
    assert recorded.finished is not None and recorded.finished.frames == 3


async def test_stop_does_not_wait_for_a_slow_frame(tmp_path: Path) -> None:
    machine, ports = rig(tmp_path)
    source = Source(2, "hang")
    await machine.start(plan(source))
    await until(lambda: len(ports.published) == 2)
    async with asyncio.timeout(5):
        await machine.stop()
    assert machine.state == "idle"
    assert source.stopped == 1
    assert ports.over == [("stopped", True)]


async def test_abort_ends_at_once_and_marks_the_run(tmp_path: Path) -> None:
    machine, ports = rig(tmp_path)
    run = await machine.start(plan(Source(2, "hang")))
    await until(lambda: len(ports.published) == 2)
    async with asyncio.timeout(5):
        await machine.abort()
    assert machine.state == "idle"
    assert ports.over == [("aborted", False)]
    assert RecordedRun(tmp_path / "runs" / run.run_id).manifest.status == "incomplete"


async def test_a_run_can_be_aborted_while_arming(tmp_path: Path) -> None:
    machine, _ = rig(tmp_path)
    starting = asyncio.create_task(machine.start(plan(Source(1, "hang while arming"))))
    await until(lambda: machine.state == "armed")
    await machine.abort()
    with pytest.raises(RequestRefused, match="aborted while arming"):
        await starting
    assert machine.state == "idle"


async def test_a_run_that_arms_is_called_off_when_its_source_is_brought_to_rest(tmp_path: Path) -> None:
    machine, _ = rig(tmp_path)
    source = Source(1, "hang while arming")
    starting = asyncio.create_task(machine.start(plan(source)))
    await until(lambda: machine.state == "armed")
    machine.cut_short(Source(), "of another source")
    machine.cut_short(source, "asked for")
    with pytest.raises(RequestRefused, match="aborted while arming"):
        await starting
    assert machine.state == "idle"


@pytest.mark.parametrize("then", ["fail to configure", "fail to arm"])
async def test_what_fails_while_arming_leaves_the_machine_idle_and_no_folder(tmp_path: Path, then: str) -> None:
    machine, _ = rig(tmp_path)
    with pytest.raises(DeviceFailed):
        await machine.start(plan(Source(1, then)))
    assert machine.state == "idle"
    assert not (tmp_path / "runs").exists()
    await machine.start(plan(Source(), frames=1))
    await machine.wait()


async def test_a_silent_detector_ends_in_fault_until_reset(tmp_path: Path) -> None:
    machine, ports = rig(tmp_path)
    run = await machine.start(plan(Source(2, "fail")))
    await machine.wait()
    assert machine.state == "fault"
    assert "went silent" in machine.fault
    assert RecordedRun(tmp_path / "runs" / run.run_id).sequences == [0, 1]
    with pytest.raises(RequestRefused, match="went silent"):
        await machine.start(plan(Source()))
    machine.reset()
    assert machine.state == "idle"
    assert ports.over[0][1] is False


@pytest.mark.parametrize(("then", "whole"), [("end", True), ("fail", False)])
async def test_a_run_whose_source_is_brought_to_rest_says_so(tmp_path: Path, then: str, whole: bool) -> None:
    machine, ports = rig(tmp_path)
    source = Source(2, then)
    await machine.start(plan(source, frames=10))
    machine.cut_short(source, "permit lost")
    machine.cut_short(source, "again")
    await machine.wait()
    ended, found_whole = ports.over[0]
    assert ended.startswith("cut short by the safe state: permit lost") and found_whole is whole
    assert whole or "went silent" in ended


async def test_only_what_ends_a_run_is_told_as_its_end(tmp_path: Path) -> None:
    machine, ports = rig(tmp_path)
    other, source = Source(), Source(3)
    machine.cut_short(source, "before the run")
    await machine.start(plan(source, frames=3))
    machine.cut_short(other, "of another source")
    machine.cut_short(source, "too late")
    await machine.wait()
    await machine.start(plan(Source(1)))
    await machine.wait()
    assert ports.over == [("all frames were taken", True), ("the source has ended", True)]


async def test_a_failing_recorder_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acquisition.recording.tiff_series import TiffSeries

    written = []

    def full_disk(self: TiffSeries, pages: object) -> None:
        written.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TiffSeries, "append", full_disk)
    machine, ports = rig(tmp_path)
    await machine.start(plan(Source(100)))
    await machine.wait()
    assert machine.state == "fault"
    assert "No space left" in machine.fault
    assert ports.published == []
    assert len(written) == 1


@pytest.mark.parametrize("command", ["stop", "abort", "reset"])
async def test_commands_out_of_place_say_what_is_permitted(tmp_path: Path, command: str) -> None:
    machine, _ = rig(tmp_path)
    with pytest.raises(RequestRefused) as refused:
        answer = getattr(machine, command)()
        if answer is not None:
            await answer
    assert refused.value.permitted == ("start", "replay")


async def test_fifty_aborted_runs_leave_a_machine_that_arms(tmp_path: Path) -> None:
    machine, ports = rig(tmp_path)
    for attempt in range(50):
        await machine.start(plan(Source(5, "hang"), record=False))
        for _ in range(attempt % 7):
            await asyncio.sleep(0)
        await machine.abort()
        assert machine.state == "idle"
    await machine.start(plan(Source(), frames=2, record=False))
    await machine.wait()
    assert ports.over[-1] == ("all frames were taken", True)
