"""The acquisition program: a node that listens to commands and tells, four times a second, how it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from acquisition.clock import Clock
from acquisition.commands import Commands
from acquisition.control import ControlServer
from acquisition.endpoints import authenticate_clients
from acquisition.lab import Lab
from acquisition.node import AcquisitionNode, NodeSettings
from acquisition.status import status_tree

HEARTBEAT_INTERVAL_S = 0.25


class AcquisitionProgram:
    """Open it as an async context; leaving it brings the lab to rest first, then ends run, recordings and sockets."""

    def __init__(self, lab: Lab, settings: NodeSettings, clock: Clock, announce: Callable[[str], None]) -> None:
        self._settings = settings
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.node = AcquisitionNode(lab, settings, clock, announce, self._context)
        self._commands = Commands(self.node)

    async def __aenter__(self) -> AcquisitionProgram:
        keys = self._settings.keys
        self._authenticator = authenticate_clients(self._context, keys) if keys else None
        await self.node.start()
        self._control = ControlServer(
            self._context, self._settings.endpoints.control, self.carry_out, asyncio.get_running_loop(), keys
        )
        self.node.control = self._control
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.node.end()
        self._beating.cancel()
        self._control.close()
        self.node.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy(linger=500)

    async def carry_out(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """One command; see `acquisition.commands`."""
        return await self._commands.carry_out(name, arguments)

    async def _beat(self) -> None:
        while True:
            self.node.publish_heartbeat(status_tree(self.node))
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)
