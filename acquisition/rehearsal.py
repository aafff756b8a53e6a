"""A recipe's dry run: the same code on a stand-in lab whose time leaps, so that minutes take a second or two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from acquisition.clock import Clock, Instant, LoopClock
from acquisition.device_commands import DeviceCommands
from acquisition.devices import Reading
from acquisition.errors import BadInput
from acquisition.guard import WATCH_INTERVAL_S, Guard
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.leaping import run_leaping
from acquisition.live_figures import PREFIX, LiveFigures
from acquisition.recipe_ports import LabPorts, RunCommand
from acquisition.recipes.runner import RecipeRunner
from acquisition.recipes.steps import Recipe
from acquisition.replay import ReplaySource
from acquisition.state import StateKeeper

LONGEST_S = 24 * 3600.0
PATIENCE_S = 60.0
SETTLING_S = 2.0
FIGURES_EVERY_S = 1.0
MOST_POINTS = 2000
MOST_EVENTS = 1000


TRUTH = "figures of the heights are what the simulation knows of its own surface: a dry run takes no frames"
NO_TRUTH = "there are no figures of the heights: a dry run takes no frames, and this lab does not know its surface"


@dataclass(frozen=True, slots=True)
class Told:
    """An event; `time_s` from the recipe's start."""

    time_s: float
    name: str
    severity: str
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a dry run came to. `channels`: times in seconds from the start and values in SI, None where invalid; long
    ones are thinned. `state` is how the recipe ended, `reason` why when it did not finish."""

    name: str
    state: str
    reason: str
    duration_s: float
    step: int
    channels: Mapping[str, tuple[list[float], list[float | None]]]
    events: tuple[Told, ...]
    timeouts: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.state == "finished" and not self.timeouts


def rehearse(recipe: Recipe, make_lab: Callable[[Clock], Lab], limits: InterlockLimits) -> Timeline:
    """Run it whole, with guard and interlocks, on the lab that `make_lab` builds on the clock it is given.

    Somebody is taken to be watching all the time, and `start` and `stop` of a run are told, not done. No frames are
    taken: figures of the heights are those that the simulation knows of its surface (`Lab.truth`), which is told where
    the recipe goes by any. Blocks; must not be called from an event loop. Raises what the recipe's check raises, and
    `BadInput` when it takes too long.
    """
    return run_leaping(_rehearse(recipe, make_lab, limits))


class Rehearsal:
    """What a recipe sees instead of a node; open it as an async context on a loop whose time leaps.

    Its guard watches as ever, and an operator is taken to be there while `attended`. `scanning` is set between the
    recipe's start and stop of a run, for who wants to take frames meanwhile and put what they show into `figures`.
    """

    run_fault = ""
    replaying: ReplaySource | None = None

    def __init__(self, make_lab: Callable[[Clock], Lab], limits: InterlockLimits) -> None:
        self.clock: Clock = LoopClock()
        self.lab = make_lab(self.clock)
        self.began: Instant = self.clock.now()
        self.attended = True
        self.told: list[Told] = []
        self.traces: dict[str, tuple[list[float], list[float | None]]] = {}
        self.figures = LiveFigures()
        self.state = StateKeeper(self.lab.devices, self.clock, self._take_sample)
        self.guard = Guard(self.lab, self.state, limits, self.clock, self.tell)
        self.scanning = asyncio.Event()
        run_commands = {
            "start": self._say("run_started", self.scanning.set),
            "stop": self._say("run_finished", self.scanning.clear),
        }
        self.runner = RecipeRunner(LabPorts(self, DeviceCommands(self), run_commands), limits)
        self.guard.before_safe_state = self.runner.safe_state_follows

    async def __aenter__(self) -> Rehearsal:
        await self.state.start()
        self._tasks = [asyncio.create_task(self.guard.watch()), asyncio.create_task(self._attend())]
        await asyncio.sleep(SETTLING_S)
        self.began = self.clock.now()
        self.told.clear()
        self.traces.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self.state.stop()

    @property
    def elapsed_s(self) -> float:
        return self.clock.now().seconds_since(self.began)

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        self.told.append(Told(self.elapsed_s, name, severity, text))

    def timeline(self, duration_s: float) -> Timeline:
        tree = self.runner.tree()
        return Timeline(
            name=tree["name"],
            state=tree["state"],
            reason=tree["reason"],
            duration_s=duration_s,
            step=tree["step"],
            channels={channel: _thinned(*trace) for channel, trace in self.traces.items()},
            events=tuple(self.told[:MOST_EVENTS]),
            timeouts=tuple(tree["timeouts"]),
        )

    async def _attend(self) -> None:
        while True:
            if self.attended:
                self.guard.operator_seen()
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _say(self, name: str, then: Callable[[], None]) -> RunCommand:
        async def say(_: Mapping[str, Any]) -> None:
            self.tell(name, "told, not done in a dry run")
            then()

        return say

    async def tell_truth(self) -> None:
        """Figures of the heights without a frame, for as long as this is not cancelled."""
        while self.lab.truth is not None:
            self.figures.put(self.lab.truth(), self.clock.now())
            for channel, reading in self.figures.latest().items():
                self._take_sample(channel, reading)
            await asyncio.sleep(FIGURES_EVERY_S)

    def _take_sample(self, channel: str, reading: Reading) -> None:
        times_s, values = self.traces.setdefault(channel, ([], []))
        times_s.append(reading.instant.seconds_since(self.began))
        values.append(reading.value if reading.valid else None)


async def _rehearse(recipe: Recipe, make_lab: Callable[[Clock], Lab], limits: InterlockLimits) -> Timeline:
    async with Rehearsal(make_lab, limits) as host:
        host.runner.start(recipe)
        if any(str(getattr(step, "channel", "")).startswith(PREFIX) for step in recipe.steps):
            host.tell("figures", TRUTH if host.lab.truth else NO_TRUTH, "info" if host.lab.truth else "warning")
        truth = asyncio.create_task(host.tell_truth())
        over, deadline = asyncio.create_task(host.runner.wait()), time.monotonic() + PATIENCE_S
        while not over.done():
            await asyncio.wait([over], timeout=10.0)
            if not over.done() and (host.elapsed_s > LONGEST_S or time.monotonic() > deadline):
                await host.runner.abort("the dry run takes too long")
                raise BadInput(
                    f"recipe {recipe.name} was not over after {host.elapsed_s:.0f} s of its time, at step "
                    f"{host.runner.tree()['step']}: rehearse it in parts"
                )
        truth.cancel()
        duration_s = host.elapsed_s
        await asyncio.sleep(SETTLING_S)  # the end is seen in the readings
        return host.timeline(duration_s)


def _thinned(times_s: list[float], values: list[float | None]) -> tuple[list[float], list[float | None]]:
    every = -(-len(times_s) // MOST_POINTS)
    return times_s[::every], values[::every]
