"""Commands to single devices: each checked against limits and permit before anything is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from acquisition.clock import Clock
from acquisition.device_changes import DeviceChanges
from acquisition.devices import ConstantPower, Device, LaserHeater, StagePosition
from acquisition.errors import RequestRefused
from acquisition.guard import Guard
from acquisition.lab import Lab
from acquisition.replay import ReplaySource
from acquisition.state import StateKeeper

STAGE_AXES = ("x_m", "y_m", "z_m")
MOST_TAGS = 20


class DeviceName(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    device: str


class Setpoints(BaseModel):
    """`values` by setpoint with unit: `current_a`, `power_w`, `flow_mol_per_s`, `emissivity`, or `x_m`, `y_m`, `z_m`.
    With `only_if`, nothing is sent unless one of these is the device's tag."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    device: str
    values: dict[str, float]
    only_if: Annotated[tuple[str, ...], Field(max_length=MOST_TAGS)] | None = None


class DeviceHost(Protocol):
    """Whose lab it is: a node, or the rehearsal of a recipe."""

    lab: Lab
    clock: Clock
    state: StateKeeper
    guard: Guard

    @property
    def replaying(self) -> ReplaySource | None: ...

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None: ...


class DeviceCommands:
    """The part of a node's commands that reach for the lab."""

    def __init__(self, node: DeviceHost) -> None:
        self._node = node
        self._lab = node.lab
        self.changes = DeviceChanges(node.lab.devices, node.clock)
        self.by_name: dict[str, tuple[type[BaseModel], Callable[[Any], Awaitable[Any]]]] = {
            "set": (Setpoints, self._set),
            "arm": (DeviceName, self._arm),
            "off": (DeviceName, self._off),
            "stop_device": (DeviceName, self._stop),
        }

    async def _set(self, wanted: Setpoints) -> Any:
        name, values = wanted.device, dict(wanted.values)
        reached = await self.apply(name, values, wanted.only_if)
        self._node.tell("setpoint", f"{name}: {_told(values)}", device=name, values=values)
        return reached

    async def apply(self, name: str, values: dict[str, float], only_if: Sequence[str] | None = None) -> Any:
        """Check against limits, permit and tag, then send; whoever sends many in a row tells of them together."""
        lab = self._lab
        self._connected(name)
        self._refuse_during_replay()
        self._check_limits(name, values)
        reached: Any = None
        if lab.heater is not None and name == lab.heater.name:
            await self._drive(lab.heater, values, only_if)
        elif lab.pyrometer is not None and name == lab.pyrometer.name:
            emissivity = _only(values, "emissivity", name)
            self.changes.note(name, _told(values), only_if)
            await lab.pyrometer.set_emissivity(emissivity)
        elif lab.stage is not None and name == lab.stage.name:
            reached = await self._move(values, only_if)
        else:
            gas = next((gas for gas in lab.gases if gas.name == name), None)
            if gas is None:
                raise RequestRefused(f"{name} has no setpoints; nothing was sent")
            flow_mol_per_s = _only(values, "flow_mol_per_s", name)
            if flow_mol_per_s > 0:
                self._node.guard.require_gas_may_open(name)
            self.changes.note(name, _told(values), only_if)
            await gas.set_flow(flow_mol_per_s)
        return reached

    async def _drive(self, heater: LaserHeater, values: dict[str, float], only_if: Sequence[str] | None) -> None:
        if "power_w" in values:
            power_w = _only(values, "power_w", heater.name)
            if not isinstance(heater, ConstantPower):
                raise RequestRefused(f"{heater.name} holds no power, only a current: set current_a; nothing was sent")
            if power_w > 0:
                self._node.guard.require_permit()
            self.changes.note(heater.name, _told(values), only_if)
            await heater.set_power(power_w)
            return
        current_a = _only(values, "current_a", heater.name)
        if current_a > 0:
            self._node.guard.require_permit()
        self.changes.note(heater.name, _told(values), only_if)
        await heater.set_current(current_a)

    async def _move(self, values: dict[str, float], only_if: Sequence[str] | None) -> dict[str, float]:
        stage = self._lab.stage
        assert stage is not None
        unknown = sorted(set(values) - set(STAGE_AXES))
        if unknown or not values:
            raise RequestRefused(f"{stage.name} has no setpoint {', '.join(unknown) or 'given'}; it has {STAGE_AXES}")
        readings = await stage.read()
        target = {axis: readings[axis].value for axis in STAGE_AXES} | values
        self.changes.note(stage.name, _told(values), only_if)
        reached = await stage.move(StagePosition(**target))
        return {"x_m": reached.x_m, "y_m": reached.y_m, "z_m": reached.z_m}

    async def _arm(self, wanted: DeviceName) -> None:
        self._connected(wanted.device)
        self._refuse_during_replay()
        heater = self._lab.heater
        if heater is None or heater.name != wanted.device:
            raise RequestRefused(f"{wanted.device} cannot be armed; only a laser heater can")
        self._node.guard.require_permit()
        self.changes.note(heater.name, "armed")
        await heater.arm()
        self._node.tell("armed", f"{heater.name} is armed", "warning", device=heater.name)

    async def _off(self, wanted: DeviceName) -> None:
        """Always permitted, whatever else goes on."""
        self._connected(wanted.device)
        heater = self._lab.heater
        gas = next((gas for gas in self._lab.gases if gas.name == wanted.device), None)
        if heater is not None and heater.name == wanted.device:
            self.changes.note(heater.name, "off")
            await heater.off()
        elif gas is not None:
            self.changes.note(gas.name, "off")
            await gas.set_flow(0.0)
        else:
            raise RequestRefused(f"{wanted.device} cannot be switched off")
        self._node.tell("off", f"{wanted.device} is off", device=wanted.device)

    async def _stop(self, wanted: DeviceName) -> None:
        stage = self._lab.stage
        if stage is None or stage.name != wanted.device:
            raise RequestRefused(f"{wanted.device} cannot be stopped; only a stage can")
        self.changes.note(stage.name, "stopped")
        await stage.stop()

    def safe_state_follows(self, reason: str) -> None:
        """Laser and gas are about to be brought to rest by somebody else."""
        for device in (self._lab.heater, *self._lab.gases):
            if device is not None:
                self.changes.note(device.name, f"safe state: {reason}")

    def _connected(self, name: str) -> Device:
        device = self._lab.devices.get(name)
        if device is None:
            raise RequestRefused(f"there is no device {name!r}", permitted=tuple(self._lab.devices))
        connection = self._node.state.connections[name]
        if not connection.connected:
            raise RequestRefused(f"{name} is not connected ({connection.reason}); nothing was sent")
        return device

    def _check_limits(self, name: str, values: dict[str, float]) -> None:
        limits = self._lab.limits.get(name, {})
        for setpoint, value in values.items():
            if setpoint in limits:
                limits[setpoint].check(value, f"{name} {setpoint}")

    def _refuse_during_replay(self) -> None:
        if self._node.replaying is not None:
            raise RequestRefused("devices are not driven during a replay: stop it first", permitted=("stop",))


def _told(values: dict[str, float]) -> str:
    return ", ".join(f"{setpoint} {value:g}" for setpoint, value in values.items())


def _only(values: dict[str, float], setpoint: str, device: str) -> float:
    """The one setpoint a device has; anything else is refused whole."""
    if set(values) != {setpoint}:
        raise RequestRefused(f"{device} takes {setpoint} and nothing else; got {sorted(values)}; nothing was sent")
    return values[setpoint]
