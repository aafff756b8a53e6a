"""How recipes reach a lab and a run: through the same checked commands as people, but counted as nobody's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from acquisition.clock import Clock
from acquisition.device_commands import DeviceCommands, DeviceHost
from acquisition.devices import Reading
from acquisition.lab import Lab
from acquisition.live_figures import LiveFigures

RunCommand = Callable[[Mapping[str, Any]], Awaitable[Any]]


class RecipeHost(DeviceHost, Protocol):
    """A node, or the rehearsal of a recipe. `run_fault` is empty without one."""

    clock: Clock
    figures: LiveFigures

    @property
    def run_fault(self) -> str: ...


class LabPorts:
    """`acquisition.recipes.ports.RecipePorts` over a host; `run_commands` are `start` and `stop`."""

    def __init__(self, host: RecipeHost, devices: DeviceCommands, run_commands: Mapping[str, RunCommand]) -> None:
        self._host = host
        self._devices = devices
        self._run_commands = run_commands

    @property
    def lab(self) -> Lab:
        return self._host.lab

    @property
    def clock(self) -> Clock:
        return self._host.clock

    def readings(self) -> Mapping[str, Reading]:
        return {**self._host.state.latest(), **self._host.figures.latest()}

    def trouble(self, devices: frozenset[str]) -> str:
        connections = self._host.state.connections
        lost = [f"{name} is lost ({connections[name].reason})" for name in devices if not connections[name].connected]
        if self._host.run_fault:
            lost.append(f"the run is in a fault ({self._host.run_fault})")
        return "; ".join(lost)

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Any:
        if name in self._run_commands:
            return await self._run_commands[name](arguments)
        model, carry_out = self._devices.by_name[name]
        return await carry_out(model.model_validate(dict(arguments)))

    async def steer(self, device: str, setpoint: str, value: float) -> None:
        await self._devices.apply(device, {setpoint: value})

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        self._host.tell(name, text, severity, **details)

    async def safe_state(self, reason: str) -> list[str]:
        return await self._host.guard.safe_state(reason)

    async def rest(self, reason: str) -> list[str]:
        return await self._host.guard.rest(reason)
