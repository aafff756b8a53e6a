"""Devices are kept connected one by one: what one of them does costs the others nothing."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from acquisition.clock import SystemClock
from acquisition.devices import Reading, Readings
from acquisition.errors import RequestRefused
from acquisition.state import StateKeeper


class Device:
    """Raises `error` when it is entered, as long as there is one."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.error = error

    async def __aenter__(self) -> Self:
        if self.error is not None:
            raise self.error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Readings:
        return {"pressure_pa": Reading(1.0, True, SystemClock().now())}


async def test_a_driver_that_fails_in_any_way_holds_up_nobody_and_is_tried_again() -> None:
    broken = Device("broken", TypeError("open() got an unexpected keyword argument"))
    refusing = Device("refusing", RequestRefused("not while the door is open"))
    heard, missing = asyncio.Event(), {"broken.pressure_pa", "refusing.pressure_pa", "gauge.pressure_pa"}

    def hear(channel: str, reading: Reading) -> None:
        missing.discard(channel)
        if not missing:
            heard.set()

    keeper = StateKeeper({one.name: one for one in (broken, refusing, Device("gauge"))}, SystemClock(), hear)
    async with asyncio.timeout(30):
        await keeper.start()
        assert keeper.connections["gauge"].connected
        assert "TypeError: open() got an unexpected keyword" in keeper.connections["broken"].reason
        assert keeper.connections["refusing"].reason == "not while the door is open"
        broken.error = refusing.error = None
        await heard.wait()
        await keeper.stop()
    assert keeper.latest()["broken.pressure_pa"].valid
