"""A pyrometer of the IMPAC and LumaSense families, asked in their Universal Pyrometer Protocol.

Source: LumaSense manuals, chapter "Data format UPP" (IN 5 plus, IS 12, ISR 12-LO, series 600).
"""

from __future__ import annotations

import math
import re
from types import TracebackType
from typing import Self

from acquisition.clock import Clock
from acquisition.devices import Limits, Reading, Readings, require_entered
from acquisition.errors import DeviceFailed
from hardware_drivers.connection import Connection
from hardware_drivers.probing import Probe, refuse_entered

ANSWERS_WITHIN_S = 0.9
"""It answers within 5 ms; a busy computer does not hear it so soon. Both questions of a reading fit into the 2 s after
which it is lost in any case."""
ZERO_CELSIUS_K = 273.15
HOTTEST_TENTHS = 50000

TEMPERATURE = re.compile(rb"\d{5}|-\d{4}")
EMISSIVITY = re.compile(rb"\d{4}")

CODES = {
    88880: "the specimen is above the pyrometer's range",
    77770: "the pyrometer is not ready: it warms up, or its head is too hot",
    75550: "the pyrometer's head is too hot: cool it",
    74440: "the pyrometer's head is too cold: warm it",
}
"""Answers in the place of a temperature that are none."""


class UppPyrometer:
    """8E1 at `baud`, `station` is the address set in the instrument, which must show degrees Celsius.

    A specimen colder than its range reads the range's low end and is valid, as it must be heated through the cold
    part with the laser on; all else that is no temperature is invalid with its reason.
    """

    def __init__(
        self,
        name: str,
        address: str,
        clock: Clock,
        emissivity_limits: Limits,
        *,
        baud: int = 19200,
        station: int = 0,
        timeout_s: float = ANSWERS_WITHIN_S,
    ) -> None:
        self._name = name
        self._clock = clock
        self._emissivity_limits = emissivity_limits
        self._station = f"{station:02d}"
        self._connection = Connection(address, baud=baud, parity="E", timeout_s=timeout_s)
        self._entered = False

    @property
    def name(self) -> str:
        return self._name

    async def __aenter__(self) -> Self:
        try:
            await self._connection.open(b"\r")
            await self._emissivity()
        except BaseException:
            await self._connection.close()
            raise
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        await self._connection.close()

    async def set_emissivity(self, emissivity: float) -> None:
        """Set and read back, to 0.001. Raises `LimitExceeded` before anything is sent, and `DeviceFailed`."""
        self._require_entered()
        self._emissivity_limits.check(emissivity, f"{self.name} emissivity")
        permille = round(emissivity * 1000)
        answer = await self._ask(f"em{permille:04d}")
        if answer == b"no":
            raise DeviceFailed(
                f"{self._where} refused an emissivity of {permille / 1000:g}: its own range is narrower than "
                f"{self._emissivity_limits.setting}; ask for another"
            )
        if answer != b"ok":
            raise self._nonsense("em", answer)
        held = await self._emissivity()
        if round(held * 1000) != permille:
            raise DeviceFailed(
                f"{self._where} holds an emissivity of {held:g} instead of {permille / 1000:g}: set it again"
            )

    async def read(self) -> Readings:
        """Raises `DeviceFailed` when it is silent or answers neither a temperature nor one of its codes."""
        self._require_entered()
        return await self._look()

    async def probe(self) -> Probe:
        """See `hardware_drivers.probing`. Without a first CR, which could end an order that somebody half typed."""
        refuse_entered(self._name, entered=self._entered)
        try:
            await self._connection.open()
            return Probe("", await self._look())
        finally:
            await self._connection.close()

    async def _look(self) -> Readings:
        answer = await self._ask("ms")
        if not TEMPERATURE.fullmatch(answer):
            raise self._nonsense("ms", answer)
        temperature = self._temperature(int(answer))
        return {"temperature_k": temperature, "emissivity": self._reading(await self._emissivity())}

    def _temperature(self, tenths: int) -> Reading:
        if tenths in CODES:
            return self._reading(math.nan, CODES[tenths])
        if tenths > HOTTEST_TENTHS:
            return self._reading(math.nan, f"the pyrometer answered {tenths}, which is no temperature: see its manual")
        return self._reading(tenths / 10 + ZERO_CELSIUS_K)

    async def _emissivity(self) -> float:
        answer = await self._ask("em")
        if not EMISSIVITY.fullmatch(answer) or not 0 < int(answer) <= 1000:
            raise self._nonsense("em", answer)
        return int(answer) / 1000

    async def _ask(self, command: str) -> bytes:
        return await self._connection.ask(f"{self._station}{command}\r".encode(), b"\r")

    def _nonsense(self, command: str, answer: bytes) -> DeviceFailed:
        return DeviceFailed(
            f"{self._where} answered '{self._station}{command}' with {answer!r}: "
            "check baud rate, even parity and that it is a UPP pyrometer"
        )

    @property
    def _where(self) -> str:
        return f"{self.name} at {self._connection.address}"

    def _require_entered(self) -> None:
        require_entered(self.name, entered=self._entered)

    def _reading(self, value: float, reason: str = "") -> Reading:
        return Reading(value, not reason, self._clock.now(), reason)
