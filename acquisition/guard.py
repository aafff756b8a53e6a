"""Watches over the lab: evaluates the laser's permit, brings all to the safe state when it is lost, sounds alarms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from acquisition.alarms import AlarmBook
from acquisition.clock import Clock
from acquisition.devices import SegmentedDetector
from acquisition.errors import RequestRefused
from acquisition.interlocks import InterlockLimits, PermitInput, against_opening_gas, make_safe, permit_inputs
from acquisition.lab import Lab
from acquisition.state import StateKeeper

WATCH_INTERVAL_S = 0.2
WATCH_PATIENCE_S = 0.6

Tell = Callable[..., None]
"""`tell(name, text, severity)`: put an event on the stream, into the recording and into the log."""


class Guard:
    """Lives in the acquisition program, so it works on when service, page and workers are gone."""

    def __init__(self, lab: Lab, state: StateKeeper, limits: InterlockLimits, clock: Clock, tell: Tell) -> None:
        self._lab = lab
        self._state = state
        self._limits = limits
        self._clock = clock
        self._tell = tell
        self._operator_seen = clock.now()
        self._watched_at = clock.now()
        self.before_safe_state: Callable[[str], None] = lambda _: None
        self.before_scan_stops: Callable[[str], None] = lambda _: None
        self._made_safe = clock.now()
        self.alarms = AlarmBook()

    def operator_seen(self) -> None:
        """An operator or a controlling program gave a sign of life."""
        self._operator_seen = self._clock.now()

    def inputs(self) -> list[PermitInput]:
        """The laser's conditions as they are now; empty without a laser."""
        watched = self._lab.watched
        if watched is None:
            return []
        return permit_inputs(self._state.latest(), self._clock.now(), self._operator_seen, watched, self._limits)

    def require_permit(self) -> None:
        """Raise `RequestRefused` with every condition that does not hold."""
        bad = [f"{condition.name}: {condition.reason}" for condition in self.inputs() if not condition.good]
        if bad:
            raise RequestRefused(f"the laser has no permit: {'; '.join(bad)}; nothing was sent")

    def require_gas_may_open(self, gas: str) -> None:
        """Raise `RequestRefused` where opening it would only take the laser's permit."""
        watched = self._lab.watched
        reason = watched and against_opening_gas(self._state.latest(), watched, self._limits)
        if reason:
            raise RequestRefused(f"{gas} stays shut: {reason}; nothing was sent")

    async def safe_state(self, reason: str) -> list[str]:
        """Laser, gas and scan to rest, verified; what could not be verified sounds an alarm and is returned."""
        self.before_scan_stops(reason)
        return await self._make_safe("safe_state", reason, self._lab.detector)

    async def rest(self, reason: str) -> list[str]:
        """Laser and gas to rest, verified as in the safe state; the scan goes on."""
        return await self._make_safe("rest", reason, None)

    def unwell(self) -> str:
        """Why a hardware relay must drop the laser now; empty when nothing is amiss.

        Judged anew at each call: the watch hangs, the laser is on without a permit, or it could not be verified safe.
        """
        silent_s = self._clock.now().seconds_since(self._watched_at)
        if silent_s > WATCH_PATIENCE_S:
            return f"the guard has not looked for {silent_s:.1f} s, the limit is {WATCH_PATIENCE_S:g} s"
        if any(alarm["id"] == "unsafe" and alarm["active"] for alarm in self.alarms.tree()):
            return "the safe state could not be verified"
        bad = [f"{condition.name}: {condition.reason}" for condition in self.inputs() if not condition.good]
        return f"the laser is on without a permit: {'; '.join(bad)}" if bad and self._heating() else ""

    async def _make_safe(self, event: str, reason: str, detector: SegmentedDetector | None) -> list[str]:
        self.before_safe_state(reason)
        unverified = await make_safe([self._lab.heater] if self._lab.heater else [], self._lab.gases, detector)
        if unverified:
            text = "; ".join(unverified)
            self._sound("unsafe", text, "cut the laser's power by hand now")
        else:
            self.alarms.cease("unsafe")
        told = f"{reason}; {'not ' if unverified else ''}verified"
        self._tell(event, told, "warning" if detector or unverified else "info", unverified=unverified)
        self._made_safe = self._clock.now()
        return unverified

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self._watched_at = self._clock.now()
            self._watch_devices()
            await self._watch_permit()
            await asyncio.sleep(WATCH_INTERVAL_S)

    def tree(self) -> dict[str, Any]:
        """The permit as a tree for people and programs."""
        inputs = self.inputs()
        silent_s = self._clock.now().seconds_since(self._operator_seen)
        return {
            "permit": all(condition.good for condition in inputs),
            "inputs": [{"name": c.name, "good": c.good, "reason": c.reason} for c in inputs],
            "operator_countdown_s": max(0.0, self._limits.operator_timeout_s - silent_s) if self._heating() else None,
        }

    def _heating(self) -> bool:
        """Only a laser that is known to be off counts as off."""
        if self._lab.heater is None:
            return False
        emission = self._state.latest().get(f"{self._lab.heater.name}.emission")
        return emission is None or not emission.valid or emission.value > 0

    async def _watch_permit(self) -> None:
        bad = [condition for condition in self.inputs() if not condition.good]
        if not bad:
            self.alarms.cease("permit")
        elif self._heating():
            reason = "; ".join(f"{condition.name}: {condition.reason}" for condition in bad)
            news = self._sound("permit", f"laser permit lost: {reason}", "mend the cause, then arm the laser again")
            if news or self._emits_still():
                await self.safe_state(f"permit lost ({reason})")

    def _emits_still(self) -> bool:
        """Whether the laser was read to be on after the last attempt to bring it to rest."""
        emission = self._state.latest().get(f"{self._lab.heater.name}.emission") if self._lab.heater else None
        return emission is not None and emission.value > 0 and emission.instant.seconds_since(self._made_safe) > 0

    def _watch_devices(self) -> None:
        for name, connection in self._state.connections.items():
            if connection.connected:
                self.alarms.cease(f"device-{name}")
            else:
                text = f"{name} is not answering: {connection.reason}"
                self._sound(f"device-{name}", text, "check cable, power and port; it is tried again every second")

    def _sound(self, id: str, text: str, way_out: str) -> bool:
        news = self.alarms.sound(id, text, way_out, self._clock.now().utc_ns)
        if news:
            self._tell("alarm", text, "alarm", alarm=id)
        return news
