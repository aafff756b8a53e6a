"""Performs the steps of one recipe, keeps its holds meanwhile, and watches for what must end it."""

from __future__ import annotations

import asyncio
from typing import Any

from acquisition.clock import Instant
from acquisition.recipes.checks import devices_of, limits_of
from acquisition.recipes.holding import Held, RecipeFailed, usable
from acquisition.recipes.ports import RecipePorts
from acquisition.recipes.steps import (
    HELD,
    READ_BACK,
    SETPOINTS,
    STALE_AFTER_S,
    AnyStep,
    Arm,
    Hold,
    Mark,
    Move,
    Off,
    Ramp,
    Recipe,
    Set,
    Start,
    Stop,
    Wait,
)

TICK_S = 0.1
LONGEST_TICK_S = 1.0
"""What the program slept through beyond this is not made up for: no setpoint jumps."""
LEAD_S = 2.0
"""A held target runs ahead of its reading by at most what the ramp covers in this time."""
EMISSION_WITHIN_S = 3.0
TOLD_HOLDS_S = 10.0
COMMAND_PATIENCE_S = 10.0
"""Drivers have timeouts of their own, which are shorter."""


class Performance:
    """Time is the recipe's own: it stands still while `paused`, and then only the holds work on."""

    def __init__(self, recipe: Recipe, ports: RecipePorts) -> None:
        self.recipe = recipe
        self.devices = devices_of(recipe, ports.lab)
        self.number = 0
        self.elapsed_s = 0.0
        self.step_elapsed_s = 0.0
        self.step_expected_s: float | None = None
        self.paused = False
        self.holds: dict[str, Held] = {}
        self.timeouts: list[str] = []
        self._ports = ports
        self._armed: Instant | None = None
        self._commanded: dict[str, Instant] = {}
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def where(self) -> str:
        """The present step for people."""
        if self.number == 0:
            return "before its first step"
        return f"step {self.number} ({self.recipe.steps[self.number - 1].do})"

    async def play(self) -> None:
        """Until the last step is done. Raises `EclipsError` or what a driver raises; what is under way is then told to
        end, but not waited for: see `settled`."""
        steps = asyncio.create_task(self._perform_all(), name="recipe steps")
        keep = asyncio.create_task(self._keep(), name="recipe holds")
        self._tasks = (steps, keep)
        try:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (keep, steps):
                if task in done:
                    task.result()
        finally:
            for task in self._tasks:
                task.cancel()

    async def settled(self) -> bool:
        """Wait for a command that was under way when `play` ended; True when there was one."""
        if not self._tasks:
            return False
        _, late = await asyncio.wait(self._tasks, timeout=2 * TICK_S)
        if late:
            await asyncio.wait(late, timeout=COMMAND_PATIENCE_S)
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # was told when it ended the recipe, or came after that
        return bool(late)

    # Steps

    async def _perform_all(self) -> None:
        for number, step in enumerate(self.recipe.steps, 1):
            self.number, self.step_elapsed_s, self.step_expected_s = number, 0.0, None
            text = f"{self.recipe.name}, step {number} of {len(self.recipe.steps)}: {step.words()}"
            self._tell("recipe_step", text, do=step.do)
            while self.paused:
                await self._pass()
            await self._perform(step)

    async def _perform(self, step: AnyStep) -> None:
        lab, ports = self._ports.lab, self._ports
        match step:
            case Set() if step.key in HELD:
                self._held(step.key).target = step.value
            case Set(device=str() as device):
                setpoint, factor = SETPOINTS[step.key]
                self.holds.pop(device, None)
                await self._set(device, setpoint, step.value * factor)
            case Ramp() if step.key in HELD:
                await self._ramp_target(step, self._held(step.key))
            case Ramp(device=str() as device):
                await self._ramp_setpoint(step, device)
            case Hold():
                await self._begin_hold(step)
            case Wait(seconds=float() as seconds):
                await self._wait(seconds)
            case Wait():
                await self._wait_for(step)
            case Move() if lab.stage is not None:
                await ports.command("set", {"device": lab.stage.name, "values": step.target_m})
            case Arm() if lab.heater is not None:
                await ports.command("arm", {"device": lab.heater.name})
                self._armed = ports.clock.now()
            case Off():
                await self._off(step.device or (lab.heater.name if lab.heater else ""))
            case Mark():
                self._tell("mark", step.text)
            case Start():
                arguments = step.model_dump(exclude={"do"})
                # The recipe goes on after the run; only its own end, or a fault, brings the lab to rest.
                await ports.command("start", {**arguments, "hold_after": True})
                self._tell("recipe", f"the run follows the recipe {self.recipe.name}", recipe=self.recipe.tree())
            case Stop():
                await ports.command("stop", {})

    async def _wait(self, seconds: float) -> None:
        self.step_expected_s = seconds
        while self.step_elapsed_s < seconds:
            await self._pass()

    async def _wait_for(self, step: Wait) -> None:
        channel, timeout_s = step.channel or "", step.timeout_s or 0.0
        met_for_s, frames_met, seen = -1.0, 0, None
        while True:
            try:
                reading = usable(self._ports.readings(), channel, self._ports.clock.now(), step.stale_after_s)
                shown, met = f"{reading.value:g}", step.met_by(reading.value)
                frames_met += reading.instant != seen
                seen = reading.instant
            except RecipeFailed as error:
                shown, met = str(error), False
            met_for_s, frames_met = (max(met_for_s, 0.0), frames_met) if met else (-1.0, 0)
            if met_for_s >= step.for_s and frames_met >= step.for_frames:
                return
            if self.step_elapsed_s >= timeout_s:
                break
            elapsed_s = await self._pass()
            met_for_s += elapsed_s if met_for_s >= 0 else 0.0
        text = f"{step.words()}: not met within {timeout_s:g} s; last: {shown}"
        self.timeouts.append(f"step {self.number}: {text}")
        if step.on_timeout == "fail":
            raise RecipeFailed(text)
        self._tell("recipe_timeout", f"{self.recipe.name}, step {self.number}: {text}; goes on", "warning")

    async def _ramp_setpoint(self, step: Ramp, device: str) -> None:
        setpoint, factor = SETPOINTS[step.key]
        self.holds.pop(device, None)
        start = await self._present(device, setpoint) / factor
        self.step_elapsed_s = 0.0
        rate = step.rate_per_s
        seconds = step.over_s if rate is None or step.over_s is not None else abs(step.value - start) / rate
        self.step_expected_s = seconds = seconds or 0.0
        text = f"{device} {step.key}: {start:g} to {step.value:g} in {seconds:.3g} s"
        self._tell("ramp", text, start=start, end=step.value, seconds=seconds)
        sent = start
        while self.step_elapsed_s < seconds:
            await self._pass()
            share = min(self.step_elapsed_s / seconds, 1.0)
            value = start + share * (step.value - start)
            if value != sent:
                await self._steer(device, setpoint, value * factor)
                sent = value
        await self._set(device, setpoint, step.value * factor)

    async def _ramp_target(self, step: Ramp, held: Held) -> None:
        """The target waits for its reading, so that what cannot follow is not driven to its utmost."""
        start, way = held.target, step.value - held.target
        rate = step.rate_per_s or abs(way) / (step.over_s or 1.0)
        self.step_expected_s = expected_s = abs(way) / rate if rate else 0.0
        timeout_s = 2 * expected_s + 60 if step.timeout_s is None else step.timeout_s
        text = f"target of {held.spec.channel}: {start:g} to {step.value:g} in {expected_s:.3g} s"
        self._tell("ramp", text, start=start, end=step.value, seconds=expected_s)
        while held.target != step.value:
            elapsed_s = await self._pass()
            left = step.value - held.target
            ahead = held.target - held.reading if left > 0 else held.reading - held.target
            if ahead <= rate * LEAD_S:
                stride = rate * elapsed_s
                held.target = step.value if abs(left) <= stride else held.target + (stride if left > 0 else -stride)
            elif self.step_elapsed_s > timeout_s:
                raise RecipeFailed(
                    f"{held.spec.channel} does not follow: {held.reading:g} after {self.step_elapsed_s:.0f} s of a "
                    f"ramp that should take {expected_s:.0f} s, its target stands at {held.target:g}; look at the "
                    "sample and the reading, or give a longer timeout_s"
                )

    async def _begin_hold(self, step: Hold) -> None:
        device, _, key = step.by.partition(".")
        setpoint, factor = SETPOINTS[key]
        self._require_emission(device)
        present = await self._present(device, setpoint) / factor
        reading = usable(self._ports.readings(), step.channel, self._ports.clock.now(), step.stale_after_s)
        held = Held(step, reading, present, limits_of(self._ports.lab, step.by))
        self.holds[device] = held
        self._tell("hold", f"{step.channel} is held at {held.target:g} by {step.by}", **held.tree())

    def _require_emission(self, device: str) -> None:
        """A hold by a laser that is off would wind up, and be let loose by a later arm."""
        heater = self._ports.lab.heater
        if heater is None or heater.name != device or self._armed is not None:
            return
        emission = self._ports.readings().get(f"{device}.emission")
        if emission is None or not emission.valid or emission.value == 0:
            raise RecipeFailed(f"{device} is not armed, so nothing can be held by it: put an arm step before the hold")
        self._armed = self._ports.clock.now()

    async def _off(self, device: str) -> None:
        self.holds.pop(device, None)
        if self._ports.lab.heater is not None and device == self._ports.lab.heater.name:
            self._armed = None
        await self._ports.command("off", {"device": device})
        self._commanded[device] = self._ports.clock.now()

    def _held(self, key: str) -> Held:
        return next(held for held in self.holds.values() if held.spec.channel.endswith(f".{key}"))

    async def _set(self, device: str, setpoint: str, value: float) -> None:
        await self._ports.command("set", {"device": device, "values": {setpoint: value}})
        self._commanded[device] = self._ports.clock.now()

    async def _steer(self, device: str, setpoint: str, value: float) -> None:
        await self._ports.steer(device, setpoint, value)
        self._commanded[device] = self._ports.clock.now()

    async def _present(self, device: str, setpoint: str) -> float:
        """As read after the last that the device was told: what was read before would bring an old setpoint back."""
        channel, clock = f"{device}.{READ_BACK.get(setpoint, setpoint)}", self._ports.clock
        while True:
            reading = usable(self._ports.readings(), channel, clock.now(), STALE_AFTER_S)
            if device not in self._commanded or reading.instant.seconds_since(self._commanded[device]) > 0:
                return reading.value
            await self._pass()

    async def _pass(self) -> float:
        """Let one tick of the recipe's time go by; returns its seconds."""
        clock = self._ports.clock
        while True:
            before = clock.now()
            await asyncio.sleep(TICK_S)
            if not self.paused:
                elapsed_s = min(clock.now().seconds_since(before), LONGEST_TICK_S)
                self.elapsed_s += elapsed_s
                self.step_elapsed_s += elapsed_s
                return elapsed_s

    # Holds and watch: paused or not

    async def _keep(self) -> None:
        told = self._ports.clock.now()
        while True:
            await asyncio.sleep(TICK_S)
            now = self._ports.clock.now()
            if trouble := self._ports.trouble(self.devices) or self._laser_trouble(now):
                raise RecipeFailed(trouble)
            for held in list(self.holds.values()):
                value = held.follow(self._ports.readings(), now)
                if value is not None and held in self.holds.values():
                    await self._steer(held.device, held.setpoint, value)
            if self.holds and now.seconds_since(told) >= TOLD_HOLDS_S:
                told = now
                for held in self.holds.values():
                    tree = held.tree()
                    text = "{channel}: target {target:g}, reading {reading:g}, {by} at {output:g}".format(**tree)
                    self._tell("hold", text, **tree)

    def _laser_trouble(self, now: Instant) -> str:
        """A laser that was armed and emits no more was switched off by itself or by its loop: no integral may grow."""
        heater = self._ports.lab.heater
        if heater is None or self._armed is None or now.seconds_since(self._armed) < EMISSION_WITHIN_S:
            return ""
        emission = self._ports.readings().get(f"{heater.name}.emission")
        if emission is not None and emission.valid and emission.value == 0:
            return f"{heater.name} emits no more although it was armed; see its interlock loop, then arm again"
        return ""

    def _tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        self._ports.tell(name, text, severity, step=self.number, **details)
