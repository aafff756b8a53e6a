"""The relay's heartbeat: it beats while all is well, and edges stay away within a second once anything is not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from acquisition.clock import SystemClock
from acquisition.errors import BadInput, DeviceFailed
from acquisition.guard import Guard
from acquisition.heartbeat import RelayHeartbeat
from acquisition.interlocks import InterlockLimits
from acquisition.state import StateKeeper
from hardware_drivers.relay import FileLine, SerialLine
from programs import Laboratory, wait_until, write_settings
from service import wiring
from service.settings import load_settings

PERIOD_S = 0.1
BEATER = """
import sys, asyncio
from pathlib import Path
from acquisition.clock import SystemClock
from acquisition.heartbeat import RelayHeartbeat
from hardware_drivers.relay import FileLine
async def main():
    RelayHeartbeat(FileLine(Path(sys.argv[1])), 0.1, lambda: "", SystemClock(), lambda _: None).start()
    await asyncio.sleep(600)
asyncio.run(main())
"""


class Line:
    """Remembers its edges; can be made to fail."""

    name = "a line"

    def __init__(self) -> None:
        self.levels: list[bool] = []
        self.open_now = False
        self.fault = ""

    def open(self) -> None:
        self._check()
        self.open_now = True

    def set(self, high: bool) -> None:
        self._check()
        self.levels.append(high)

    def close(self) -> None:
        self.open_now = False

    def _check(self) -> None:
        if self.fault:
            raise DeviceFailed(self.fault)


class Beating:
    def __init__(self) -> None:
        self.line = Line()
        self.unwell = ""
        self.changes: list[str] = []
        clock = SystemClock()
        self.heartbeat = RelayHeartbeat(self.line, PERIOD_S, lambda: self.unwell, clock, self.changes.append)

    async def more_edges(self, count: int = 4) -> None:
        wanted = len(self.line.levels) + count
        await until(lambda: len(self.line.levels) >= wanted)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def silent(count: Callable[[], int]) -> None:
    """No edge any more, after at most one that was under way."""
    await asyncio.sleep(2 * PERIOD_S)
    before = count()
    await asyncio.sleep(6 * PERIOD_S)
    assert count() == before


@asynccontextmanager
async def beating() -> AsyncIterator[Beating]:
    made = Beating()
    made.heartbeat.start()
    await made.more_edges()
    yield made
    await made.heartbeat.closed()
    assert not made.line.open_now


async def test_it_beats_while_all_is_well_and_every_edge_is_one() -> None:
    async with beating() as made:
        assert made.heartbeat.tree()["beating"]
        assert made.changes == [""]
    assert all(before != after for before, after in zip(made.line.levels, made.line.levels[1:], strict=False))
    await silent(lambda: len(made.line.levels))
    assert not made.heartbeat.tree()["beating"]


async def test_it_stays_away_while_anything_is_amiss_and_says_why() -> None:
    async with beating() as made:
        made.unwell = "the laser is on without a permit"
        await silent(lambda: len(made.line.levels))
        tree = made.heartbeat.tree()
        assert (tree["beating"], tree["reason"]) == (False, "the laser is on without a permit")
        made.unwell = ""
        await made.more_edges()
    assert made.changes == ["", "the laser is on without a permit", ""]


async def test_a_line_that_fails_is_told_and_opened_again() -> None:
    async with beating() as made:
        made.line.fault = "unplugged"
        await until(lambda: not made.heartbeat.tree()["beating"])
        assert "unplugged" in made.heartbeat.tree()["reason"]
        made.line.fault = ""
        await made.more_edges()


async def test_an_event_loop_that_hangs_gives_no_edge() -> None:
    async with beating() as made:
        await asyncio.sleep(0)
        time.sleep(2 * PERIOD_S)  # noqa: ASYNC251  an edge under way comes to its end in its thread
        before = len(made.line.levels)
        time.sleep(6 * PERIOD_S)  # noqa: ASYNC251
        assert len(made.line.levels) == before


def guard(tmp_path: Path) -> tuple[Guard, StateKeeper, Any]:
    clock = SystemClock()
    lab = wiring.lab(load_settings(None, {"runs_folder": str(tmp_path)}), clock)
    state = StateKeeper(lab.devices, clock, lambda *_: None)
    return Guard(lab, state, InterlockLimits(operator_timeout_s=1.0), clock, lambda *_, **__: None), state, lab


async def test_the_guard_is_unwell_when_its_watch_dies_or_never_began(tmp_path: Path) -> None:
    guarding, state, _ = guard(tmp_path)
    await state.start()
    watching = asyncio.create_task(guarding.watch())
    await asyncio.sleep(0.3)
    assert guarding.unwell() == ""
    watching.cancel()
    await until(guarding.unwell)
    assert "has not looked for" in guarding.unwell()
    await state.stop()


async def test_the_guard_is_unwell_while_the_laser_is_on_without_a_permit(tmp_path: Path) -> None:
    guarding, state, lab = guard(tmp_path)
    await state.start()
    guarding.operator_seen()
    await lab.heater.arm()

    def told() -> str:
        guarding._watched_at = SystemClock().now()
        return guarding.unwell()

    await until(told)
    assert "laser is on without a permit: operator present" in told()
    await lab.heater.off()
    await until(lambda: state.latest()["heater.emission"].value == 0)
    assert told() == ""
    await state.stop()


async def test_a_file_is_toggled_by_the_program_until_it_ends(tmp_path: Path) -> None:
    line = tmp_path / "gpio"
    line.write_text("0\n")
    config = write_settings(tmp_path, relay=f'kind = "file"\npath = "{line.as_posix()}"\nperiod_s = {PERIOD_S}')
    async with Laboratory(config) as laboratory:
        seen = set()
        async with asyncio.timeout(30):
            while seen != {"0", "1"}:
                seen.add(line.read_text()[:1])
                await asyncio.sleep(0.01)
        relay = (await laboratory.ask("status"))["relay"]
        assert relay["beating"]
        assert relay["edges"] > 0
    assert line.read_text() == "0\n"


async def test_a_hung_guard_lets_the_relay_drop_although_the_program_lives(tmp_path: Path) -> None:
    line = tmp_path / "gpio"
    line.write_text("0")
    config = write_settings(tmp_path, relay=f'kind = "file"\npath = "{line.as_posix()}"\nperiod_s = {PERIOD_S}')
    async with Laboratory(config) as laboratory:
        node = laboratory.program.node
        assert node.relay is not None
        await laboratory.until(lambda: node.relay is not None and node.relay.edges > 2)
        node._tasks[0].cancel()
        await laboratory.until(lambda: node.relay is not None and not node.relay.tree()["beating"])
        await silent(lambda: node.relay.edges if node.relay else 0)
        status = await laboratory.ask("status")
        assert "has not looked" in status["relay"]["reason"]
        assert "relay" in {alarm["id"] for alarm in status["alarms"]}


def test_a_killed_program_gives_no_edge(tmp_path: Path) -> None:
    path = tmp_path / "gpio"
    path.write_text("0")
    program = subprocess.Popen([sys.executable, "-c", BEATER, str(path)])
    try:
        before = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns > before + 1e8, lambda: "no edge came")
    finally:
        program.kill()
        program.wait()
    last = path.stat().st_mtime_ns
    time.sleep(0.5)
    assert path.stat().st_mtime_ns == last


def test_bytes_leave_by_a_serial_port() -> None:
    pty = pytest.importorskip("pty")
    controller, port = pty.openpty()
    line = SerialLine(os.ttyname(port), "byte")
    line.open()
    line.set(True)
    line.set(False)
    assert os.read(controller, 1) + os.read(controller, 1) == b"10"
    line.close()
    os.close(port)
    with pytest.raises(DeviceFailed, match="is not open"):
        line.set(True)
    os.close(controller)


@pytest.mark.parametrize(("signal", "other_end"), [("dtr", "dsr"), ("rts", "cts")])
def test_a_control_line_is_raised_and_lowered_and_low_at_first(signal: Any, other_end: str) -> None:
    line = SerialLine("loop://", signal)
    line.open()
    port = line._port
    assert port is not None
    assert not getattr(port, other_end)
    line.set(True)
    assert getattr(port, other_end)
    line.set(False)
    assert not getattr(port, other_end)
    line.close()


def test_a_line_that_is_not_there_is_told_with_its_name_and_no_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(DeviceFailed, match=r"nowhere.*relay\.path"):
        FileLine(tmp_path / "nowhere").open()
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(DeviceFailed, match=r"nowhere cannot be opened.*relay\.port"):
        SerialLine(str(tmp_path / "nowhere"), "dtr").open()


def test_a_relay_without_its_place_is_refused(tmp_path: Path) -> None:
    for kind, missing in (("serial", "port"), ("file", "path")):
        path = write_settings(tmp_path, relay=f'kind = "{kind}"')
        with pytest.raises(BadInput, match=f'relay: .*kind = "{kind}" needs {missing}'):
            load_settings(path)
    assert wiring.relay_line(load_settings()) is None
