"""The two sockets of a SharkSEM session, each with a reader; of no more use after its first failure."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from acquisition.errors import DeviceFailed, MessageRejected
from hardware_drivers.sharksem.message import (
    HEADER_BYTES,
    MOST_DATA_BYTES,
    MOST_REPLY_BYTES,
    Argument,
    Body,
    Chunk,
    Flags,
    Header,
    encode_body,
    encode_message,
)

ANSWER_TIMEOUT_S = 1.5
"""Below the 2 s in which a state keeper wants a device read."""
OLDEST_VERSION = (2, 0, 0)

Answer = TypeVar("Answer")


class ScanListener(Protocol):
    """Who wants the chunks of a scan; called from the event loop, must not wait."""

    def take(self, chunk: Chunk) -> None: ...

    def fail(self, error: DeviceFailed) -> None:
        """The session is lost: nothing more comes."""
        ...


class Link:
    """Control and data connection. `failure` says why it can no longer be used; empty while it can."""

    def __init__(self, host: str, port: int) -> None:
        self.listener: ScanListener | None = None
        self.version: tuple[int, ...] = ()
        self.failure = ""
        self._host, self._port = host, port
        self._identifiers = itertools.count(1)
        self._lock = asyncio.Lock()
        self._awaited: dict[int, tuple[str, asyncio.Future[bytes]]] = {}
        self._last_identifier = 0
        self._control: asyncio.StreamWriter | None = None
        self._data: asyncio.StreamWriter | None = None
        self._readers: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Control, version, a bound data socket, its registration, the data connection: in the order that is told."""
        await self.open_control()
        data_socket = socket.socket(self._family(), socket.SOCK_STREAM)
        try:
            data_socket.bind(("", 0))
            data_socket.setblocking(False)
            port = int(data_socket.getsockname()[1])
            if (status := await self.ask("TcpRegDataPort", (port,), Body.integer)) != 0:
                raise self.failed(f"does not register data port {port} (status {status}): close other remote programs")
            self._data = await self._connect(self._port + 1, data_socket, MOST_DATA_BYTES, self._take_data)
        except BaseException:
            data_socket.close()
            raise

    async def open_control(self) -> None:
        """Enough to ask; no images come."""
        self._control = await self._connect(self._port, None, MOST_REPLY_BYTES, self._take_reply)
        self.version = _version(await self.ask("TcpGetVersion", (), Body.text), self.failed)

    async def close(self) -> None:
        """Data first. Harmless when closed; what is still awaited fails."""
        self.failed("was disconnected")
        for task in self._readers:
            task.cancel()
        for writer in self._writers:
            with suppress(OSError):
                await asyncio.wait_for(writer.wait_closed(), ANSWER_TIMEOUT_S)

    @property
    def _writers(self) -> list[asyncio.StreamWriter]:
        """Data first: the order of closing."""
        return [writer for writer in (self._data, self._control) if writer is not None]

    async def ask(
        self,
        command: str,
        arguments: tuple[Argument, ...],
        answer: Callable[[Body], Answer],
        wait: Flags = Flags.NONE,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Answer:
        async with self._lock:
            if self.failure:
                raise DeviceFailed(self.failure)
            reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._last_identifier = identifier = next(self._identifiers)
            self._awaited[identifier] = (command, reply)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._send(command, arguments, identifier, Flags.ANSWER | wait)
                    body = await reply
            except TimeoutError:
                raise self.failed(f"did not answer {command} within {timeout_s:g} s") from None
            finally:
                self._awaited.pop(identifier, None)
        try:
            return answer(Body(body))
        except MessageRejected as error:
            raise self.failed(f"answered {command} with {body[:40]!r}: {error}") from None

    async def mention(self, command: str, arguments: tuple[Argument, ...]) -> None:
        try:
            async with self._lock, asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._send(command, arguments, 0, Flags.NONE)
        except TimeoutError:
            raise self.failed(f"does not take {command} within {ANSWER_TIMEOUT_S:g} s") from None

    def failed(self, reason: str) -> DeviceFailed:
        """The first failure closes both sockets and is kept and told to all who wait; gives it to be raised."""
        if not self.failure:
            self.failure = (
                f"SharkSEM at {self._host}:{self._port} {reason}; is the microscope's program running, remote control "
                "allowed and no other program connected?"
            )
            error = DeviceFailed(self.failure)
            for _, reply in self._awaited.values():
                if not reply.done():
                    reply.set_exception(error)
            if self.listener is not None:
                self.listener.fail(error)
            for writer in self._writers:
                writer.close()
        return DeviceFailed(self.failure)

    async def _send(self, command: str, arguments: tuple[Argument, ...], identifier: int, flags: Flags) -> None:
        assert self._control is not None
        try:
            self._control.write(encode_message(command, encode_body(*arguments), identifier, flags))
            await self._control.drain()
        except OSError as error:
            raise self.failed(f"does not take {command}: {error}") from None

    async def _connect(
        self, port: int, bound: socket.socket | None, most_bytes: int, take: Callable[[Header, bytes], None]
    ) -> asyncio.StreamWriter:
        """Connect, let messages come at once and hand each of at most `most_bytes` to `take`."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if bound is None:
                    reader, writer = await asyncio.open_connection(self._host, port)
                else:
                    await asyncio.get_running_loop().sock_connect(bound, (self._peer(), port))
                    reader, writer = await asyncio.open_connection(sock=bound)
        except OSError as error:
            raise self.failed(f"refuses port {port}: {str(error) or 'no answer'}") from None
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._readers.append(asyncio.create_task(self._read(reader, port, most_bytes, take), name=f"SharkSEM {port}"))
        return writer

    async def _read(
        self, reader: asyncio.StreamReader, port: int, most_bytes: int, take: Callable[[Header, bytes], None]
    ) -> None:
        try:
            while True:
                header = Header.decode(await reader.readexactly(HEADER_BYTES), most_bytes)
                take(header, await reader.readexactly(header.body_bytes))
        except MessageRejected as error:
            self.failed(f"sends what is no SharkSEM message on port {port} ({error})")
        except (OSError, EOFError) as error:
            self.failed(f"closed the connection on port {port} ({str(error) or type(error).__name__})")

    def _take_reply(self, header: Header, body: bytes) -> None:
        """What nobody awaits (any more) is dropped; an answer to what was never asked is nonsense."""
        if header.identifier > self._last_identifier:
            raise MessageRejected(f"{header.command} answers number {header.identifier}, which was never asked")
        command, reply = self._awaited.get(header.identifier, (header.command, None))
        if header.command != command:
            raise MessageRejected(f"{header.command} answers {command}")
        if reply is not None and not reply.done():
            reply.set_result(body)

    def _take_data(self, header: Header, body: bytes) -> None:
        if header.command == "ScData" and self.listener is not None:
            self.listener.take(Chunk.decode(body))

    def _family(self) -> int:
        assert self._control is not None
        family: int = self._control.get_extra_info("socket").family
        return family

    def _peer(self) -> str:
        """Where the control connection really went, so that the data connection goes there too."""
        assert self._control is not None
        peer: str = self._control.get_extra_info("peername")[0]
        return peer


def _version(text: str, failed: Callable[[str], DeviceFailed]) -> tuple[int, ...]:
    match = re.match(r"\s*(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", text)
    if match is None:
        raise failed(f"tells {text[:40]!r} as its protocol version")
    version = tuple(int(part or 0) for part in match.groups())
    if version < OLDEST_VERSION:
        told = ".".join(map(str, OLDEST_VERSION))
        raise failed(f"speaks protocol {text[:40]}, and at least {told} is needed: update the microscope's program")
    return version
