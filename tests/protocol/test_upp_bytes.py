"""The UPP driver and its emulator say byte for byte what LumaSense's manuals say."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

import emulated
from acquisition.clock import Instant, VirtualClock
from acquisition.devices import Reading
from acquisition.errors import DeviceFailed, LimitExceeded
from acquisition.instrument import four_quadrant
from emulated import Eavesdropper
from hardware_drivers.emulators.line import Fault
from hardware_drivers.emulators.upp import UppEmulator
from hardware_drivers.simulated import World


class Scripted:
    """Answers each line with what the script has for it."""

    def __init__(self, script: dict[bytes, bytes]) -> None:
        self.fault = Fault.NONE
        self._script = script

    def restart(self) -> None:
        pass

    def receive(self, data: bytes) -> bytes:
        return b"".join(self._script.get(line, b"") for line in data.splitlines(keepends=True))


@asynccontextmanager
async def measuring(world: World) -> AsyncIterator[Callable[[bytes], Awaitable[Reading]]]:
    """An entered pyrometer that is made to answer and gives what it reads."""
    script = {b"00em\r": b"0970\r"}
    async with emulated.upp(Scripted(script), world.clock) as (pyrometer, _), pyrometer:

        async def read(answer: bytes) -> Reading:
            script[b"00ms\r"] = answer + b"\r"
            return (await pyrometer.read())["temperature_k"]

        yield read


@pytest.fixture
def world() -> World:
    return World("flat", four_quadrant(), VirtualClock(Instant(1_000_000_000, 1_700_000_000_000_000_000)))


async def test_every_command_has_the_manuals_bytes(world: World) -> None:
    ear = Eavesdropper(UppEmulator(world, range_c=(250.0, 1400.0)))
    async with emulated.upp(ear, world.clock) as (pyrometer, _), pyrometer:
        await pyrometer.set_emissivity(0.97)
        await pyrometer.read()
    assert ear.said == [
        (">", b"\r"),
        *((">", b"00em\r"), ("<", b"0700\r")),
        *((">", b"00em0970\r"), ("<", b"ok\r")),
        *((">", b"00em\r"), ("<", b"0970\r")),
        *((">", b"00ms\r"), ("<", b"02500\r")),
        *((">", b"00em\r"), ("<", b"0970\r")),
    ]


async def test_answers_are_tenths_of_a_degree_celsius(world: World) -> None:
    async with measuring(world) as read:
        for answer, kelvin in ((b"05237", 796.85), (b"-0170", 256.15), (b"02563", 529.45)):
            reading = await read(answer)
            assert reading.valid and reading.value == pytest.approx(kelvin)


async def test_codes_are_invalid_and_never_temperatures(world: World) -> None:
    codes = {
        b"88880": "above the pyrometer's range",
        b"77770": "not ready",
        b"75550": "head is too hot",
        b"74440": "head is too cold",
        b"99990": "no temperature",
    }
    async with measuring(world) as read:
        for code, reason in codes.items():
            reading = await read(code)
            assert not reading.valid and math.isnan(reading.value) and reason in reading.reason


async def test_what_is_no_answer_to_the_question_fails(world: World) -> None:
    async with measuring(world) as read:
        for answer in (b"", b"5237", b"0523.7", b"+5237", b"052370", b"ok", b"no", b"\xb05237", b"1e400"):
            with pytest.raises(DeviceFailed, match=r"answered '00ms'.*even parity"):
                await read(answer)


async def test_a_refused_emissivity_fails_with_the_way_out(world: World) -> None:
    async with emulated.upp(UppEmulator(world), world.clock) as (pyrometer, line), pyrometer:
        line.fault = Fault.REFUSING
        with pytest.raises(DeviceFailed, match=r"refused an emissivity of 0.5.*ask for another"):
            await pyrometer.set_emissivity(0.5)
        assert (await pyrometer.read())["emissivity"].value == 0.7


async def test_an_emissivity_that_is_not_held_fails(world: World) -> None:
    forgetful = Scripted({b"00em\r": b"0970\r", b"00em0500\r": b"ok\r"})
    async with emulated.upp(forgetful, world.clock) as (pyrometer, _), pyrometer:
        with pytest.raises(DeviceFailed, match=r"holds an emissivity of 0.97 instead of 0.5"):
            await pyrometer.set_emissivity(0.5)


async def test_an_emissivity_beyond_the_limits_sends_nothing(world: World) -> None:
    ear = Eavesdropper(UppEmulator(world))
    async with emulated.upp(ear, world.clock) as (pyrometer, _), pyrometer:
        ear.said.clear()
        with pytest.raises(LimitExceeded):
            await pyrometer.set_emissivity(1.5)
        assert ear.said == []


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        (b"00em\r", b"0700\r"),
        (b"00em0970\r00em\r", b"ok\r0970\r"),
        (b"00em1001\r", b"no\r"),
        (b"00em0009\r", b"no\r"),
        (b"99em\r", b"0700\r"),
        (b"98em0500\r00em\r", b"0500\r"),
        (b"01em\r", b""),
        (b"00xy\r00EM\r\r", b""),
        (b"00ms\r", b"02500\r"),
    ],
)
def test_the_emulator_answers_as_the_manuals_say(world: World, sent: bytes, came: bytes) -> None:
    assert UppEmulator(world).receive(sent) == came
