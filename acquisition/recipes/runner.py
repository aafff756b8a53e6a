"""Runs one recipe at a time beside the node, so that it survives service and page, and ends it in the safe state."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from acquisition.errors import EclipsError, RequestRefused
from acquisition.interlocks import InterlockLimits
from acquisition.recipes.checks import check_recipe, devices_of
from acquisition.recipes.performing import Performance
from acquisition.recipes.ports import RecipePorts
from acquisition.recipes.steps import Ramp, Recipe, Set, Wait

log = logging.getLogger(__name__)

ACTIVE = ("running", "paused", "ending")
STATES = ("idle", *ACTIVE, "finished", "aborted", "failed")
PERMITTED = {"running": ("recipe_pause", "recipe_abort"), "paused": ("recipe_resume", "recipe_abort"), "ending": ()}


class RecipeRunner:
    """`state` is idle, running, paused, ending, or how the last recipe ended: finished, aborted, failed.

    A recipe is not an operator: it gives no sign of life, so `interlocks.operator_timeout_s` holds while it heats. It
    needs an open page, or the command that follows it; without either the laser goes off when the countdown ends, and
    with it the recipe. What may go on unattended is what needs no laser: gas, waits, marks, moves.

    It ends with laser and gas at rest, each read back: after its last step (the scan goes on), or in the full safe
    state after an abort, a failing command or device, a hold without a valid reading, a run's fault, and whenever
    anything else brings the lab to the safe state. While it is active nobody else may set what it drives; OFF and STOP
    ALL always work, and end it.
    """

    def __init__(self, ports: RecipePorts, interlocks: InterlockLimits) -> None:
        self._ports = ports
        self._interlocks = interlocks
        self.state = "idle"
        self.reason = ""
        self.unverified: list[str] = []
        self._performance: Performance | None = None
        self._work: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended_by: tuple[str, str] | None = None

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def permitted(self) -> tuple[str, ...]:
        return PERMITTED.get(self.state, ("recipe_start",))

    def drives(self, device: str) -> bool:
        """Whether the present recipe has this device to itself."""
        return self.active and self._performance is not None and device in self._performance.devices

    def start(self, recipe: Recipe) -> None:
        """Check it whole, then begin. Raises `LimitExceeded`, `BadInput`, or `RequestRefused` while another one runs
        or a device that it drives is lost; nothing is sent then."""
        if self.active:
            raise self._refusal("recipe_start")
        check_recipe(recipe, self._ports.lab, self._interlocks, self._ports.readings().keys())
        if trouble := self._ports.trouble(devices_of(recipe, self._ports.lab)):
            raise RequestRefused(f"recipe {recipe.name} cannot start: {trouble}; nothing was sent")
        self._performance = Performance(recipe, self._ports)
        self._ended_by, self.reason, self.unverified = None, "", []
        self._enter("running", recipe=recipe.tree())
        self._work = asyncio.create_task(self._performance.play(), name="recipe")
        self._task = asyncio.create_task(self._run(self._performance, self._work), name="recipe's end")

    def pause(self) -> None:
        """Ramps and waits stand still, holds go on. A move or another command under way is carried out."""
        self._set_paused("recipe_pause", "paused")

    def resume(self) -> None:
        """Go on where it stood."""
        self._set_paused("recipe_resume", "running")

    async def abort(self, reason: str = "asked for") -> list[str]:
        """To the safe state at once; returns what could not be verified. Raises `RequestRefused` when none runs."""
        if not self.active:
            raise self._refusal("recipe_abort")
        self._end("aborted", reason)
        await self.wait()
        return self.unverified

    def safe_state_follows(self, reason: str) -> None:
        """Somebody else is bringing the lab to the safe state: let nothing more be sent."""
        self._end("failed", f"safe state: {reason}")

    async def wait(self) -> None:
        """Until the present recipe has ended, if there is one."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def tree(self) -> dict[str, Any]:
        """For status, page and programs. `left_s` adds up what is known of the rest: waits for conditions and moves
        take what they take."""
        tree: dict[str, Any] = {
            "state": self.state,
            "reason": self.reason,
            "permitted": list(self.permitted),
            "unverified": self.unverified,
        }
        performance = self._performance
        if performance is None:
            return tree
        steps, number = performance.recipe.steps, performance.number
        return tree | {
            "name": performance.recipe.name,
            "step": number,
            "steps": len(steps),
            "doing": steps[number - 1].words() if number else "",
            "elapsed_s": performance.elapsed_s,
            "step_elapsed_s": performance.step_elapsed_s,
            "left_s": self._left_s(performance) if self.active else 0.0,
            "devices": sorted(performance.devices),
            "holds": [held.tree() for held in performance.holds.values()],
            "timeouts": performance.timeouts,
        }

    async def _run(self, performance: Performance, work: asyncio.Task[None]) -> None:
        """Whatever ends it. Only `work` is ever cancelled: the way to the safe state is gone to its end."""
        outcome, reason = "finished", ""
        try:
            await work
        except asyncio.CancelledError:
            outcome, reason = self._ended_by or ("aborted", "cancelled")
        except (EclipsError, TimeoutError, OSError) as error:
            outcome, reason = self._ended_by or ("failed", str(error) or type(error).__name__)
        except Exception as error:
            log.exception("recipe %s", performance.recipe.name)
            outcome, reason = "failed", f"{type(error).__name__}: {error}"
        self._ended_by = self._ended_by or (outcome, reason)
        self.reason = f"{performance.where}: {reason}" if reason else ""
        self._enter("ending")
        ended = f"recipe {performance.recipe.name} {outcome}" + (f" at {self.reason}" if reason else "")
        self.unverified = await (self._ports.rest(ended) if outcome == "finished" else self._ports.safe_state(ended))
        if await performance.settled():
            self.unverified = await self._ports.safe_state(f"{ended}; its last command came to an end only now")
        self._enter(outcome)

    def _end(self, outcome: str, reason: str) -> None:
        if self.active and self._ended_by is None and self._work is not None:
            self._ended_by = (outcome, reason)
            self._work.cancel()

    def _set_paused(self, command: str, state: str) -> None:
        if command not in self.permitted or self._performance is None or self._ended_by is not None:
            raise self._refusal(command)
        self._performance.paused = state == "paused"
        self._enter(state)

    def _enter(self, state: str, **details: Any) -> None:
        assert self._performance is not None
        before, self.state = self.state, state
        text = f"{self._performance.recipe.name}: {before} -> {state}" + (f": {self.reason}" if self.reason else "")
        severity = {"failed": "alarm", "aborted": "warning"}.get(state, "info")
        number = self._performance.number
        self._ports.tell("recipe", text, severity, before=before, after=state, step=number, **details)

    def _refusal(self, command: str) -> RequestRefused:
        at = f" at {self._performance.where}" if self.active and self._performance else ""
        which = f"recipe {self._performance.recipe.name} is {self.state}{at}" if self._performance else "no recipe runs"
        possible = ", ".join(self.permitted) or "nothing until it has ended"
        return RequestRefused(
            f"{command} is not possible now: {which}; possible now: {possible}", permitted=self.permitted
        )

    def _left_s(self, performance: Performance) -> float:
        here_s = max(0.0, (performance.step_expected_s or 0.0) - performance.step_elapsed_s)
        return here_s + sum(
            _expected_s(performance.recipe, index) for index in range(performance.number, _count(performance))
        )


def _count(performance: Performance) -> int:
    return len(performance.recipe.steps)


def _expected_s(recipe: Recipe, index: int) -> float:
    """Of a step that has not begun; a ramp's start is taken from the step before that set the same value, or zero."""
    step = recipe.steps[index]
    if isinstance(step, Wait):
        return step.seconds if step.seconds is not None else step.for_s
    if not isinstance(step, Ramp):
        return 0.0
    if step.rate_per_s is None:
        return step.over_s or 0.0
    before = (
        other.value
        for other in reversed(recipe.steps[:index])
        if isinstance(other, Set | Ramp) and (other.key, other.device) == (step.key, step.device)
    )
    return abs(step.value - next(before, 0.0 if step.device else step.value)) / step.rate_per_s
