"""Forwards commands to the acquisition node; callers in several threads never wait for one another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import zmq

from acquisition.control import DEFAULT_DEADLINE_S, ControlClient
from acquisition.endpoints import CurveKeys


class RunControl:
    """One socket per calling thread. Errors are those of `ControlClient.call`. `carried_out` grows with each command
    that may have changed something, at the latest when its answer is known here."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, keys: CurveKeys | None) -> None:
        self._context = context
        self._address = address
        self._keys = keys
        self._of_thread = threading.local()
        self._clients: list[ControlClient] = []
        self._counting = threading.Lock()
        self.carried_out = 0

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def call(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float = DEFAULT_DEADLINE_S
    ) -> Any:
        client: ControlClient | None = getattr(self._of_thread, "client", None)
        if client is None:
            client = self._of_thread.client = ControlClient(self._context, self._address, self._keys)
            self._clients.append(client)
        try:
            return client.call(name, arguments, deadline_s=deadline_s)
        finally:
            if name != "status":
                with self._counting:
                    self.carried_out += 1

    async def ask(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float = DEFAULT_DEADLINE_S
    ) -> Any:
        """The same without blocking the event loop."""
        return await asyncio.to_thread(self.call, name, arguments, deadline_s=deadline_s)
