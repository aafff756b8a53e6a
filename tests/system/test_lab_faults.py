"""A lab at work, laser on, gas flowing, scanning: whatever one instrument does, it ends as this table says, in time.

Real drivers on emulated instruments, with the guard that the acquisition program has. Each fault gets a lab of its own;
those of a role run side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from acquisition.alarms import Alarm
from acquisition.errors import DeviceFailed
from acquisition.guard import WATCH_INTERVAL_S
from acquisition.interlocks import STEP_TIMEOUT_S
from acquisition.state import READ_TIMEOUT_S, SAMPLE_INTERVAL_S
from acquisition.status import status_tree
from emulated_lab import Site, site
from hardware_drivers.emulators.bronkhorst import EmulatedBronkhorstBus
from hardware_drivers.emulators.line import Fault
from hardware_drivers.emulators.sharksem import SharkSemFault
from hardware_drivers.sharksem import SharkSemDetector
from hardware_drivers.sharksem.detector import SILENCE_S

OFF_WITHIN_S = READ_TIMEOUT_S + SAMPLE_INTERVAL_S + WATCH_INTERVAL_S + STEP_TIMEOUT_S
"""The README says 5 s (10 s for images): the longest read, the pauses of sampler and guard, the laser's own step."""
BUSY_MACHINE_S = 10.0
PATIENCE_S = 10.0
FLOW_MOL_PER_S = 7e-5
SIDE_BY_SIDE = 10
TRIES = 4

DUMB = (Fault.SILENCE, Fault.GARBAGE, Fault.HALF, Fault.SLOW)
AnyFault = Fault | SharkSemFault


class OneNode(StrEnum):
    """Faults of one flow controller on a bus that is well."""

    SILENT = "silent node"
    """What the maker's library tells as None."""
    ALARM = "alarm of its own"
    FLOW_THAT_CANNOT_BE = "flow that cannot be"


@dataclass(frozen=True, slots=True)
class Case:
    role: str
    fault: AnyFault | OneNode
    ends: Callable[[Site, Case], Awaitable[None]]

    @property
    def name(self) -> str:
        return f"{self.role} {self.fault}"

    def inject(self, here: Site) -> None:
        if isinstance(self.fault, OneNode):
            bus = here.heard["hydrogen"].instrument
            assert isinstance(bus, EmulatedBronkhorstBus)
            node = bus.nodes[3]
            node.silent = self.fault is OneNode.SILENT
            node.alarm = 0x80 if self.fault is OneNode.ALARM else 0
            node.flow_shown = 1e6 if self.fault is OneNode.FLOW_THAT_CANNOT_BE else None
        elif isinstance(self.fault, SharkSemFault):
            assert here.lab.microscope is not None
            here.lab.microscope.fault = self.fault
        else:
            here.lab.lines[self.role].fault = self.fault

    def mend(self, here: Site) -> None:
        if isinstance(self.fault, OneNode):
            bus = here.heard["hydrogen"].instrument
            assert isinstance(bus, EmulatedBronkhorstBus)
            bus.nodes[3].silent, bus.nodes[3].alarm, bus.nodes[3].flow_shown = False, 0, None
        elif isinstance(self.fault, SharkSemFault):
            assert here.lab.microscope is not None
            here.lab.microscope.fault = SharkSemFault.NONE
        else:
            here.lab.lines[self.role].fault = Fault.NONE


# How it may end


async def laser_goes_off(here: Site, case: Case) -> None:
    """In time, told as the permit's loss; the run ends in order, and nothing resumes when it is mended."""
    case.inject(here)
    await soon(lambda: not here.laser_on, OFF_WITHIN_S)
    await soon(lambda: "permit" in alarms(here))
    assert any(f"{role}." in alarms(here)["permit"].text for role in on_the_same_line(here, case.role)), alarms(here)
    await soon(lambda: status(here)["state"] == "idle")
    assert here.world.flow_mol_per_s("hydrogen") == 0 or case.role == "hydrogen"
    await soon(lambda: shown(here, case.role))
    await back_and_still_off(here, case)


async def laser_is_cut_by_hand(here: Site, case: Case) -> None:
    """Nobody can reach it: that is said loudly and at once, and it is off as soon as its line is back."""
    case.inject(here)
    await soon(lambda: "unsafe" in alarms(here), OFF_WITHIN_S)
    assert "cut the laser's power by hand" in alarms(here)["unsafe"].way_out
    await back_and_still_off(here, case)


async def run_fails_and_laser_goes_off(here: Site, case: Case) -> None:
    """Without pictures there is no run, and without a run no heating."""
    case.inject(here)
    await soon(lambda: status(here)["state"] == "fault", SILENCE_S + OFF_WITHIN_S)
    assert not here.laser_on
    assert "detector" in status(here)["fault"] or "SharkSEM" in status(here)["fault"]
    await back_and_still_off(here, case)


async def run_goes_on_shown(here: Site, case: Case) -> None:
    """The laser stays on and frames keep coming, while people are told what is lost."""
    case.inject(here)
    await soon(lambda: shown(here, case.role))
    await frames_come(here)
    assert here.laser_on
    case.mend(here)
    await soon(lambda: not shown(here, case.role))
    assert here.laser_on


async def lost_frames_are_counted(here: Site, case: Case) -> None:
    detector = here.laboratory.program.node.lab.detector
    assert isinstance(detector, SharkSemDetector)
    case.inject(here)
    await soon(lambda: detector.frames_lost > 0)
    case.mend(here)
    await soon(lambda: lost_frames(here) > 0)
    await frames_come(here)
    assert here.laser_on


async def nothing_is_lost(here: Site, case: Case) -> None:
    case.inject(here)
    await frames_come(here)
    assert lost_frames(here) == 0
    assert here.laser_on


async def move_fails_told(here: Site, case: Case) -> None:
    """A stage that does not go where it should is no reason to end a run; who moved it learns where it stands."""
    case.inject(here)
    with pytest.raises(DeviceFailed, match=r"stands at|refused MOV"):
        await here.laboratory.ask("set", device="stage", values={"x_m": 2e-5})
    await frames_come(here)
    assert here.laser_on


def row(
    role: str, faults: Iterable[AnyFault | OneNode], ends: Callable[[Site, Case], Awaitable[None]]
) -> tuple[Case, ...]:
    return tuple(Case(role, fault, ends) for fault in faults)


MEASURES_NOTHING = (Fault.OVER_RANGE, Fault.UNDER_RANGE, Fault.NOT_READY, Fault.SENSOR)
GONE = (*DUMB, Fault.UNPLUGGED)
OF_THE_LINE = (*(SharkSemFault(fault) for fault in GONE), SharkSemFault.NO_DATA)
OF_THE_SCAN = (SharkSemFault.SCAN_REFUSED, SharkSemFault.BEAM_IN_TRANSITION, SharkSemFault.INFRARED_PROTECTION)

TABLE: dict[str, tuple[Case, ...]] = {
    "laser": (
        *row("heater", DUMB, laser_goes_off),
        *row("heater", [Fault.OVER_RANGE, Fault.NOT_READY, Fault.SENSOR], laser_goes_off),
        *row("heater", [Fault.UNPLUGGED], laser_is_cut_by_hand),
    ),
    "pyrometer": row("pyrometer", (*GONE, *MEASURES_NOTHING), laser_goes_off),
    "gauge": row("gauge", (*GONE, *MEASURES_NOTHING, Fault.REFUSING), laser_goes_off),
    "gas": (
        *row("hydrogen", (*GONE, Fault.OVER_RANGE, Fault.SENSOR), laser_goes_off),
        *row("hydrogen", OneNode, laser_goes_off),
    ),
    "microscope": row("detector", (*OF_THE_LINE, *OF_THE_SCAN), run_fails_and_laser_goes_off),
    "scan": (
        *row("detector", [SharkSemFault.CHUNK_GAP], lost_frames_are_counted),
        *row("detector", [SharkSemFault.REPEATED_CHUNK], nothing_is_lost),
    ),
    "stage": (
        *row("stage", (*GONE, Fault.OVER_RANGE, Fault.NOT_READY), run_goes_on_shown),
        *row("stage", [Fault.REFUSING], move_fails_told),
        *row("stage", [SharkSemFault.IGNORED_MOVE, SharkSemFault.CLAMPED_MOVE], move_fails_told),
    ),
}


@pytest.mark.parametrize("part", TABLE)
async def test_whatever_fails_ends_as_the_table_says(part: str, tmp_path: Path) -> None:
    room = asyncio.Semaphore(SIDE_BY_SIDE)
    async with asyncio.TaskGroup() as group:
        for case in TABLE[part]:
            group.create_task(put_to_the_test(case, tmp_path / case.name, room))


async def put_to_the_test(case: Case, folder: Path, room: asyncio.Semaphore) -> None:
    """A machine that is too busy takes a healthy instrument for silent: such a try says nothing, and is repeated."""
    for tries_left in reversed(range(TRIES)):
        (folder / str(tries_left)).mkdir(parents=True)
        pi_stage = isinstance(case.fault, Fault)
        async with room, site(folder / str(tries_left), pi_stage=pi_stage, scan="dwell_time_s = 2e-4") as here:
            work = asyncio.create_task(work_through(here, case))
            while not work.done() and not (tries_left and disturbed(here, case)):
                await asyncio.wait([work], timeout=0.3)
            if work.done() and not (work.exception() and tries_left and disturbed(here, case)):
                await work
                break
            work.cancel()
            await asyncio.wait([work])
    assert not here.laser_on, case.name


async def work_through(here: Site, case: Case) -> None:
    try:
        await start_work(here)
        await case.ends(here, case)
    except Exception as error:
        error.add_note(f"{case.name} must end as {case.ends.__name__}")
        raise


def disturbed(here: Site, case: Case) -> bool:
    own = {f"device-{role}" for role in on_the_same_line(here, case.role)}
    return any(alarm.startswith("device-") and alarm not in own for alarm in alarms(here))


async def start_work(here: Site) -> None:
    node, ask = here.laboratory.program.node, here.laboratory.ask
    await ask("set", device="hydrogen", values={"flow_mol_per_s": FLOW_MOL_PER_S})
    await soon(lambda: node.state.latest()["gauge.pressure_pa"].value > 2 * node.settings.interlocks.pressure_min_pa)
    await ask("set", device="heater", values={"current_a": 1.0})
    await ask("arm", device="heater")
    await ask("start", record=False)
    await soon(lambda: status(here)["run"]["frames"] > 0 and node.state.latest()["heater.emission"].value == 1)
    assert here.laser_on and here.world.flow_mol_per_s("hydrogen") > 0 and not alarms(here)


def on_the_same_line(here: Site, role: str) -> set[str]:
    lines = here.lab.lines
    return {role, *(other for other, line in lines.items() if line is lines.get(role))}


# What people see


def status(here: Site) -> dict[str, Any]:
    return status_tree(here.laboratory.program.node)


def alarms(here: Site) -> dict[str, Alarm]:
    """That stand, by id."""
    return {alarm["id"]: Alarm(**alarm) for alarm in status(here)["alarms"]}


def shown(here: Site, role: str) -> bool:
    """Not connected with an alarm, or a reading that is invalid with its reason; the latter are counted."""
    device = status(here)["devices"][role]
    invalid = [reading for reading in device["readings"].values() if not reading["valid"]]
    assert all(reading["value"] is None and reading["reason"] for reading in invalid)
    if not device["connected"]:
        return bool(device["reason"]) and f"device-{role}" in alarms(here)
    return bool(invalid) and status(here)["counters"]["devices"][role]["invalid"] > 0


def lost_frames(here: Site) -> float:
    """As shown."""
    return float(status(here)["devices"]["detector"]["readings"]["frames_lost"]["value"] or 0)


async def frames_come(here: Site) -> None:
    before = status(here)["run"]["frames"]
    await soon(lambda: status(here)["run"]["frames"] > before + 2)
    assert status(here)["state"] == "acquiring"


async def back_and_still_off(here: Site, case: Case) -> None:
    """Once mended every device is back by itself, with nothing on."""
    case.mend(here)
    connections = here.laboratory.program.node.state.connections
    await soon(lambda: all(at.connected for at in connections.values()) and not shown(here, case.role))
    assert not here.laser_on
    assert here.world.flow_mol_per_s("hydrogen") == 0


async def soon(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(within_s + BUSY_MACHINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.03)
