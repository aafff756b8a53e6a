"""A vacuum gauge controller with the mnemonic protocol, as INFICON's VGC and Pfeiffer's TPG answer it, on a World."""

from __future__ import annotations

from hardware_drivers.emulators.line import Fault
from hardware_drivers.simulated.gauge import PIRANI_HYDROGEN_FACTOR
from hardware_drivers.simulated.world import BASE_PRESSURE_PA, World

ACK, NAK, ENQ, ETX = b"\x06\r\n", b"\x15\r\n", 0x05, 0x03
PA_PER_UNIT = {0: 100.0, 1: 101325.0 / 760.0, 2: 1.0, 3: 101325.0 / 760e3, 4: 100.0, 5: 100.0}
CAPACITANCE = ("CDG", "CMR")
NO_ERROR, SYNTAX, PARAMETER, NO_HARDWARE = "0000", "0001", "0010", "0100"
FAULT_STATUSES = {Fault.UNDER_RANGE: 1, Fault.OVER_RANGE: 2, Fault.SENSOR: 3, Fault.NOT_READY: 4}
IDENTIFICATION = "VGC502,398-482,100,1.10,1.0"
FIRMWARE = "302-510-A"


class EmulatedMnemonicGauge:
    """`gauges` are the types on its channels, as `TID` tells them; every one of them looks at the world's chamber.

    `unit` is a code of `UNI`, `status` (when not None) replaces the measurement status, `pressure_text` the value sent,
    and `unknown` holds mnemonics that this controller lacks. All may be set at any time. `Fault.UNDER_RANGE`,
    `OVER_RANGE`, `SENSOR` and `NOT_READY` (switched off) are statuses, and `REFUSING` answers all with NAK.
    """

    def __init__(
        self, world: World, gauges: tuple[str, ...] = ("CDG",), full_scale_pa: float = 1333.22, unit: int = 0
    ) -> None:
        self._world = world
        self.gauges = gauges
        self.full_scale_pa = full_scale_pa
        self.unit = unit
        self.status: int | None = None
        self.pressure_text: str | None = None
        self.unknown: set[str] = set()
        self.fault = Fault.NONE
        self.restart()

    def restart(self) -> None:
        """Forget what was asked, and stream a measurement every second until the first character comes."""
        self._typed, self._prepared, self._streaming = b"", NO_ERROR, True

    def unasked(self) -> bytes:
        """What it sends of its own accord, once a second."""
        return self._line(",".join(self._measurement(at) for at in range(len(self.gauges)))) if self._streaming else b""

    def receive(self, data: bytes) -> bytes:
        """A mnemonic ended by CR is acknowledged; ENQ then brings its data. ETX clears what was typed."""
        self._streaming = self._streaming and not data
        answers = b""
        for byte in data:
            if byte == ETX:
                self._typed = b""
            elif byte == ENQ:
                answers += self._line(self._prepared)
            elif byte == ord("\r"):
                answers += self._acknowledge(self._typed.decode("ascii", "replace").replace(" ", ""))
                self._typed = b""
            elif byte != ord("\n"):
                self._typed += bytes([byte])
        return answers

    def _acknowledge(self, message: str) -> bytes:
        self._prepared = self._data(message)
        refused = self._prepared in (SYNTAX, PARAMETER, NO_HARDWARE)
        return NAK if refused else ACK

    def _data(self, message: str) -> str:
        mnemonic, *parameters = message.split(",")
        channel = int(mnemonic[2]) if mnemonic[:2] == "PR" and mnemonic[2:].isdigit() and len(mnemonic) == 3 else None
        if mnemonic in self.unknown or self.fault is Fault.REFUSING:
            return SYNTAX
        if channel is not None:
            present = 1 <= channel <= len(self.gauges)
            return self._measurement(channel - 1) if present else NO_HARDWARE
        if mnemonic == "UNI" and parameters:
            if parameters[0] not in ("0", "1", "2", "3", "4", "5"):
                return PARAMETER
            self.unit = int(parameters[0])
        answers = {"UNI": str(self.unit), "TID": ",".join(self.gauges), "AYT": IDENTIFICATION, "PNR": FIRMWARE}
        return answers.get(mnemonic, SYNTAX)

    def _measurement(self, at: int) -> str:
        gauge = self.gauges[at]
        absent = gauge.startswith("no")
        pressure_pa = 2.0 if absent else min(self._indicated_pa(gauge), self.full_scale_pa)
        over = not absent and self._indicated_pa(gauge) > self.full_scale_pa
        status = self.status if self.status is not None else 5 if absent else 2 if over else 0
        status = FAULT_STATUSES.get(self.fault, status)
        text = f"{pressure_pa / PA_PER_UNIT[self.unit]:+.4E}" if self.pressure_text is None else self.pressure_text
        return f"{status},{text}"

    def _indicated_pa(self, gauge: str) -> float:
        if gauge.startswith(CAPACITANCE):
            return self._world.pressure_pa
        weight = {"hydrogen": PIRANI_HYDROGEN_FACTOR}
        partial_pa = self._world.partial_pressures_pa
        return BASE_PRESSURE_PA + sum(weight.get(gas, 1.0) * pressure for gas, pressure in partial_pa.items())

    @staticmethod
    def _line(text: str) -> bytes:
        return text.encode("ascii") + b"\r\n"
