"""Forwards commands to the acquisition node: many callers, one socket, each command in its turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import zmq

from acquisition.control import DEFAULT_DEADLINE_S, ControlClient
from acquisition.endpoints import CurveKeys


class RunControl:
    """Thread-safe and usable from an event loop. Errors are those of `ControlClient.call`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, keys: CurveKeys | None) -> None:
        self._client = ControlClient(context, address, keys)
        self._lock = threading.Lock()

    def close(self) -> None:
        self._client.close()

    def call(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float = DEFAULT_DEADLINE_S
    ) -> Any:
        with self._lock:
            return self._client.call(name, arguments, deadline_s=deadline_s)

    async def ask(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The same without blocking the event loop."""
        return await asyncio.to_thread(self.call, name, arguments)
