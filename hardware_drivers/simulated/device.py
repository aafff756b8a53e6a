"""What the simulated devices share: a name, the world, and being at rest before and after they are connected."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from acquisition.devices import Reading, require_entered
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
        require_entered(self._name, entered=self._connected)

    def _reading(self, value: float, reason: str = "") -> Reading:
        """A sample taken now, invalid if there is a reason."""
        return Reading(float(value), not reason, self._world.clock.now(), reason)
