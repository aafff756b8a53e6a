"""Pressure from the vacuum gauge controllers that speak mnemonics: INFICON VGC40x and 50x, Pfeiffer TPG26x and 36x."""

from __future__ import annotations

import logging
import math
import re
from types import TracebackType
from typing import Literal, Self

from acquisition.clock import Clock
from acquisition.devices import Reading, Readings, require_entered
from acquisition.errors import DeviceFailed
from hardware_drivers.connection import Connection, Step
from hardware_drivers.probing import Probe, refuse_entered

log = logging.getLogger(__name__)

Technology = Literal["capacitance", "pirani"]

ANSWERS_WITHIN_S = 0.9
"""For a busy computer rather than for the gauge; after 2 s a reading is lost in any case."""
ACK, NAK, ENQ, ETX, END = b"\x06", b"\x15", b"\x05", b"\x03", b"\r\n"
MEASUREMENT = re.compile(r"(\d),([+-]?\d\.\d+E[+-]\d{1,2})")
IDENTIFIERS = re.compile(r"[A-Za-z0-9/ ]+(,[A-Za-z0-9/ ]+)*")
PA_PER_TORR = 101325.0 / 760.0
# Codes of UNI; 5 is volts, which no pressure can be made of.
PA_PER_UNIT = {"0": 100.0, "1": PA_PER_TORR, "2": 1.0, "3": 1e-3 * PA_PER_TORR, "4": 100.0}
# A capacitance gauge's zero may drift below 0; what lies outside these is no pressure of a vacuum chamber.
LOWEST_PA, HIGHEST_PA = -10.0, 2e5
STATUSES = {
    "1": "below the gauge's range",
    "2": "above the gauge's full scale",
    "3": "sensor error",
    "4": "the gauge is switched off",
    "5": "no gauge is plugged in",
    "6": "the gauge cannot be identified",
    "7": "the gauge reports an error of its own",
}
ERROR_WORDS = {
    "1000": "an error of the controller itself (see its display)",
    "0100": "no such hardware",
    "0010": "an inadmissible parameter",
    "0001": "a syntax error",
}
CAPACITANCE_TYPES = ("CDG", "CMR", "APR")
# All that contain a Pirani or ionisation gauge, whose reading depends on the gas.
GAS_DEPENDENT_TYPES = ("PSG", "PCG", "TPR", "PCR", "MPG", "PEG", "BPG", "HPG", "BCG", "BAG", "IKR", "PKR", "PBR", "IMR")
ABSENT_TYPES = ("nosen", "noid", "no sensor", "no ident")


class MnemonicGauge:
    """One gauge of a controller, on serial (8N1) or TCP (`socket://host:8000`); `channel` counts from 1.

    `technology` is what the user says; where the controller tells its gauge's type (`TID`) that must agree, at connect
    and whenever a gauge was missing, or `DeviceFailed` is raised. Unit (`UNI`) and pressure are read together, so that
    a unit changed at the front panel never misreads. The first character sent ends the stream after power-up.
    Source: INFICON manuals tinb01 and tina96, Pfeiffer BG 5510.
    """

    def __init__(
        self,
        name: str,
        address: str,
        clock: Clock,
        technology: Technology,
        *,
        channel: int = 1,
        baud: int = 9600,
        timeout_s: float = ANSWERS_WITHIN_S,
    ) -> None:
        self._name = name
        self._connection = Connection(address, baud=baud, timeout_s=timeout_s)
        self._technology = technology
        self._clock = clock
        self._channel = channel
        self._entered = False
        self._verified = False
        self._unit = ""
        self.identification = ""

    @property
    def name(self) -> str:
        return self._name

    @property
    def technology(self) -> str:
        return self._technology

    async def __aenter__(self) -> Self:
        try:
            await self._connect()
        except BaseException:
            await self._connection.close()
            raise
        self._entered = True
        log.info("%s is %s at %s", self._name, self.identification, self._connection.address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        await self._connection.close()

    async def read(self) -> Readings:
        """`pressure_pa`, invalid with its reason when the controller says so. Raises `DeviceFailed`."""
        require_entered(self._name, entered=self._entered)
        return await self._look()

    async def probe(self) -> Probe:
        """See `hardware_drivers.probing`. All that this driver ever sends are questions."""
        refuse_entered(self._name, entered=self._entered)
        try:
            await self._connect()
            return Probe(self.identification, await self._look())
        finally:
            await self._connection.close()

    async def _connect(self) -> None:
        self._verified = False
        await self._connection.open(ETX)
        self.identification = await self._ask("AYT", "PNR")
        self._unit = await self._ask_unit()
        await self._verify_technology()

    async def _look(self) -> Readings:
        if not self._verified:
            await self._verify_technology()
        told = await self._ask(f"PR{self._channel}")
        before, self._unit = self._unit, await self._ask_unit()
        measurement = MEASUREMENT.fullmatch(told)
        if measurement is None:
            raise self._nonsense(f"PR{self._channel}", told)
        status, number = measurement.groups()
        self._verified = self._verified and status not in ("5", "6")
        value_pa, reason = _judge(status, number, before if before == self._unit else None)
        return {"pressure_pa": Reading(value_pa, not reason, self._clock.now(), reason)}

    async def _verify_technology(self) -> None:
        """A gauge that is absent is verified once it is there; until then its status makes readings invalid."""
        told = await self._ask("TID", "")
        if not told:
            self._verified = True
            return
        types = told.split(",")
        if not IDENTIFIERS.fullmatch(told) or self._channel > len(types):
            raise self._nonsense("TID", told)
        gauge = types[self._channel - 1].strip()
        if gauge.lower().startswith(ABSENT_TYPES):
            return
        found = _technology_of(gauge)
        if found != self._technology:
            meaning = {"capacitance": "a capacitance gauge", "pirani": "gas-dependent, not a capacitance gauge"}
            raise DeviceFailed(
                f"{self._name} is set up as {self._technology}, but its controller tells gauge type {gauge} "
                f"({meaning.get(found, 'a type that this program does not know')}): correct gauge.technology, "
                f"or plug the other gauge into channel {self._channel}"
            )
        self._verified = True

    async def _ask_unit(self) -> str:
        unit = await self._ask("UNI")
        if unit not in (*PA_PER_UNIT, "5"):
            raise self._nonsense("UNI", unit)
        return unit

    async def _ask(self, mnemonic: str, otherwise: str | None = None) -> str:
        """The data of a mnemonic. Where the controller does not know it, ask `otherwise` instead, or tell ""."""
        acknowledged, data = await self._connection.converse(Step(f"{mnemonic}\r".encode(), END), Step(ENQ, END))
        text = data.decode("ascii", "replace")
        if acknowledged == ACK:
            return text
        if acknowledged != NAK:
            raise self._nonsense(mnemonic, acknowledged.decode("ascii", "replace"))
        if otherwise is not None and text == "0001":
            return await self._ask(otherwise) if otherwise else ""
        word = ERROR_WORDS.get(text, f"error word {text!r}")
        raise DeviceFailed(
            f"{self._name} at {self._connection.address} refused {mnemonic}: {word}; "
            "check its channel and the controller's model"
        )

    def _nonsense(self, asked: str, came: str) -> DeviceFailed:
        return DeviceFailed(
            f"{self._name} at {self._connection.address} answered {came!r} to {asked}: check baud rate, "
            "and that a controller with the mnemonic protocol is on this line"
        )


def _judge(status: str, number: str, unit: str | None) -> tuple[float, str]:
    """The pressure in Pa and why it is invalid, if it is. `unit` None says that it changed while being asked."""
    if status != "0":
        return math.nan, STATUSES.get(status, f"the controller tells the unknown status {status}")
    if unit is None:
        return math.nan, "the controller's pressure unit was just changed"
    if unit not in PA_PER_UNIT:
        return math.nan, "the controller shows volts; set a pressure unit (UNI) on it"
    pressure_pa = float(number) * PA_PER_UNIT[unit]
    if not LOWEST_PA <= pressure_pa <= HIGHEST_PA:
        return math.nan, f"{pressure_pa:g} Pa is no pressure of a vacuum chamber ({LOWEST_PA:g} to {HIGHEST_PA:g} Pa)"
    return pressure_pa, ""


def _technology_of(gauge: str) -> str:
    if gauge.upper().startswith(CAPACITANCE_TYPES):
        return "capacitance"
    return "pirani" if gauge.upper().startswith(GAS_DEPENDENT_TYPES) else "unknown"
