"""Recipes for tests: on the simulated lab, in leaping time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from acquisition.clock import Clock
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.leaping import run_leaping
from acquisition.recipes.parsing import recipe_of
from acquisition.recipes.steps import Recipe
from acquisition.rehearsal import Rehearsal
from service import wiring
from service.settings import load_settings

OXIDATION = Path(__file__).parents[1] / "deploy" / "oxidation.toml"
LIMITS = InterlockLimits()


def lab(clock: Clock) -> Lab:
    return wiring.lab(load_settings(), clock)


def recipe(*steps: dict[str, Any]) -> Recipe:
    return recipe_of({"name": "test", "steps": list(steps)})


def performed(work: Callable[[Rehearsal], Awaitable[None]], limits: InterlockLimits = LIMITS) -> None:
    async def perform() -> None:
        async with Rehearsal(lab, limits) as host:
            await work(host)

    run_leaping(perform())


async def at_rest(host: Rehearsal) -> bool:
    assert host.lab.heater is not None
    status = await host.lab.heater.status()
    flows = [(await gas.read())["flow_setpoint_mol_per_s"].value for gas in host.lab.gases]
    return not status.emission_on and status.current_target_a == 0 and not any(flows)


def texts(host: Rehearsal, name: str) -> list[str]:
    return [told.text for told in host.told if told.name == name]


def hold(**changes: Any) -> dict[str, Any]:
    about = {"do": "hold", "channel": "pyrometer.temperature_k", "by": "heater.current_a"}
    return {**about, "gain": 0.008, "integral_s": 4.0, "high": 1.3, **changes}
