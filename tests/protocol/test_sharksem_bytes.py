"""SharkSEM byte for byte: what the drivers send, in which order, and how answers are read."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

import tescan
from acquisition.devices import StagePosition
from acquisition.errors import BadInput, DeviceFailed, MessageRejected
from hardware_drivers.sharksem import SharkSemSession
from hardware_drivers.sharksem.message import Body, Chunk, Flags, Header, encode_body, encode_message
from hardware_drivers.sharksem.scan import ScanAssembly

DETECTORS = "".join(f"det.{n}.name=BSE Q{n}\ndet.{n}.detector={n + 3}\n" for n in range(1, 5))
ANSWERS: Mapping[str, bytes] = {
    "TcpGetVersion": bytes.fromhex("07000000 332e322e323000 00"),
    "TcpRegDataPort": bytes(4),
    "DtEnumDetectors": encode_body(DETECTORS),
    "DtGetChannels": bytes.fromhex("04000000"),
    "StgIsCalibrated": bytes.fromhex("01000000"),
    "StgIsBusy": bytes(4),
    "StgGetPosition": bytes.fromhex("05000000 302e303200000000 05000000 2d302e3500000000 02000000 3000 0000")
    + bytes.fromhex("02000000 3000 0000 02000000 3000 0000"),
    "HVGetVoltage": bytes.fromhex("06000000 313030303000 0000"),
    "HVGetBeam": bytes.fromhex("01000000"),
    "GetBeamCurrent": bytes.fromhex("05000000 3130303000 000000"),
    "GetWD": bytes.fromhex("02000000 3800 0000"),
    "GetViewField": bytes.fromhex("07000000 302e3030303400 00"),
    "DtGetSelected": b"",
    "DtStateGet": bytes(4),
    "ScScanXY": bytes.fromhex("ffffffff"),
}


class Microscope:
    """Notes every message as it came, and answers from a table; commands outside of it get an empty answer."""

    def __init__(self, answers: Mapping[str, bytes] = ANSWERS) -> None:
        self.messages: list[bytes] = []
        self.events: list[str] = []
        self.data_port = 0
        self._answers = answers
        self._selected: dict[int, bytes] = {}

    def bodies(self, command: str) -> list[str]:
        """The bodies sent with a command, as hexadecimal words."""
        named = [message for message in self.messages if message[:16].rstrip(b"\0").decode() == command]
        return [message[32:].hex(" ", 4) for message in named]

    def header(self, command: str) -> bytes:
        return next(message[:32] for message in self.messages if message.startswith(command.encode() + b"\0"))

    async def serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.events.append("control opened")
        try:
            while True:
                head = await reader.readexactly(32)
                body = await reader.readexactly(struct.unpack_from("<I", head, 16)[0])
                self.messages.append(head + body)
                command = head[:16].rstrip(b"\0").decode()
                self.events.append(command)
                if command == "DtSelect":
                    self._selected[body[0]] = body[4:]
                answer = self._selected[body[0]] if command == "DtGetSelected" else self._answers.get(command, b"")
                if head[24] & 1:
                    writer.write(head[:16] + struct.pack("<I", len(answer)) + head[20:24] + bytes(8) + answer)
        except EOFError:
            self.events.append("control closed")
            writer.close()

    async def serve_data(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.data_port = writer.get_extra_info("peername")[1]
        self.events.append("data opened")
        await reader.read()
        self.events.append("data closed")
        writer.close()


@asynccontextmanager
async def served(microscope: Microscope) -> AsyncIterator[SharkSemSession]:
    for tries_left in reversed(range(20)):
        control = await asyncio.start_server(microscope.serve_control, "127.0.0.1", 0)
        port = control.sockets[0].getsockname()[1]
        try:
            data = await asyncio.start_server(microscope.serve_data, "127.0.0.1", port + 1)
            break
        except OSError:
            control.close()
            if not tries_left:
                raise
    async with control, data:
        yield SharkSemSession(f"127.0.0.1:{port}")


def test_header_has_its_32_bytes() -> None:
    sent = encode_message("StgGetPosition", b"abcd", 7, Flags.ANSWER | Flags.WAIT_STAGE)
    assert sent.hex(" ", 4) == "53746747 6574506f 73697469 6f6e0000 04000000 07000000 01020000 00000000 61626364"
    assert Header.decode(sent[:32], 4) == Header("StgGetPosition", 4, 7, 0x0201)


@pytest.mark.parametrize("command", ["", "SixteenLettersAB"])
def test_command_of_another_length_is_never_sent(command: str) -> None:
    with pytest.raises(ValueError, match="15 characters"):
        encode_message(command, b"", 1)


def test_floats_travel_as_text() -> None:
    body = bytes.fromhex("05000000 332e313400000000 04000000 302e3000")
    assert encode_body(3.14, 0.0) == body
    reader = Body(body)
    assert (reader.number(), reader.number(), reader.left) == (3.14, 0.0, 0)


def test_floats_are_sent_with_twelve_digits() -> None:
    assert Body(encode_body(0.00039999999999999996)).text() == "0.0004"
    assert Body(encode_body(1.2345678901234567e-7)).text() == "1.23456789012e-07"


def test_counts_that_include_the_padding_are_read_alike() -> None:
    body = bytes.fromhex("08000000 332e313400000000 04000000 302e3000")
    assert encode_body(3.14, 0.0, rounded_counts=True) == body
    reader = Body(body)
    assert (reader.number(), reader.number(), reader.left) == (3.14, 0.0, 0)


def test_integers_are_little_endian_words() -> None:
    assert encode_body(1, -1, 0xFFFFFFFF).hex(" ", 4) == "01000000 ffffffff ffffffff"
    assert encode_body([1, -2]).hex(" ", 4) == "08000000 01000000 feffffff"


def test_chunk_has_frame_channel_first_pixel_bits_and_bytes() -> None:
    body = bytes.fromhex("09000000 02000000 e8030000 10000000 06000000 0100 ff00 0080 0000")
    chunk = Chunk.decode(body)
    assert (chunk.frame, chunk.channel, chunk.first_pixel, chunk.pixels.tolist()) == (9, 2, 1000, [1, 255, 32768])
    assert chunk.encode() == body


def test_pixels_of_eight_bits_are_let_be_on_channels_of_others_alone() -> None:
    chunk = Chunk.decode(bytes.fromhex("09000000 02000000 00000000 08000000 04000000 01020304"))
    assert chunk.pixels.tolist() == [1, 2, 3, 4]
    ScanAssembly(9, channels=2, height_px=2, width_px=2).take(chunk)
    with pytest.raises(MessageRejected, match="16 bits"):
        ScanAssembly(9, channels=3, height_px=2, width_px=2).take(chunk)


def test_pixels_of_other_bits_are_rejected() -> None:
    with pytest.raises(MessageRejected, match="12 bits"):
        Chunk.decode(bytes.fromhex("09000000 02000000 00000000 0c000000 04000000 01020304"))


async def test_session_opens_in_the_order_told_and_closes_data_first() -> None:
    microscope = Microscope()
    async with served(microscope) as session:
        async with session:
            assert session.version == (3, 2, 20)
        for _ in range(100):
            if "control closed" in microscope.events:
                break
            await asyncio.sleep(0.02)
    events = ["control opened", "TcpGetVersion", "TcpRegDataPort", "data opened", "data closed", "control closed"]
    assert microscope.events == events
    assert microscope.bodies("TcpRegDataPort") == [struct.pack("<I", microscope.data_port).hex()]
    version = microscope.header("TcpGetVersion")
    assert version.hex(" ", 4) == "54637047 65745665 7273696f 6e000000 00000000 01000000 01000000 00000000"


async def test_what_a_stage_sends_for_a_move() -> None:
    microscope = Microscope()
    async with served(microscope) as session, tescan.stage_on(session) as stage:
        reached = await stage.move(StagePosition(20e-6, -500e-6, 0.0))
    assert (reached.x_m, reached.y_m, reached.z_m) == (20e-6, -500e-6, 0.0)
    assert microscope.bodies("StgMoveTo") == ["05000000 302e3032 00000000 05000000 2d302e35 00000000 04000000 302e3000"]
    assert microscope.bodies("StgWatchdog") == ["05000000"]
    assert microscope.header("StgWatchdog")[24:28] == bytes(4), "older servers would never answer it"
    order = [event for event in microscope.events if event.startswith("Stg")]
    asked = ["StgIsCalibrated", "StgIsBusy", "StgGetPosition", "StgWatchdog", "StgMoveTo", "StgIsBusy"]
    assert order[: len(asked) + 1] == ["StgStop", *asked]


async def test_what_a_detector_sends_for_a_scan() -> None:
    microscope = Microscope()
    async with served(microscope) as session, tescan.detector_on(session) as detector:
        instrument = await detector.configure(tescan.SCAN)
        await detector.arm()
        with pytest.raises(DeviceFailed, match=r"refuses to scan 40 x 24 px at 2000 ns \(status -1\)"):
            await anext(detector.exposures(1))
    assert (instrument.beam.energy_ev, instrument.beam.current_a) == pytest.approx((1e4, 1e-9))
    assert (instrument.detector.working_distance_m, instrument.scan.pixel_size_m) == (8e-3, 10e-9)
    assert microscope.bodies("SetViewField") == [], "the view field is right already"
    assert microscope.bodies("GUISetScanning") == ["00000000"]
    assert microscope.bodies("DtSelect") == [f"0{n}000000 0{n + 4}000000" for n in range(4)]
    assert microscope.bodies("DtEnable") == [f"0{n}000000 01000000 10000000" for n in range(4)]
    scan = "01000000 28000000 18000000 00000000 00000000 27000000 17000000 01000000 d0070000"
    assert microscope.bodies("ScScanXY") == [scan]
    assert microscope.events[microscope.events.index("ScScanXY") + 1] == "ScStopScan"


async def test_view_field_is_set_in_millimetres_and_read_back_once_the_optics_rest() -> None:
    microscope = Microscope({**ANSWERS, "GetViewField": encode_body(0.0008)})
    async with served(microscope) as session, tescan.detector_on(session) as detector:
        instrument = await detector.configure(tescan.SCAN)
    assert microscope.bodies("SetViewField") == ["07000000 302e3030 30340000"]
    assert instrument.scan.pixel_size_m == pytest.approx(20e-9), "what the optics really have"
    waiting = [message for message in microscope.messages if message[24:26] == bytes.fromhex("0104")]
    assert [message[:12] for message in waiting] == [b"GetViewField"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"TcpGetVersion": encode_body("1.0.5")}, "update the microscope's program"),
        ({"TcpGetVersion": encode_body("Mira")}, "as its protocol version"),
        ({"TcpGetVersion": bytes(2)}, "ends 2 bytes early"),
        ({"TcpRegDataPort": struct.pack("<i", -1)}, r"status -1"),
    ],
)
async def test_server_that_cannot_serve_is_told_with_the_reason(answer: dict[str, bytes], told: str) -> None:
    microscope = Microscope({**ANSWERS, **answer})
    async with served(microscope) as session:
        with pytest.raises(DeviceFailed, match=rf"{session.address}.*{told}"):
            await session.__aenter__()
        assert session.state == "away"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda head: b"GetWD".ljust(16, b"\0") + head[16:], "GetWD answers TcpGetVersion"),
        (lambda head: head[:20] + struct.pack("<I", 99) + head[24:], "number 99, which was never asked"),
        (lambda head: head[:16] + struct.pack("<I", 1 << 31) + head[20:], "announces 2147483648 bytes"),
        (lambda head: b"\xff" * 32, "no command"),
    ],
)
async def test_answer_to_something_else_is_never_taken(change: object, told: str) -> None:
    assert callable(change)

    async def answer_wrongly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(change(await reader.readexactly(32)))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer_wrongly, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DeviceFailed, match=told):
            await SharkSemSession(f"127.0.0.1:{port}").__aenter__()


@pytest.mark.parametrize("address", ["", "host:", "host:0", "host:65535", "host:83 00", "a b", "host:1:2", "tty\n"])
def test_impossible_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="no address"):
        SharkSemSession(address)


@pytest.mark.parametrize(
    ("address", "meant"),
    [("sem", "sem:8300"), ("10.0.0.5:8400", "10.0.0.5:8400"), ("socket://sem:8300", "sem:8300"), ("[::1]", "::1:8300")],
)
def test_address_may_leave_out_the_port(address: str, meant: str) -> None:
    assert SharkSemSession(address).address == meant
