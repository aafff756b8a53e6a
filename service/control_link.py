"""One seat for pages, programs and terminals: the node tells commands who drives here, and us who drives there."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any

from acquisition.control_lock import TERMINAL, ControlLock, Holder
from acquisition.errors import ComponentFailed, RequestRefused
from service.hub import Hub
from service.run_control import RunControl

KEEP_INTERVAL_S = 5.0
DEADLINE_S = 2.0


class ControlLink:
    """Holds the node's seat for whoever holds the service's lock. A node that is silent is none to drive, so it is not
    waited for: it is told once it answers again."""

    def __init__(self, lock: ControlLock, hub: Hub, commands: RunControl) -> None:
        self._lock = lock
        self._hub = hub
        self._commands = commands
        self._session = uuid.uuid4().hex
        lock.elsewhere = self._at_a_terminal

    async def hold(self, name: str, *, take_over: bool = False) -> None:
        """Raises `RequestRefused` while a command at a terminal drives, unless `take_over`."""
        wanted = {"session": self._session, "name": name, "take_over": take_over}
        with contextlib.suppress(ComponentFailed):
            self._heard(await self._commands.ask("control_hold", wanted, deadline_s=DEADLINE_S))

    async def leave(self) -> None:
        with contextlib.suppress(ComponentFailed):
            self._heard(await self._commands.ask("control_leave", {"session": self._session}, deadline_s=DEADLINE_S))

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(KEEP_INTERVAL_S)
            if (holder := self._lock.holder) is not None:
                with contextlib.suppress(RequestRefused):
                    await self.hold(holder.name)

    def _heard(self, control: dict[str, Any] | None) -> None:
        """Sooner than by the next heartbeat."""
        if self._hub.connected:
            self._hub.status = {**self._hub.status, "control": control}

    def _at_a_terminal(self) -> Holder | None:
        told = self._hub.status.get("control") if self._hub.connected else None
        if not told or told["place"] != TERMINAL:
            return None
        # Under a session that no request can name: one without any is nobody's own.
        return Holder(self._session, told["holder"], told["since_utc_ns"], TERMINAL)
