"""Bronkhorst mass flow controllers: one gas each, in mol/s, several on one bus."""

from __future__ import annotations

import asyncio
import logging
import math
from types import TracebackType
from typing import Self

from acquisition.clock import Clock
from acquisition.devices import Limits, Reading, Readings, require_entered
from acquisition.errors import DeviceFailed
from hardware_drivers.probing import Probe, refuse_entered
from hardware_drivers.propar import BYTE, FLOAT, STRING, BronkhorstBus, Parameter

log = logging.getLogger(__name__)

__all__ = ["BronkhorstBus", "BronkhorstFlowController"]

GAS_CONSTANT_J_PER_MOL_K = 8.314462618
ATMOSPHERE_PA = 101325.0
# Normal (n) and American "standard" (sccm, slm) conditions are 0 degrees C here, Bronkhorst's own standard (s) 20.
MOL_PER_NORMAL_LITRE = 1e-3 * ATMOSPHERE_PA / (GAS_CONSTANT_J_PER_MOL_K * 273.15)
MOL_PER_STANDARD_LITRE = 1e-3 * ATMOSPHERE_PA / (GAS_CONSTANT_J_PER_MOL_K * 293.15)
LITRES = {"ml": 1e-3, "l": 1.0, "m3": 1e3}
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
MOL_PER_S = {
    f"{volume}{condition}/{time}": litres * mol_per_litre / seconds
    for volume, litres in LITRES.items()
    for condition, mol_per_litre in (("n", MOL_PER_NORMAL_LITRE), ("s", MOL_PER_STANDARD_LITRE))
    for time, seconds in SECONDS.items()
} | {"sccm": 1e-3 * MOL_PER_NORMAL_LITRE / 60, "slm": MOL_PER_NORMAL_LITRE / 60}
FORMULAS = {
    "hydrogen": "H2",
    "oxygen": "O2",
    "nitrogen": "N2",
    "argon": "AR",
    "helium": "HE",
    "methane": "CH4",
    "carbon dioxide": "CO2",
    "carbon monoxide": "CO",
    "air": "AIR",
}
# The protocol's own span of a measured value: -23593 to 41942 of 32000.
LOWEST_SHARE, HIGHEST_SHARE = -0.737, 1.31
# A controller may keep its setpoint in steps of capacity / 32000.
SETPOINT_STEPS = 32000
# 100 sccm are 7.436e-5 or 7.43584e-5 mol/s, as one rounds: neither exceeds a controller of 100 sccm.
ROUNDING = 1.001
ALARM_REASONS = {0x01: "the controller reports an error", 0x80: "the controller reports a hardware error"}
SETPOINT_FROM_BUS = {0: "bus", 18: "RS232"}
CONTROL_MODE = Parameter(1, 4, BYTE, "control mode")
CAPACITY = Parameter(1, 13, FLOAT, "capacity")
FLUID = Parameter(1, 17, STRING, "fluid name", 10)
ALARM = Parameter(1, 20, BYTE, "alarm info")
UNIT = Parameter(1, 31, STRING, "capacity unit", 7)
FLOW = Parameter(33, 0, FLOAT, "flow")
SETPOINT = Parameter(33, 3, FLOAT, "setpoint")
SERIAL_NUMBER = Parameter(113, 3, STRING, "serial number")


class BronkhorstFlowController:
    """One controller (`node`, 128 reaches whichever is on a port of its own) for one gas, in mol/s.

    Entering and leaving set the setpoint to 0 and read it back. The controller's fluid must be the gas set up, and it
    must follow the bus's setpoint, not an analog one. Its unit is converted at 101325 Pa: n units, sccm and slm at
    273.15 K, Bronkhorst's s units at 293.15 K; a unit of mass is refused. Source: manuals 9.17.023 and 9.17.027.
    """

    def __init__(
        self, name: str, bus: BronkhorstBus, clock: Clock, gas: str, flow_limits: Limits, *, node: int = 128
    ) -> None:
        self._name = name
        self._bus = bus
        self._gas = gas
        self._flow_limits = flow_limits
        self._clock = clock
        self._node = node
        self._setting = asyncio.Lock()
        self._entered = False
        self._capacity = math.nan
        self._mol_per_s = math.nan
        self.identification = ""

    @property
    def name(self) -> str:
        return self._name

    @property
    def gas(self) -> str:
        return self._gas

    async def __aenter__(self) -> Self:
        await self._bus.join(self._name)
        try:
            await self._close_valve()
            await self._identify()
        except BaseException:
            await self._bus.leave(self._name)
            raise
        self._entered = True
        log.info("%s is %s", self._name, self.identification)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        try:
            await self._close_valve()
        except DeviceFailed as failure:
            if error is None:
                raise
            log.critical("%s: %s", self._name, failure)
        finally:
            await self._bus.leave(self._name)

    async def set_flow(self, flow_mol_per_s: float) -> None:
        """Set and read back. Raises `LimitExceeded` before anything is sent, also above the controller's capacity."""
        self._require_connection()
        self._flow_limits.check(flow_mol_per_s, f"{self._name} flow_mol_per_s")
        full_scale = Limits(0.0, self._capacity * self._mol_per_s * ROUNDING, f"the capacity of {self.identification}")
        full_scale.check(flow_mol_per_s, f"{self._name} flow_mol_per_s")
        setpoint = min(flow_mol_per_s / self._mol_per_s, self._capacity)
        await self._set(setpoint, self._capacity / SETPOINT_STEPS if setpoint else 0.0)

    async def read(self) -> Readings:
        """`flow_mol_per_s`, `flow_setpoint_mol_per_s`; invalid where the controller reports an error."""
        self._require_connection()
        return await self._look()

    async def probe(self) -> Probe:
        """See `hardware_drivers.probing`. The setpoint stays as it is."""
        refuse_entered(self._name, entered=self._entered)
        await self._bus.join(self._name)
        try:
            await self._identify()
            return Probe(self.identification, await self._look())
        finally:
            await self._bus.leave(self._name)

    async def _look(self) -> Readings:
        flow = await self._bus.read_number(self._node, FLOW)
        setpoint = await self._bus.read_number(self._node, SETPOINT)
        alarm = int(await self._bus.read_number(self._node, ALARM))
        mode = int(await self._bus.read_number(self._node, CONTROL_MODE))
        alarms = [reason for bit, reason in ALARM_REASONS.items() if alarm & bit]
        ignored = [] if mode in SETPOINT_FROM_BUS else [f"control mode {mode} ignores the bus's setpoint"]
        return {
            "flow_mol_per_s": self._reading(flow, alarms),
            "flow_setpoint_mol_per_s": self._reading(setpoint, ignored),
        }

    def _reading(self, told: float, reasons: list[str]) -> Reading:
        if not LOWEST_SHARE * self._capacity < told < HIGHEST_SHARE * self._capacity:
            reasons = [*reasons, f"{told:g} is outside what a controller of {self._capacity:g} can tell"]
        value = math.nan if reasons else told * self._mol_per_s
        return Reading(value, not reasons, self._clock.now(), "; ".join(reasons))

    async def _close_valve(self) -> None:
        try:
            await self._set(0.0, 0.0)
        except DeviceFailed as failure:
            raise DeviceFailed(
                f"{self._gas} may still flow: {self._name} is not verified at 0, close it by hand ({failure})"
            ) from failure

    async def _set(self, setpoint: float, tolerance: float) -> None:
        """In the controller's unit; verified by reading it back, before the next one is set."""
        async with self._setting:
            await self._bus.write(self._node, SETPOINT, setpoint)
            told = await self._bus.read_number(self._node, SETPOINT)
        if not abs(told - setpoint) <= tolerance:
            raise DeviceFailed(
                f"{self._name} was set to {setpoint:g} and tells {told:g}: the controller ignores its bus setpoint, "
                "check its control mode and its alarms"
            )

    async def _identify(self) -> None:
        serial_number = await self._bus.read_text(self._node, SERIAL_NUMBER)
        fluid = await self._bus.read_text(self._node, FLUID)
        unit = await self._bus.read_text(self._node, UNIT)
        mode = int(await self._bus.read_number(self._node, CONTROL_MODE))
        self._capacity = await self._bus.read_number(self._node, CAPACITY)
        self.identification = (
            f"controller {serial_number} for {self._capacity:g} {unit} of {fluid} "
            f"(node {self._node} at {self._bus.address})"
        )
        if fluid.upper() not in (self._gas.upper(), FORMULAS.get(self._gas.lower())):
            raise DeviceFailed(
                f"{self._name} is set up for {self._gas}, but it is a {self.identification}: "
                "correct the node or the gas in the settings, or the fluid set in the controller"
            )
        if unit not in MOL_PER_S or not 0 < self._capacity < math.inf:
            raise DeviceFailed(
                f"{self._name} cannot be used in mol/s, it is a {self.identification}: "
                f"set its unit to one of {', '.join(MOL_PER_S)}"
            )
        if mode not in SETPOINT_FROM_BUS:
            raise DeviceFailed(
                f"{self._name} ({self.identification}) is in control mode {mode} and follows no setpoint from the bus: "
                "set control mode 0 with the maker's program"
            )
        self._mol_per_s = MOL_PER_S[unit]

    def _require_connection(self) -> None:
        require_entered(self._name, entered=self._entered)
