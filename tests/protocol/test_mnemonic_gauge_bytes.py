"""What the gauge driver says and hears, byte for byte, and that its emulator speaks as the manuals tell."""

from __future__ import annotations

import pytest

from acquisition.clock import SystemClock, VirtualClock
from acquisition.devices import Reading
from acquisition.errors import DeviceFailed
from acquisition.instrument import four_quadrant
from byte_scripts import scripted
from hardware_drivers.connection import Connection
from hardware_drivers.emulators.mnemonic_gauge import EmulatedMnemonicGauge
from hardware_drivers.mnemonic_gauge import MnemonicGauge
from hardware_drivers.simulated import World

ACK, NAK, ENQ = b"\x06\r\n", b"\x15\r\n", b"\x05"
STREAM_STOPPED = (b"\x03", b"")

Script = tuple[tuple[bytes, bytes], ...]


def told(mnemonic: bytes, data: bytes) -> Script:
    return (mnemonic + b"\r", ACK), (ENQ, data + b"\r\n")


def refused(mnemonic: bytes, word: bytes = b"0001") -> Script:
    return (mnemonic + b"\r", NAK), (ENQ, word + b"\r\n")


def connecting(unit: bytes = b"0", gauges: bytes = b"CDG") -> Script:
    return STREAM_STOPPED, *told(b"AYT", b"VGC501,398-481,100,1.10,1.0"), *told(b"UNI", unit), *told(b"TID", gauges)


def gauge(connection: Connection, channel: int = 1) -> MnemonicGauge:
    gauge = MnemonicGauge("gauge", connection.address, SystemClock(), "capacitance", channel=channel)
    gauge._connection = connection
    return gauge


async def reading(*script: tuple[bytes, bytes], channel: int = 1) -> Reading:
    async with scripted(*script) as connection, gauge(connection, channel) as connected:
        return (await connected.read())["pressure_pa"]


@pytest.mark.parametrize(
    ("unit", "pressure_pa"),
    [(b"0", 121.0), (b"1", 161.3201), (b"2", 1.21), (b"3", 0.1613201), (b"4", 121.0)],
    ids=["mbar", "Torr", "Pa", "micron", "hPa"],
)
async def test_pressure_is_asked_with_its_unit(unit: bytes, pressure_pa: float) -> None:
    measured = await reading(*connecting(unit), *told(b"PR1", b"0,+1.2100E+00"), *told(b"UNI", unit))
    assert measured.valid and measured.value == pytest.approx(pressure_pa, rel=1e-6)


async def test_second_channel_is_asked_and_verified_as_such() -> None:
    script = (*connecting(gauges=b"PSG,CDG"), *told(b"PR2", b"0,+5.0000E+00"), *told(b"UNI", b"0"))
    assert (await reading(*script, channel=2)).value == pytest.approx(500.0)


async def test_older_controllers_tell_their_firmware_instead_of_their_model() -> None:
    older = STREAM_STOPPED, *refused(b"AYT"), *told(b"PNR", b"302-510-A"), *told(b"UNI", b"0"), *told(b"TID", b"CMR")
    async with scripted(*older) as connection, gauge(connection) as connected:
        assert connected.identification == "302-510-A"


async def test_controller_that_cannot_tell_its_gauge_is_believed_to_have_the_one_set_up() -> None:
    connected = STREAM_STOPPED, *told(b"AYT", b"VGC"), *told(b"UNI", b"2"), *refused(b"TID")
    measured = await reading(*connected, *told(b"PR1", b"0,+9.0000E+01"), *told(b"UNI", b"2"))
    assert (measured.valid, measured.value) == (True, 90.0)


@pytest.mark.parametrize("gauges", [b"PSG", b"TPR/PCR", b"PCG", b"BPG402", b"XYZ"])
async def test_gas_dependent_or_unknown_gauge_told_as_capacitance_is_refused(gauges: bytes) -> None:
    async with scripted(*connecting(gauges=gauges)) as connection:
        with pytest.raises(DeviceFailed, match=rf"capacitance.*{gauges.decode()}.*gauge\.technology"):
            await gauge(connection).__aenter__()


async def test_another_gauge_plugged_in_meanwhile_is_refused() -> None:
    script = *connecting(), *told(b"PR1", b"5,+2.0000E-02"), *told(b"UNI", b"0"), *told(b"TID", b"PSG")
    async with scripted(*script) as connection, gauge(connection) as connected:
        assert not (await connected.read())["pressure_pa"].valid
        with pytest.raises(DeviceFailed, match="PSG"):
            await connected.read()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (b"1", "below"),
        (b"2", "above the gauge's full scale"),
        (b"3", "sensor error"),
        (b"4", "switched off"),
        (b"5", "no gauge"),
        (b"6", "identified"),
        (b"7", "error of its own"),
        (b"9", "unknown status 9"),
    ],
)
async def test_status_makes_the_reading_invalid_with_its_reason(status: bytes, reason: str) -> None:
    measured = await reading(*connecting(), *told(b"PR1", status + b",+1.2100E+00"), *told(b"UNI", b"0"))
    assert not measured.valid and reason in measured.reason


async def test_unit_changed_at_the_front_panel_misreads_nothing() -> None:
    script = *connecting(b"0"), *told(b"PR1", b"0,+1.2100E+02"), *told(b"UNI", b"2")
    again = *told(b"PR1", b"0,+1.2100E+02"), *told(b"UNI", b"2")
    async with scripted(*script, *again) as connection, gauge(connection) as connected:
        changed = (await connected.read())["pressure_pa"]
        assert not changed.valid and "unit was just changed" in changed.reason
        assert (await connected.read())["pressure_pa"].value == 121.0


async def test_volts_are_no_pressure() -> None:
    measured = await reading(*connecting(b"5"), *told(b"PR1", b"0,+1.2100E+00"), *told(b"UNI", b"5"))
    assert not measured.valid and "volts" in measured.reason


@pytest.mark.parametrize("number", [b"+9.9999E+99", b"-5.0000E+00"])
async def test_what_is_no_pressure_is_invalid(number: bytes) -> None:
    measured = await reading(*connecting(), *told(b"PR1", b"0," + number), *told(b"UNI", b"0"))
    assert not measured.valid and "no pressure" in measured.reason


@pytest.mark.parametrize(
    ("word", "meaning"),
    [(b"0001", "syntax"), (b"0010", "parameter"), (b"0100", "no such hardware"), (b"1000", "controller itself")],
)
async def test_refusal_is_told_in_words(word: bytes, meaning: str) -> None:
    async with scripted(*connecting(), *refused(b"PR1", word)) as connection, gauge(connection) as connected:
        with pytest.raises(DeviceFailed, match=f"refused PR1.*{meaning}"):
            await connected.read()


@pytest.mark.parametrize("answer", [b"0,1.21", b"0,+1.2100E+0x", b"", b"OK"])
async def test_what_is_no_measurement_fails(answer: bytes) -> None:
    script = (*connecting(), *told(b"PR1", answer), *told(b"UNI", b"0"))
    async with scripted(*script) as connection, gauge(connection) as connected:
        with pytest.raises(DeviceFailed, match="to PR1: check baud rate"):
            await connected.read()


def test_emulator_speaks_as_the_manuals_tell() -> None:
    world = World("flat", four_quadrant(), VirtualClock())
    instrument = EmulatedMnemonicGauge(world, unit=2, gauges=("CDG", "noSEn"))
    assert instrument.unasked() == b"0,+1.0000E-04,5,+2.0000E+00\r\n"
    conversation = [
        (b"\x03", b""),
        (b"PR1\r", ACK),
        (ENQ, b"0,+1.0000E-04\r\n"),
        (b"PR2\r\n", ACK),
        (ENQ, b"5,+2.0000E+00\r\n"),
        (b"PR3\r", NAK),
        (ENQ, b"0100\r\n"),
        (b"UNI,9\r", NAK),
        (ENQ, b"0010\r\n"),
        (b"NONSENSE\r", NAK),
        (ENQ, b"0001\r\n"),
        (b"TI", b""),
        (b"D\r", ACK),
        (ENQ, b"CDG,noSEn\r\n"),
    ]
    assert [instrument.receive(asked) for asked, _ in conversation] == [answer for _, answer in conversation]
    assert instrument.unasked() == b""
