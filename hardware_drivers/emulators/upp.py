"""A UPP pyrometer that looks at the simulated specimen."""

from __future__ import annotations

import re

from hardware_drivers.emulators.line import Fault
from hardware_drivers.simulated.pyrometer import NOISE_K, shown_temperature_k
from hardware_drivers.simulated.world import World

ZERO_CELSIUS_K = 273.15
COMMAND = re.compile(r"(\d\d)(ms|em)(\d{4})?")
EVERY_STATION = (99, 98)
SILENT_STATION = 98
LOWEST_PERMILLE, HIGHEST_PERMILLE = 10, 1000
CODES = {Fault.OVER_RANGE: "88880", Fault.NOT_READY: "77770", Fault.SENSOR: "75550", Fault.UNDER_RANGE: "74440"}


class UppEmulator:
    """`range_c` in degrees Celsius: colder specimens show its low end, hotter ones 88880. Syntax errors get silence.

    `Fault.OVER_RANGE`, `NOT_READY`, `SENSOR` (head too hot) and `UNDER_RANGE` (head too cold) answer with the codes,
    and `REFUSING` takes no new emissivity.
    """

    def __init__(
        self,
        world: World,
        range_c: tuple[float, float] = (250.0, 1400.0),
        emissivity: float = 0.7,
        station: int = 0,
    ) -> None:
        self.fault = Fault.NONE
        self._world = world
        self._range_c = range_c
        self._permille = round(1000 * emissivity)
        self._station = station
        self._rng = world.generator("upp")
        self._line = b""

    def restart(self) -> None:
        self._line = b""

    def receive(self, data: bytes) -> bytes:
        *lines, self._line = (self._line + data).split(b"\r")
        return b"".join(self._answer(line.decode("ascii", "replace")) for line in lines)

    def _answer(self, line: str) -> bytes:
        command = COMMAND.fullmatch(line)
        if command is None or int(command[1]) not in (self._station, *EVERY_STATION):
            return b""
        answer = self._measured() if command[2] == "ms" else self._emissivity(command[3])
        return b"" if int(command[1]) == SILENT_STATION else f"{answer}\r".encode()

    def _measured(self) -> str:
        if self.fault in CODES:
            return CODES[self.fault]
        shown_k = shown_temperature_k(self._world.temperature_k, self._world.emissivity, self._permille / 1000)
        shown_c = shown_k + NOISE_K * self._rng.standard_normal() - ZERO_CELSIUS_K
        low_c, high_c = self._range_c
        return CODES[Fault.OVER_RANGE] if shown_c > high_c else f"{round(10 * max(shown_c, low_c)):05d}"

    def _emissivity(self, permille: str | None) -> str:
        if permille is None:
            return f"{self._permille:04d}"
        if self.fault is Fault.REFUSING or not LOWEST_PERMILLE <= int(permille) <= HIGHEST_PERMILLE:
            return "no"
        self._permille = int(permille)
        return "ok"
