"""The OsTech driver and its emulator say byte for byte what the LDC manual says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import emulated
from acquisition.clock import SystemClock
from acquisition.errors import DeviceFailed, LimitExceeded
from acquisition.instrument import four_quadrant
from emulated import Eavesdropper
from hardware_drivers.emulators.line import Fault
from hardware_drivers.emulators.ostech import BINARY, ECHO_OFF, REDUCED, OsTechEmulator
from hardware_drivers.ostech import OsTechLaserHeater
from hardware_drivers.simulated import World

ALL_GOOD, ALL_GOOD_AND_ON, INTERLOCK_OPEN = b"3085", b"19469", b"3084"


@pytest.fixture
def world() -> World:
    return World("flat", four_quadrant(), SystemClock())


@asynccontextmanager
async def overheard(world: World) -> AsyncIterator[tuple[OsTechLaserHeater, Eavesdropper]]:
    """The entered driver; what was said while entering is forgotten."""
    ear = Eavesdropper(OsTechEmulator(world))
    async with emulated.ostech(ear, world.clock) as (heater, _), heater:
        ear.said.clear()
        yield heater, ear


def turns(*lines: tuple[bytes, bytes]) -> list[tuple[str, bytes]]:
    """A question with its echo and answer, as reduced mode has it."""
    return [turn for sent, came in lines for turn in ((">", sent + b"\r"), ("<", sent + b"\r" + came + b"\r"))]


async def test_the_first_bytes_stop_the_laser_and_the_rest_of_entering_is_in_order(world: World) -> None:
    ear = Eavesdropper(OsTechEmulator(world))
    async with emulated.ostech(ear, world.clock) as (heater, _), heater:
        assert ear.said[:2] == [(">", b"\x1bLS\r"), ("<", b"\x1bLS\rLaser: S\r")]
        assert ear.said[2:8] == [
            (">", b"LCT0\r"),
            ("<", b"LCT0\rLaser Current Target: 0.0 mA\r"),
            (">", b"GMC10\r"),
            ("<", b"GMC10\rMode: 0\r"),
            (">", b"GMS32768\r"),
            ("<", b"GMS32768\r32768\r"),
        ]
        assert ear.said[8:] == turns(
            (b"GM", b"32768"), (b"LS", b"S"), (b"LCT0.0", b"0.0"), (b"LCL1500.0", b"1500.0"), (b"LCL", b"1500.0")
        )


async def test_a_current_is_set_as_in_the_manual(world: World) -> None:
    async with overheard(world) as (heater, ear):
        await heater.set_current(0.2223)
        assert ear.said == turns((b"LCT222.3", b"222.3"))


async def test_arming_looks_at_the_interlock_runs_and_looks_again(world: World) -> None:
    async with overheard(world) as (heater, ear):
        await heater.arm()
        assert ear.said == turns((b"GS", ALL_GOOD), (b"LR", b"R"), (b"GS", ALL_GOOD_AND_ON))


async def test_off_stops_before_it_sets_the_target(world: World) -> None:
    async with overheard(world) as (heater, ear):
        await heater.off()
        assert ear.said == turns((b"LS", b"S"), (b"LCT0.0", b"0.0"))


async def test_status_asks_word_current_and_target(world: World) -> None:
    async with overheard(world) as (heater, ear):
        await heater.status()
        assert ear.said == turns((b"GS", ALL_GOOD), (b"LCA", b"0.0"), (b"LCT", b"0.0"))


async def test_leaving_stops(world: World) -> None:
    ear = Eavesdropper(OsTechEmulator(world))
    async with emulated.ostech(ear, world.clock) as (heater, _):
        async with heater:
            ear.said.clear()
        assert ear.said == turns((b"LS", b"S"), (b"LCT0.0", b"0.0"))


async def test_a_current_beyond_the_limit_sends_nothing(world: World) -> None:
    async with overheard(world) as (heater, ear):
        with pytest.raises(LimitExceeded):
            await heater.set_current(1.6)
        assert ear.said == []


async def test_an_open_interlock_that_is_read_is_answered_by_a_stop(world: World) -> None:
    async with overheard(world) as (heater, ear):
        await heater.set_current(0.5)
        await heater.arm()
        world.set_interlock(False)
        ear.said.clear()
        readings = await heater.read()
        look = ((b"GS", INTERLOCK_OPEN), (b"LCA", b"0.0"))
        assert ear.said == turns(*look, (b"LCT", b"500.0"), (b"LS", b"S"), (b"LCT0.0", b"0.0"), *look, (b"LCT", b"0.0"))
        assert readings["interlock"].value == readings["current_target_a"].value == 0.0


class Misheard(OsTechEmulator):
    """Gets another question than was asked."""

    def receive(self, data: bytes) -> bytes:
        return super().receive(data.replace(b"LCA", b"LTM"))


async def test_an_answer_whose_echo_is_another_questions_is_not_taken(world: World) -> None:
    async with emulated.ostech(Misheard(world), world.clock) as (heater, _), heater:
        with pytest.raises(DeviceFailed, match=r"answered 'LCA' with .*LTM.* for an echo"):
            await heater.status()


@pytest.mark.parametrize("mode", [0, BINARY, ECHO_OFF | BINARY | REDUCED])
async def test_it_is_understood_whatever_mode_it_was_left_in(world: World, mode: int) -> None:
    instrument = OsTechEmulator(world)
    instrument.mode = mode
    instrument.receive(b"LCT99")
    async with emulated.ostech(instrument, world.clock) as (heater, _), heater:
        assert not (await heater.status()).emission_on


async def test_faults_of_the_status_word_are_told_in_words(world: World) -> None:
    async with emulated.ostech(OsTechEmulator(world), world.clock) as (heater, line), heater:
        assert (await heater.read())["healthy"].value == 1
        line.fault = Fault.NOT_READY
        healthy = (await heater.read())["healthy"]
        assert not healthy.valid and "above its maximum temperature" in healthy.reason
        with pytest.raises(DeviceFailed, match=r"did not start.*above its maximum temperature"):
            await heater.arm()
        assert not world.laser_emitting


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        (b"lct222.3\r", b"LCT222.3\rLaser Current Target: 222.3 mA\r"),
        (b"GMS32768\rLCT222.3\r", b"GMS32768\r32768\rLCT222.3\r222.3\r"),
        (b"RLCT222.3\r", b"RLCT222.3\r222.3\r"),
        (b"GMS32770\rLCT 222.3\r", b"GMS32770\r32770\r222.3\r"),
        (b"LCT9\x1bRGS\r", b"LCT9\x1bRGS\r3085\r"),
        (b"RLCT12\x083\r", b"RLCT12\x083\r13.0\r"),
        (b"LCT 000000222.3\r", b"LCT 000000222.3\r"),
        (b"HELLO\r", b"HELLO\r"),
        (b"RLTM30\r", b"RLTM30\r30.0\r"),
        (b"RLCL1000\rRLCT1200\r", b"RLCL1000\r1000.0\rRLCT1200\r1000.0\r"),
        (b"GMS10\rL\rGS\r", b"GMS10\r\x00\x0a\x5fU\x0c\x0d\x6e"),
    ],
)
def test_the_emulator_answers_as_the_manual_says(world: World, sent: bytes, came: bytes) -> None:
    assert OsTechEmulator(world).receive(sent) == came


def test_the_emulator_takes_bytes_in_any_pieces(world: World) -> None:
    instrument = OsTechEmulator(world)
    assert b"".join(instrument.receive(bytes((key,))) for key in b"RLCT5.5\r") == b"RLCT5.5\r5.5\r"
    assert world.laser_target_a == pytest.approx(0.0055)
