"""What a recipe needs of the program that it lives in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from acquisition.clock import Clock
from acquisition.devices import Reading
from acquisition.lab import Lab


class RecipePorts(Protocol):
    """Commands are checked like an operator's, but are none: a recipe is no sign of life of anybody."""

    @property
    def lab(self) -> Lab: ...

    @property
    def clock(self) -> Clock: ...

    def readings(self) -> Mapping[str, Reading]: ...

    def trouble(self, devices: frozenset[str]) -> str:
        """Which of the devices is lost, or what the run's fault is; empty when all is well."""
        ...

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Any: ...

    async def steer(self, device: str, setpoint: str, value: float) -> None:
        """Like the command `set`, but one of many small ones: told by the recipe as a whole."""
        ...

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None: ...

    async def safe_state(self, reason: str) -> list[str]: ...

    async def rest(self, reason: str) -> list[str]:
        """Laser and gas to rest, verified; the scan goes on."""
        ...
