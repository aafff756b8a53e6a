"""What the devices of a SharkSEM microscope share: a name, the session, and being at rest when entered and left."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from acquisition.clock import Clock, SystemClock
from acquisition.devices import Reading, Readings, require_entered
from acquisition.errors import DeviceFailed
from hardware_drivers.probing import Probe
from hardware_drivers.sharksem.client import SharkSemSession

log = logging.getLogger(__name__)


class SharkSemDevice:
    """Entering shares the session and sets the device up, leaving brings it to rest, as far as it can be reached.

    A device that did not notice how its session was lost, and built anew for another, has to be entered again: what
    it set up is gone.
    """

    def __init__(self, name: str, session: SharkSemSession, clock: Clock | None) -> None:
        self._name = name
        self._session = session
        self._clock = clock or SystemClock()
        self._entered_at: int | None = None

    @property
    def name(self) -> str:
        return self._name

    async def __aenter__(self) -> Self:
        """Raises `DeviceFailed`."""
        await self._session.__aenter__()
        try:
            await self._set_up()
        except BaseException:
            await self._session.__aexit__(None, None, None)
            raise
        self._entered_at = self._session.connects
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._entered:
            return
        self._entered_at = None
        try:
            await self._rest()
        except DeviceFailed as failure:
            log.warning("%s: left without knowing that it is at rest: %s", self.name, failure)
        finally:
            await self._session.__aexit__(kind, error, trace)

    async def read(self) -> Readings:
        """Raises `DeviceFailed`."""
        self._require_entered()
        return await self._look()

    async def probe(self) -> Probe:
        """See `hardware_drivers.probing`. On the control connection alone."""
        async with self._session.asking() as identification:
            await self._check()
            return Probe(identification, await self._look())

    async def _look(self) -> Readings:
        """Ask only."""
        raise NotImplementedError

    async def _check(self) -> None:
        """Raise `DeviceFailed` for what would bar its use; ask only."""

    async def _set_up(self) -> None:
        """Bring it to rest, and learn what is needed to work with it."""
        raise NotImplementedError

    async def _rest(self) -> None:
        """Raises `DeviceFailed` when the microscope cannot be told."""
        raise NotImplementedError

    @property
    def _entered(self) -> bool:
        return self._entered_at is not None

    def _require_entered(self) -> None:
        require_entered(self.name, entered=self._entered)
        if self._entered_at != self._session.connects:
            raise DeviceFailed(f"{self.name}: its connection was lost and built anew; enter it again (async with)")

    def _reading(self, value: float, reason: str = "") -> Reading:
        """A sample taken now, invalid if there is a reason."""
        return Reading(float(value), not reason, self._clock.now(), reason)
