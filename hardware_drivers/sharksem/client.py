"""One SharkSEM session: a control and a data connection, entered by every device of the microscope that needs it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self

from acquisition.errors import BadInput, DeviceFailed
from hardware_drivers.probing import refuse_entered
from hardware_drivers.sharksem.link import ANSWER_TIMEOUT_S, Answer, Link, ScanListener
from hardware_drivers.sharksem.message import Argument, Body, Flags

DEFAULT_PORT = 8300


class SharkSemSession:
    """Reference-counted: the first to enter connects, the last to leave disconnects, each alone and in any order.

    `address` is `host` or `host:port` of the control port (8300 unless given); data come from the port after it.
    Whatever fails (an answer late or wrong, a closed socket) makes the session `lost`: every call is then refused with
    the reason, and the next to enter builds a new one. Raises `BadInput` for an impossible address. One event loop.
    """

    def __init__(self, address: str) -> None:
        self._host, self._port = _host_and_port(address)
        self._link: Link | None = None
        self._users = 0
        self._connects = 0
        self._entering = asyncio.Lock()

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    @property
    def state(self) -> str:
        """`away`, `connected` or `lost`."""
        return "away" if self._link is None else "lost" if self._link.failure else "connected"

    @property
    def connects(self) -> int:
        """How often a connection was built: what a device set up under another number is to be set up again."""
        return self._connects

    @property
    def version(self) -> tuple[int, ...]:
        """The server's protocol version. Raises `DeviceFailed` unless entered."""
        return self._connected().version

    async def __aenter__(self) -> Self:
        """Raises `DeviceFailed` when the microscope refuses, is silent, or speaks too old a version."""
        async with self._entering:
            if self.state != "connected":
                await self._leave()
                link = Link(self._host, self._port)
                try:
                    await link.open()
                except BaseException:
                    await link.close()
                    raise
                self._link = link
                self._connects += 1
            self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._entering:
            self._users = max(self._users - 1, 0)
            if self._users == 0:
                await self._leave()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[str]:
        """Connected for questions alone, without the data connection; gives what is there, in words.

        Raises `RequestRefused` while the session is used, and `DeviceFailed`.
        """
        async with self._entering:
            refuse_entered(f"SharkSEM at {self.address}", entered=self._users > 0)
            self._link = link = Link(self._host, self._port)
            try:
                await link.open_control()
                yield f"a TESCAN microscope, SharkSEM {'.'.join(map(str, link.version))}"
            finally:
                await self._leave()

    async def ask(
        self,
        command: str,
        *arguments: Argument,
        answer: Callable[[Body], Answer],
        wait: Flags = Flags.NONE,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Answer:
        """Send, and read the reply with `answer`. `wait` names what the server lets come to rest first.

        Raises `DeviceFailed`, naming address, command and what came, and the session is lost.
        """
        return await self._connected().ask(command, arguments, answer, wait, timeout_s)

    async def order(self, command: str, *arguments: Argument) -> None:
        """`ask` for what answers nothing of its own: the empty reply says that it was taken."""
        await self.ask(command, *arguments, answer=_anything)

    async def mention(self, command: str, *arguments: Argument) -> None:
        """Send without an answer: for what older servers do not know and ignore."""
        await self._connected().mention(command, arguments)

    def lose(self, reason: str) -> DeviceFailed:
        """Give the session up for a failure that only its user can see; gives the error to be raised."""
        return self._link.failed(reason) if self._link is not None else DeviceFailed(f"SharkSEM {reason}")

    @contextmanager
    def listening(self, listener: ScanListener) -> Iterator[None]:
        """Hand the chunks of the data connection to `listener`, one at a time; without one they are dropped."""
        link = self._connected()
        link.listener = listener
        try:
            yield
        finally:
            link.listener = None

    def _connected(self) -> Link:
        if self._link is None:
            raise DeviceFailed(f"SharkSEM at {self.address} is not connected; enter the device first (async with)")
        if self._link.failure:
            raise DeviceFailed(self._link.failure)
        return self._link

    async def _leave(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _anything(_: Body) -> None:
    return None


def _host_and_port(address: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:socket://)?(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d{1,5}))?", address)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65535:
        raise BadInput(f"{address!r} is no address of a microscope: give host or host:port, such as 192.168.1.5:8300")
    return match["host"].strip("[]"), port
