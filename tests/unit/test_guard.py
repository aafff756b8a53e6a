"""The guard on the simulated lab: whatever takes the permit, the laser goes off, and people are told why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from acquisition.clock import SystemClock
from acquisition.devices import Limits, Readings
from acquisition.errors import DeviceFailed, RequestRefused
from acquisition.guard import Guard
from acquisition.instrument import four_quadrant
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.state import StateKeeper
from hardware_drivers.catalog import LabSpec, simulated_lab

LIMITS = InterlockLimits(stale_after_s=1.0, operator_timeout_s=30.0)


class Watch:
    """A guarded lab with its laser on, and what was told."""

    def __init__(self, lab: Lab, limits: InterlockLimits) -> None:
        clock = SystemClock()
        self.lab = lab
        self.told: list[str] = []
        self.state = StateKeeper(lab.devices, clock, lambda *_: None)
        self.guard = Guard(lab, self.state, limits, clock, self._tell)

    def _tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        self.told.append(f"{name}: {text}")

    async def laser_is_off(self) -> bool:
        assert self.lab.heater is not None
        status = await self.lab.heater.status()
        return not status.emission_on and status.current_target_a == 0


def new_lab() -> Lab:
    flows = {gas: Limits(0.0, 1e-4, gas) for gas in ("hydrogen", "oxygen")}
    current, power, axis = Limits(0, 1.5, "heater"), Limits(0, 26, "power"), Limits(-1e-3, 1e-3, "stage")
    clock = SystemClock()
    return simulated_lab(LabSpec(four_quadrant(), clock, "flat", 1, None, 64, 64, current, power, flows, axis))


@asynccontextmanager
async def heated(limits: InterlockLimits = LIMITS) -> AsyncIterator[Watch]:
    watch = Watch(new_lab(), limits)
    await watch.state.start()
    watching = asyncio.create_task(watch.guard.watch())
    watch.guard.require_permit()
    assert watch.lab.heater is not None
    await watch.lab.heater.set_current(1.0)
    await watch.lab.heater.arm()
    assert not await watch.laser_is_off()
    yield watch
    watching.cancel()
    await watch.state.stop()


async def goes_off(watch: Watch) -> None:
    async with asyncio.timeout(8):
        while not await watch.laser_is_off():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def silence(watch: Watch, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> Readings:
        raise DeviceFailed(f"{role} did not answer")

    monkeypatch.setattr(getattr(watch.lab, role), "read", nothing)


@pytest.mark.parametrize("role", ["pyrometer", "gauge"])
async def test_a_silent_device_takes_the_laser_off(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with heated() as watch:
        silence(watch, role, monkeypatch)
        await goes_off(watch)
        alarms = {alarm["id"] for alarm in watch.guard.alarms.tree()}
        assert {"permit", f"device-{role}"} <= alarms
        assert any(line.startswith("safe_state") and "verified" in line for line in watch.told)


async def test_a_laser_that_stays_on_is_switched_off_again_until_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with heated() as watch:
        assert watch.lab.heater is not None
        switch_off, refused = watch.lab.heater.off, []

        async def off() -> None:
            if len(refused) < 2:
                refused.append("once more")
                raise DeviceFailed("the heater did not take it")
            await switch_off()

        monkeypatch.setattr(watch.lab.heater, "off", off)
        silence(watch, "gauge", monkeypatch)
        await goes_off(watch)
        assert len(refused) == 2
        await until(lambda: "unsafe" not in {alarm["id"] for alarm in watch.guard.alarms.tree() if alarm["active"]})


async def test_an_absent_operator_takes_the_laser_off() -> None:
    async with heated(InterlockLimits(operator_timeout_s=0.5)) as watch:
        await goes_off(watch)
        assert any("nobody was heard of" in line for line in watch.told)


async def test_an_operator_who_shows_up_keeps_it_on() -> None:
    async with heated(InterlockLimits(operator_timeout_s=0.6)) as watch:
        for _ in range(8):
            watch.guard.operator_seen()
            await asyncio.sleep(0.2)
        assert not await watch.laser_is_off()


async def test_a_specimen_that_gets_too_hot_takes_the_laser_off() -> None:
    async with heated(InterlockLimits(temperature_max_k=580.0)) as watch:
        assert watch.lab.pyrometer is not None
        await watch.lab.pyrometer.set_emissivity(0.05)
        await goes_off(watch)
        assert any("above 580 K" in line for line in watch.told)


async def test_arming_without_a_permit_is_refused_with_every_reason() -> None:
    watch = Watch(new_lab(), LIMITS)
    with pytest.raises(RequestRefused, match=r"heater\.emission was never read.*nothing was sent"):
        watch.guard.require_permit()


async def test_a_lost_device_comes_back_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with heated() as watch:
        assert watch.lab.gauge is not None
        silence(watch, "gauge", monkeypatch)
        await goes_off(watch)
        monkeypatch.undo()
        await until(lambda: watch.state.connections["gauge"].connected)
        await until(lambda: all(c.good for c in watch.guard.inputs()))
        watch.guard.alarms.acknowledge("permit")
        watch.guard.alarms.acknowledge("device-gauge")
        await until(lambda: watch.guard.alarms.tree() == [])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
