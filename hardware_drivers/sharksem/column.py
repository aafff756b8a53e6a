"""The electron column as SharkSEM tells it: voltage, current, working distance, view field, beam, chamber pressure."""

from __future__ import annotations

from dataclasses import dataclass

from hardware_drivers.sharksem.client import SharkSemSession
from hardware_drivers.sharksem.message import Body, Flags

BEAM_OFF = 0
BEAM_ON = 1
BEAM_IN_TRANSITION = 1000
OPTICS_TIMEOUT_S = 5.0
CHAMBER_GAUGE = 0
STATES_SINCE = (3, 1, 1)
INFRARED_PROTECTION = 1 << 2


@dataclass(frozen=True, slots=True)
class Column:
    """What a frame is taken with. `beam` is 1 when on; with any other value there is none to measure with."""

    high_voltage_v: float
    beam_current_a: float
    working_distance_m: float
    view_field_m: float
    beam: int


def beam_trouble(beam: int) -> str:
    """Why there is no beam to scan with; empty when it is on."""
    if beam == BEAM_ON:
        return ""
    if beam == BEAM_IN_TRANSITION:
        return "the beam is being switched; wait until it is on"
    if beam == BEAM_OFF:
        return "the beam is off; switch it on at the microscope"
    return f"the microscope cannot tell the state of its beam ({beam}); look at the microscope"


async def read_column(session: SharkSemSession) -> Column:
    """Raises `DeviceFailed`."""
    return Column(
        high_voltage_v=await session.ask("HVGetVoltage", answer=Body.number),
        beam_current_a=1e-12 * await session.ask("GetBeamCurrent", answer=Body.number),
        working_distance_m=1e-3 * await session.ask("GetWD", answer=Body.number),
        view_field_m=1e-3 * await session.ask("GetViewField", answer=Body.number),
        beam=await read_beam(session),
    )


async def read_beam(session: SharkSemSession) -> int:
    """0 off, 1 on, 1000 in transition, below 0 unknown. Raises `DeviceFailed`."""
    return await session.ask("HVGetBeam", answer=Body.integer)


async def read_chamber_pressure_pa(session: SharkSemSession) -> float:
    return await session.ask("VacGetPressure", CHAMBER_GAUGE, answer=Body.number)


async def set_view_field(session: SharkSemSession, view_field_m: float) -> float:
    """Width of the scanned field in metres; gives what the optics really settled on. Raises `DeviceFailed`."""
    await session.order("SetViewField", 1e3 * view_field_m)
    return 1e-3 * await session.ask(
        "GetViewField", answer=Body.number, wait=Flags.WAIT_OPTICS, timeout_s=OPTICS_TIMEOUT_S
    )


async def is_infrared_protected(session: SharkSemSession, detector: int) -> bool:
    """Whether too much infrared light, a heating laser's for instance, has made a semiconductor detector protect
    itself. Servers older than 3.1.1 do not know and would not answer: False there. Raises `DeviceFailed`."""
    if session.version < STATES_SINCE:
        return False
    return bool(await session.ask("DtStateGet", detector, answer=Body.integer) & INFRARED_PROTECTION)
