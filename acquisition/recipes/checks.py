"""A whole recipe against the lab's limits, before anything of it is sent."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping

from acquisition.devices import ConstantPower, Limits
from acquisition.errors import BadInput, LimitExceeded
from acquisition.interlocks import InterlockLimits
from acquisition.lab import Lab
from acquisition.live_figures import MEASURED, PREFIX
from acquisition.recipes.steps import HELD, SETPOINTS, AnyStep, Hold, Move, Off, Ramp, Recipe, Set, Wait

TOLD_AS = "refused whole; nothing was sent"
FIGURES = tuple(f"{PREFIX}{name}" for name in MEASURED)
"""May be waited for before they were ever read: a recipe starts its own run."""


def check_recipe(recipe: Recipe, lab: Lab, interlocks: InterlockLimits, channels: Collection[str]) -> None:
    """Raise `LimitExceeded` or `BadInput` for the first step that this lab does not have or does not allow.

    `channels` are those that the lab reads at present. Both errors name step, key, value, limit and the way out.
    """
    holds: dict[str, str] = {}  # device -> channel that it holds
    for number, step in enumerate(recipe.steps, 1):
        where = f"recipe {recipe.name}, step {number} ({step.do})"
        match step:
            case Set() | Ramp():
                _check_aim(where, step, lab, interlocks, holds)
            case Hold():
                _check_hold(where, step, lab, interlocks, channels)
                holds[step.by.partition(".")[0]] = step.channel
            case Wait(channel=str() as channel):
                _check_channel(where, channel, channels)
            case Move():
                _check_move(where, step, lab)
            case _:
                _check_device(where, step, lab)
        if isinstance(step, Off):
            holds.pop(step.device or (lab.heater.name if lab.heater else ""), None)


def limits_of(lab: Lab, by: str) -> Limits | None:
    """Limits of the setpoint that `device.key` names, in the unit of the key; None where the lab knows none."""
    device, _, key = by.partition(".")
    setpoint, factor = SETPOINTS[key]
    found = lab.limits.get(device, {}).get(setpoint)
    return found and Limits(found.low / factor, found.high / factor, found.setting)


def devices_of(recipe: Recipe, lab: Lab) -> frozenset[str]:
    """The devices that a recipe drives: nobody else may set them meanwhile."""
    heater = lab.heater.name if lab.heater else ""
    found: set[str] = set()
    for step in recipe.steps:
        match step:
            case Set(device=str() as device) | Ramp(device=str() as device) | Off(device=str() as device):
                found.add(device)
            case Hold():
                found.add(step.by.partition(".")[0])
            case Move() if lab.stage is not None:
                found.add(lab.stage.name)
            case _ if step.do in ("arm", "off"):
                found.add(heater)
    return frozenset(found)


def _check_aim(where: str, step: Set | Ramp, lab: Lab, interlocks: InterlockLimits, holds: dict[str, str]) -> None:
    if step.key in HELD:
        if not any(channel.endswith(f".{step.key}") for channel in holds.values()):
            raise BadInput(
                f"{where}: {step.key} = {step.value:g} is for a hold of a channel that ends in .{step.key}, and none "
                f"is in force here; add a hold step before; {TOLD_AS}"
            )
        _check_held(where, step.key, step.value, interlocks)
        return
    by = f"{step.device}.{step.key}"
    _check_setpoint(where, by, lab)
    _check_value(where, limits_of(lab, by), step.value, f"{step.device} {step.key}")
    if isinstance(step, Ramp) and step.rate_per_s is not None:
        _check_speed(where, by, step.rate_per_s, lab)
    holds.pop(step.device or "", None)


def _check_hold(where: str, step: Hold, lab: Lab, interlocks: InterlockLimits, channels: Collection[str]) -> None:
    _check_channel(where, step.channel, channels)
    _check_setpoint(where, step.by, lab)
    limits = limits_of(lab, step.by)
    for key, bound in (("low", step.low), ("high", step.high)):
        if bound is not None:
            _check_value(where, limits, bound, f"{step.by} {key}")
        elif limits is None:
            raise BadInput(f"{where}: this lab has no limits for {step.by}: give low and high; {TOLD_AS}")
    if step.per_s is not None:
        _check_speed(where, step.by, step.per_s, lab)
    if step.target is not None:
        _check_held(where, step.channel.rpartition(".")[2], step.target, interlocks)


def _check_move(where: str, step: Move, lab: Lab) -> None:
    if lab.stage is None:
        raise BadInput(f"{where}: this lab has no stage; take the step out; {TOLD_AS}")
    limits = lab.limits.get(lab.stage.name, {})
    for axis, value in step.target_m.items():
        _check_value(where, limits.get(axis), value, f"{lab.stage.name} {axis}")


def _check_device(where: str, step: AnyStep, lab: Lab) -> None:
    device = getattr(step, "device", None)
    if step.do in ("arm", "off") and device is None and lab.heater is None:
        raise BadInput(f"{where}: this lab has no laser; take the step out; {TOLD_AS}")
    known = [name for name in _setpoints(lab) if name != (lab.pyrometer and lab.pyrometer.name)]
    if step.do == "off" and device is not None and device not in known:
        raise BadInput(f"{where}: device = {device!r} cannot be switched off; {_nearest(device, known)}; {TOLD_AS}")


def _check_setpoint(where: str, by: str, lab: Lab) -> None:
    device, _, key = by.partition(".")
    known = _setpoints(lab)
    if device not in known:
        raise BadInput(f"{where}: there is no device {device!r} with setpoints; {_nearest(device, known)}; {TOLD_AS}")
    if SETPOINTS[key][0] not in known[device]:
        keys = [name for name, (setpoint, _) in SETPOINTS.items() if setpoint in known[device]]
        raise BadInput(f"{where}: {device} has no setpoint {key}; it has {' or '.join(keys)}; {TOLD_AS}")


def _setpoints(lab: Lab) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {gas.name: ("flow_mol_per_s",) for gas in lab.gases}
    if lab.heater is not None:
        found[lab.heater.name] = ("current_a", "power_w") if isinstance(lab.heater, ConstantPower) else ("current_a",)
    if lab.pyrometer is not None:
        found[lab.pyrometer.name] = ("emissivity",)
    return found


def _check_channel(where: str, channel: str, channels: Collection[str]) -> None:
    if channel in FIGURES:
        return
    if channel not in channels:
        raise BadInput(
            f"{where}: there is no channel {channel!r}; {_nearest(channel, (*channels, *FIGURES))}; {TOLD_AS}"
        )


def _check_held(where: str, quantity: str, value: float, interlocks: InterlockLimits) -> None:
    bounds: Mapping[str, Limits] = {
        "temperature_k": Limits(0.0, interlocks.temperature_max_k, "interlocks.temperature_max_k"),
        "pressure_pa": Limits(0.0, interlocks.pressure_max_pa, "interlocks.pressure_max_pa"),
    }
    _check_value(where, bounds.get(quantity), value, quantity)


def _check_speed(where: str, by: str, per_s: float, lab: Lab) -> None:
    """Only some labs limit how fast a setpoint may change."""
    device, _, key = by.partition(".")
    setpoint, factor = SETPOINTS[key]
    limit = lab.limits.get(device, {}).get(f"{setpoint}_per_s")
    if limit is not None:
        _check_value(where, Limits(0.0, limit.high / factor, limit.setting), per_s, f"{by} per second")


def _check_value(where: str, limits: Limits | None, value: float, what: str) -> None:
    if limits is None or limits.low <= value <= limits.high:
        return
    if math.isclose(value, limits.low, rel_tol=1e-9) or math.isclose(value, limits.high, rel_tol=1e-9):
        return
    limit = limits.low if value < limits.low else limits.high
    side = "below" if value < limits.low else "above"
    raise LimitExceeded(
        f"{where}: {what} {value:g} is {side} its limit of {limit:g} ({limits.setting}); {TOLD_AS}",
        value=value,
        limit=limit,
        setting=limits.setting,
    )


def _nearest(given: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
