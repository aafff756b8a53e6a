"""What the stage driver says and hears, byte for byte, and that its emulator speaks as the manual tells."""

from __future__ import annotations

import pytest

from acquisition.clock import VirtualClock
from acquisition.devices import Limits, StagePosition
from acquisition.errors import BadInput, DeviceFailed, LimitExceeded, RequestRefused
from acquisition.instrument import four_quadrant
from byte_scripts import scripted
from hardware_drivers.connection import Connection
from hardware_drivers.emulators.gcs2 import EmulatedGcs2
from hardware_drivers.gcs2 import Gcs2Stage, PiAxis
from hardware_drivers.simulated import World

IDN = b"(c)2015 Physik Instrumente (PI) GmbH & Co. KG, C-884.4DC, 0115550000, 1.2.0.0\n"
STOP = b"\x18STP\n"
STOPPING = ((STOP + b"ERR?\n", b"10\n"), (b"\x05", b"0\n"))
BOX = Limits(-5e-3, 5e-3, "stage.x_limits_m")

Script = tuple[tuple[bytes, bytes], ...]


def of_axes(question: bytes, *values: bytes) -> Script:
    asked = zip((b"1", b"2"), values, strict=True)
    return tuple((question + b" " + axis + b"\n", axis + b"=" + value + b"\n") for axis, value in asked)


CONNECTING = (STOP, b""), (b"*IDN?\n", IDN), *STOPPING, *of_axes(b"FRF?", b"1", b"1")
PREPARING = *of_axes(b"FRF?", b"1", b"1"), (b"ERR?\n", b"0\n"), *of_axes(b"SVO?", b"1", b"1")


def still(*positions_mm: bytes) -> Script:
    return (b"\x05", b"0\n"), *of_axes(b"ONT?", b"1", b"1"), *of_axes(b"POS?", *positions_mm)


def stage(connection: Connection) -> Gcs2Stage:
    axes = {"x": PiAxis("1", BOX), "y": PiAxis("2", BOX)}
    stage = Gcs2Stage("stage", connection.address, VirtualClock(), axes)
    stage._controller._connection = connection
    return stage


async def test_move_is_sent_in_millimetres_and_verified() -> None:
    on_the_way = (b"\x05", b"3\n"), *of_axes(b"ONT?", b"0", b"0"), *of_axes(b"POS?", b"0.6", b"-0.01")
    move = *PREPARING, (b"MOV 1 1.1 2 -0.02\nERR?\n", b"0\n"), *on_the_way, *still(b"1.1", b"-0.02")
    async with scripted(*CONNECTING, *move, *STOPPING) as connection, stage(connection) as connected:
        assert await connected.move(StagePosition(1.1e-3, -20e-6)) == StagePosition(1.1e-3, -20e-6, 0.0)


async def test_position_is_read_with_the_reference_of_its_axes() -> None:
    read = *of_axes(b"FRF?", b"1", b"0"), *of_axes(b"POS?", b"25.3", b"0.5"), (b"\x05", b"1\n")
    async with scripted(*CONNECTING, *read, *STOPPING) as connection, stage(connection) as connected:
        readings = await connected.read()
    assert (readings["x_m"].value, readings["x_m"].valid) == (pytest.approx(25.3e-3), True)
    assert not readings["y_m"].valid and "axis 2 is not referenced" in readings["y_m"].reason
    assert (readings["z_m"].value, readings["moving"].value) == (0.0, 1.0)


async def test_unreferenced_axis_is_not_moved() -> None:
    script = *CONNECTING, *of_axes(b"FRF?", b"0", b"1"), *STOPPING
    async with scripted(*script) as connection, stage(connection) as connected:
        with pytest.raises(RequestRefused, match="axis 1 is not referenced and was not moved"):
            await connected.move(StagePosition(1e-3, 0.0))


async def test_servo_that_is_off_is_switched_on_before_a_move() -> None:
    servo = *of_axes(b"SVO?", b"1", b"0"), (b"SVO 2 1\nERR?\n", b"0\n")
    move = *PREPARING[:3], *servo, (b"MOV 1 0 2 0\nERR?\n", b"0\n"), *still(b"0", b"0")
    async with scripted(*CONNECTING, *move, *STOPPING) as connection, stage(connection) as connected:
        await connected.move(StagePosition(0.0, 0.0))


@pytest.mark.parametrize("target", [StagePosition(6e-3, 0.0), StagePosition(0.0, -6e-3), StagePosition(0.0, 0.0, 1e-6)])
async def test_target_beyond_a_limit_or_of_a_missing_axis_sends_nothing(target: StagePosition) -> None:
    async with scripted(*CONNECTING, *STOPPING) as connection, stage(connection) as connected:
        with pytest.raises(LimitExceeded, match="nothing was sent"):
            await connected.move(target)


@pytest.mark.parametrize(
    ("error", "meaning"), [(b"7", "out of the controller's limits"), (b"5", "servo is off"), (b"999", "manual")]
)
async def test_refused_move_is_told_in_words(error: bytes, meaning: str) -> None:
    refused = *CONNECTING, *PREPARING, (b"MOV 1 1 2 0\nERR?\n", error + b"\n"), *STOPPING, *STOPPING
    async with scripted(*refused) as connection, stage(connection) as connected:
        with pytest.raises(DeviceFailed, match=f"refused MOV 1 1 2 0: error {error.decode()}, .*{meaning}"):
            await connected.move(StagePosition(1e-3, 0.0))


@pytest.mark.parametrize(("x_m", "text"), [(20e-9, b"0.00002"), (-1e-12, b"0"), (-2.5e-3, b"-2.5")])
async def test_targets_are_plain_decimals(x_m: float, text: bytes) -> None:
    move = *PREPARING, (b"MOV 1 " + text + b" 2 0\nERR?\n", b"0\n"), *still(text, b"0")
    async with scripted(*CONNECTING, *move, *STOPPING) as connection, stage(connection) as connected:
        assert (await connected.move(StagePosition(x_m, 0.0))).x_m == pytest.approx(x_m, abs=1e-11)


async def test_nonsense_during_a_move_stops_it() -> None:
    lost = (b"\x05", b"1\n"), *of_axes(b"ONT?", b"0", b"?"), *STOPPING
    move = *PREPARING, (b"MOV 1 1 2 0\nERR?\n", b"0\n"), *lost
    async with scripted(*CONNECTING, *move, *STOPPING) as connection, stage(connection) as connected:
        with pytest.raises(DeviceFailed, match="to ONT"):
            await connected.move(StagePosition(1e-3, 0.0))


@pytest.mark.parametrize("answer", [b"SCPI THING\n", b"\n"])
async def test_another_instrument_is_not_taken_for_the_stage(answer: bytes) -> None:
    async with scripted((STOP, b""), (b"*IDN?\n", answer)) as connection:
        with pytest.raises(DeviceFailed, match="on this line"):
            await stage(connection).__aenter__()


@pytest.mark.parametrize("answer", [b"2=25.3\n", b"1=nan\n", b"25.3\n", b"1=25,3\n"])
async def test_what_is_no_position_fails(answer: bytes) -> None:
    read = *of_axes(b"FRF?", b"1", b"1"), (b"POS? 1\n", answer), (b"POS? 2\n", b"2=0\n")
    async with scripted(*CONNECTING, *read, *STOPPING) as connection, stage(connection) as connected:
        with pytest.raises(DeviceFailed, match="to POS"):
            await connected.read()


def test_axis_that_is_none_of_the_stage_is_refused() -> None:
    with pytest.raises(BadInput, match="u"):
        Gcs2Stage("stage", "COM3", VirtualClock(), {"u": PiAxis("1", BOX)})  # type: ignore[dict-item]


async def test_emulator_speaks_as_the_manual_tells() -> None:
    world = World("flat", four_quadrant(), VirtualClock())
    instrument = EmulatedGcs2(world)
    conversation = [
        (b"POS? 1\n", b"1=0.000000\n"),
        (b"POS?\n", b"1=0.000000 \n2=0.000000 \n3=0.000000\n"),
        (b"MOV 1 0.1 2 -0.05\n", b""),
        (b"\x05", b"3\n"),
        (b"ONT? 1\n", b"1=0\n"),
        (b"MOV 1 1000\nERR?\n", b"7\n"),
        (b"MOV 9 1\nERR?\n", b"15\n"),
        (b"MOV 1\nERR?\nERR?\n", b"1\n0\n"),
        (b"DOX\nERR?\n", b"2\n"),
    ]
    assert [instrument.receive(asked) for asked, _ in conversation] == [answer for _, answer in conversation]
    await world.clock.sleep(1.0)
    assert instrument.receive(b"PO\x18S? 1\nERR?\n\x05") == b"1=0.050000\n10\n0\n"
    assert world.stage.x_m == pytest.approx(50e-6)
