"""What the simulated devices share: a name, the world, and being at rest before and after they are connected."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from acquisition.devices import Reading
from acquisition.errors import DeviceFailed
from hardware_drivers.simulated.world import World


class SimulatedDevice:
    """Entering connects and rests the device, leaving rests and disconnects it, whatever happened inside."""

    def __init__(self, name: str, world: World) -> None:
        self._name = name
        self._world = world
        self._connected = False
        self._rng = world.generator(name)

    @property
    def name(self) -> str:
        return self._name

    async def __aenter__(self) -> Self:
        self._connected = True
        await self._rest()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rest()
        self._connected = False

    async def _rest(self) -> None:
        """Bring the device to its safe state; most have nothing to do."""

    def _require_connection(self) -> None:
        if not self._connected:
            raise DeviceFailed(f"{self._name} is not connected; enter it first (async with)")

    def _reading(self, value: float, reason: str = "") -> Reading:
        """A sample taken now, invalid if there is a reason."""
        return Reading(float(value), not reason, self._world.clock.now(), reason)
