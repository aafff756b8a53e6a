"""What the emulated microscope does with other programs than ours."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

import tescan
from hardware_drivers.emulators.sharksem import SharkSemEmulator
from hardware_drivers.sharksem.message import encode_body, encode_message
from tescan import GENEROUS_S, until


async def test_unknown_and_malformed_messages_get_no_answer(emulator: SharkSemEmulator) -> None:
    host, port = emulator.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for command, body in (("Nonsense", b""), ("SetViewField", b"\xff"), ("StgMoveTo", encode_body(1.0))):
        writer.write(encode_message(command, body, 1, 1))
    writer.write(encode_message("HVGetBeam", b"", 2))
    async with asyncio.timeout(GENEROUS_S):
        answer = await reader.readexactly(36)
    assert answer == encode_message("HVGetBeam", struct.pack("<i", 1), 2)
    writer.close()


async def test_program_that_leaves_data_unread_is_dropped() -> None:
    async with SharkSemEmulator(tescan.small_world(), patience_s=0.3) as emulator:
        host, port = emulator.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with socket.socket() as data:
            data.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            data.bind((host, 0))
            messages = (
                ("TcpRegDataPort", (data.getsockname()[1],)),
                ("DtSelect", (0, 4)),
                ("DtEnable", (0, 1, 16)),
            )
            for command, arguments in messages:
                writer.write(encode_message(command, encode_body(*arguments), 1, 1))
            async with asyncio.timeout(GENEROUS_S):
                await until(lambda: "DtEnable" in emulator.received)
                data.setblocking(False)
                await asyncio.get_running_loop().sock_connect(data, (host, int(port) + 1))
                scan = (1, 256, 256, 0, 0, 255, 255, 0, 10)
                writer.write(encode_message("ScScanXY", encode_body(*scan), 1, 1))
                with suppress(ConnectionResetError):
                    await reader.read()
        writer.close()
    assert reader.at_eof() or reader.exception() is not None
