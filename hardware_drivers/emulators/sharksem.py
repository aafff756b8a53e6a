"""A TESCAN microscope that is not there: SharkSEM's bytes on two ports, well or badly."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from acquisition.errors import DeviceFailed, MessageRejected
from hardware_drivers.emulators.sharksem_microscope import Answer, Microscope, SharkSemFault
from hardware_drivers.sharksem.message import (
    HEADER_BYTES,
    MOST_REPLY_BYTES,
    Body,
    ByteOrder,
    Chunk,
    Flags,
    Header,
    encode_body,
    encode_message,
)
from hardware_drivers.simulated.world import World

__all__ = ["SharkSemEmulator", "SharkSemFault"]

HOST = "127.0.0.1"
PATIENCE_S = 10.0
SLOW_S = 3.0
SEND_BUFFER_BYTES = 1 << 16
PORT_TRIES = 20


@dataclass(slots=True)
class Client:
    """One program at the microscope. `data_port` is the one it registered, from which its data connection comes."""

    control: asyncio.StreamWriter
    data_port: int = 0
    data: asyncio.StreamWriter | None = None


class SharkSemEmulator:
    """Serves a `Microscope` on `world` while entered, on `port` and the one after it; 0 lets the system find two.

    `address` is what a session is given. What is unknown or malformed is ignored without an answer. Counts of strings
    include the padding with `rounded_counts`. A client that leaves data unread for `patience_s` is dropped.
    Source: hardware.md, SharkSEM.
    """

    def __init__(
        self,
        world: World,
        host: str = HOST,
        port: int = 0,
        version: str = "3.2.20",
        rounded_counts: bool = False,
        patience_s: float = PATIENCE_S,
        slow_s: float = SLOW_S,
    ) -> None:
        self.byte_order: ByteOrder = "little"
        self.microscope = Microscope(world, version, self._send_chunk)
        self.received: deque[str] = deque(maxlen=10_000)
        """The latest commands, oldest first."""
        self._host, self._port = host, port
        self._rounded_counts = rounded_counts
        self._patience_s, self._slow_s = patience_s, slow_s
        self._noise = np.random.default_rng(1)
        self._clients: list[Client] = []
        self._servers: list[asyncio.Server] = []

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    @property
    def fault(self) -> SharkSemFault:
        return self.microscope.fault

    @fault.setter
    def fault(self, fault: SharkSemFault) -> None:
        self.microscope.fault = fault
        if fault is SharkSemFault.UNPLUGGED:
            self._drop(*self._clients)

    async def __aenter__(self) -> Self:
        """Raises `DeviceFailed` where the ports are taken."""
        await self.microscope.warm_up()
        for tries_left in reversed(range(PORT_TRIES if self._port == 0 else 1)):
            try:
                self._servers = [await asyncio.start_server(self._serve_control, self._host, self._port)]
                port = self._servers[0].sockets[0].getsockname()[1]
                self._servers.append(await asyncio.start_server(self._serve_data, self._host, port + 1))
                self._port = port
                return self
            except (OSError, OverflowError) as error:
                for server in self._servers:
                    server.close()
                if not tries_left:
                    told = f"{self._host}:{self._port}" if self._port else self._host
                    raise DeviceFailed(f"no two ports in a row are free at {told}: {error}") from None
        raise AssertionError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        self._drop(*self._clients)
        await self.microscope.rest()
        for server in self._servers:
            await server.wait_closed()

    # Control

    async def _serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault is SharkSemFault.UNPLUGGED:
            writer.transport.abort()
            return
        client = Client(writer)
        self._clients.append(client)
        with suppress(OSError, EOFError, MessageRejected):
            while True:
                header = Header.decode(await reader.readexactly(HEADER_BYTES), MOST_REPLY_BYTES)
                body = await reader.readexactly(header.body_bytes)
                await self._answer(client, header, body)
        self._drop(client)

    async def _answer(self, client: Client, header: Header, body: bytes) -> None:
        self.received.append(header.command)
        try:
            if header.command == "TcpRegDataPort":
                client.data_port = Body(body).unsigned()
                values: Answer = (0,)
            else:
                values = self.microscope.commands[header.command](Body(body))
        except (KeyError, MessageRejected):
            return
        if not values and not header.flags & Flags.ANSWER:
            return
        reply = encode_body(*values, rounded_counts=self._rounded_counts)
        message = encode_message(header.command, reply, header.identifier)
        match self.fault:
            case SharkSemFault.SILENCE:
                return
            case SharkSemFault.GARBAGE:
                message = self._noise.bytes(len(message))
            case SharkSemFault.HALF:
                message = message[: len(message) // 2]
            case SharkSemFault.SLOW:
                await asyncio.sleep(self._slow_s)
        client.control.write(message)
        await asyncio.wait_for(client.control.drain(), self._patience_s)

    # Data

    async def _serve_data(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Kept only from a port that a client has registered; nothing is read from it."""
        port = writer.get_extra_info("peername")[1]
        client = next((client for client in self._clients if client.data_port == port), None)
        if client is None:
            writer.transport.abort()
            return
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        client.data = writer
        with suppress(OSError):
            await reader.read()

    async def _send_chunk(self, chunk: Chunk) -> None:
        body = (chunk if self.byte_order == "little" else chunk.swapped()).encode()
        message = encode_message("ScData", body, 0)
        for client in list(self._clients):
            if client.data is None:
                continue
            try:
                client.data.write(message)
                await asyncio.wait_for(client.data.drain(), self._patience_s)
            except OSError:
                self._drop(client)

    def _drop(self, *clients: Client) -> None:
        for client in clients:
            for writer in (client.data, client.control):
                if writer is not None:
                    writer.transport.abort()
            if client in self._clients:
                self._clients.remove(client)
