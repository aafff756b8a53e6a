"""How the node stands, for whoever asks: as its last heartbeat told, unless something was commanded here since."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool

from service.hub import Hub
from service.run_control import RunControl

FRESH_S = 0.75
"""Three heartbeats. An older one may be of a node that is gone, which only asking it tells."""
ASKING_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the node answered, when, and how many commands had been carried out before it was asked."""

    status: Mapping[str, Any] = field(default_factory=lambda: {"utc_ns": 0})
    at: float = -FRESH_S
    after_commands: int = 0


class Standing:
    """A node that reads, checks and records frames takes its time to answer; its heartbeats bring the same four times a
    second. Use from the event loop."""

    def __init__(self, hub: Hub, commands: RunControl) -> None:
        self._hub = hub
        self._commands = commands
        self._asked = _Asked()
        self._encoded: tuple[Mapping[str, Any], bytes] = {}, b""

    async def tree(self) -> Mapping[str, Any]:
        """At most `FRESH_S` old, and never of before a command that was answered here. Raises `ComponentFailed` when
        the node is silent."""
        heard, asked = self._hub.status, self._asked
        if asked.after_commands == self._commands.carried_out:
            now = time.monotonic()
            # By the node's own clock: heartbeats come another way and may be overtaken.
            if now - self._hub.status_at < FRESH_S and heard["utc_ns"] >= asked.status["utc_ns"]:
                return heard
            if now - asked.at < FRESH_S:
                return asked.status
        return await self._ask()

    async def encoded(self) -> bytes:
        """The tree as JSON, made once for each status however many ask for it."""
        status = await self.tree()
        if self._encoded[0] is not status:
            self._encoded = status, json.dumps(status, allow_nan=False, separators=(",", ":")).encode()
        return self._encoded[1]

    async def _ask(self) -> Mapping[str, Any]:
        before = self._commands.carried_out
        status: Mapping[str, Any] = await run_in_threadpool(self._commands.call, "status", deadline_s=ASKING_DEADLINE_S)
        self._asked = _Asked(status, time.monotonic(), before)
        return status
