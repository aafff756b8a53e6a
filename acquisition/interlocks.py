"""May the laser be on? A permit is the AND of its inputs; what is invalid or too old counts as no.

This is no substitute for a hardware interlock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from acquisition.clock import Instant
from acquisition.devices import LaserHeater, MassFlowController, Reading, SegmentedDetector
from acquisition.errors import EclipsError

log = logging.getLogger(__name__)

STEP_TIMEOUT_S = 2.0
OFF_CURRENT_A = 0.02
OFF_FLOW_MOL_PER_S = 1e-8
MAX_SETTING, MIN_SETTING = "interlocks.pressure_max_pa", "interlocks.pressure_min_pa"


@dataclass(frozen=True, slots=True)
class InterlockLimits:
    """What the permit demands. The lower pressure limit holds only while gas is meant to flow."""

    stale_after_s: float = 3.0
    temperature_max_k: float = 1300.0
    pressure_max_pa: float = 1000.0
    pressure_min_pa: float = 1.0
    operator_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Watched:
    """Names of the devices that the permit looks at; None where the lab has none."""

    heater: str
    pyrometer: str | None = None
    gauge: str | None = None
    gauge_technology: str = ""
    gases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PermitInput:
    """One condition. `reason` says which value is against which limit, and is empty when good."""

    name: str
    good: bool
    reason: str = ""


def permit_inputs(
    readings: Mapping[str, Reading],
    now: Instant,
    operator_seen: Instant,
    watched: Watched,
    limits: InterlockLimits,
) -> list[PermitInput]:
    """Every condition for the laser, judged on the latest readings by channel."""
    heating = _is_on(readings.get(f"{watched.heater}.emission"))
    inputs = [
        _fresh(readings, now, f"{watched.heater}.emission", limits),
        _interlock_word(readings, now, f"{watched.heater}.interlock", limits),
    ]
    healthy = f"{watched.heater}.healthy"
    if healthy in readings:
        inputs.append(PermitInput("laser without a fault", *_usable(readings[healthy], now, healthy, limits)))
    if watched.pyrometer is not None:
        inputs.append(_temperature(readings, now, f"{watched.pyrometer}.temperature_k", limits, heating))
    if watched.gauge is not None:
        flowing = any(_is_on(readings.get(f"{gas}.flow_setpoint_mol_per_s")) for gas in watched.gases)
        inputs.append(_pressure(readings, now, watched, limits, flowing))
    inputs += [_fresh(readings, now, f"{gas}.flow_mol_per_s", limits) for gas in watched.gases]
    inputs.append(_operator(now, operator_seen, limits, heating))
    return inputs


def against_opening_gas(readings: Mapping[str, Reading], watched: Watched, limits: InterlockLimits) -> str:
    """Why gas must not be let into vacuum now: the laser is on, and from then on the lower pressure limit holds, so
    that the permit would be gone before the pressure is there. Empty when gas may be opened."""
    emission = readings.get(f"{watched.heater}.emission")
    pressure = readings.get(f"{watched.gauge}.pressure_pa")
    if emission is None or not emission.valid or emission.value == 0 or pressure is None or not pressure.valid:
        return ""
    if pressure.value >= limits.pressure_min_pa:
        return ""
    return (
        f"the laser is on in vacuum ({pressure.value:.3g} Pa), and while gas should flow less than "
        f"{limits.pressure_min_pa:g} Pa ({MIN_SETTING}) takes its permit: switch it off, open the gas, and arm it "
        "again once the pressure is there"
    )


async def make_safe(
    heaters: Sequence[LaserHeater], gases: Sequence[MassFlowController], detector: SegmentedDetector | None
) -> list[str]:
    """Bring all to the safe state in the order laser, gas, scan, each step read back. Never raises.

    Returns what could not be verified, for people; empty when everything is verified safe.
    """
    unverified: list[str] = []
    for heater in heaters:
        await _step(f"laser {heater.name}", _laser_off(heater), unverified)
    for gas in gases:
        await _step(f"gas {gas.name}", _gas_off(gas), unverified)
    if detector is not None:
        await _step("scan", _scan_off(detector), unverified)
    return unverified


async def _step(what: str, step: Awaitable[str], unverified: list[str]) -> None:
    try:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            complaint = await step
    except TimeoutError:
        complaint = f"no answer within {STEP_TIMEOUT_S:g} s"
    except (EclipsError, OSError) as error:
        complaint = str(error)
    if complaint:
        unverified.append(f"{what} could not be verified safe: {complaint}")
        log.critical("%s", unverified[-1])


async def _laser_off(heater: LaserHeater) -> str:
    await heater.off()
    status = await heater.status()
    if status.emission_on or status.current_a > OFF_CURRENT_A or status.current_target_a > 0:
        return f"emission {status.emission_on}, {status.current_a:g} A, target {status.current_target_a:g} A"
    return ""


async def _gas_off(gas: MassFlowController) -> str:
    await gas.set_flow(0.0)
    setpoint = (await gas.read())["flow_setpoint_mol_per_s"]
    return "" if setpoint.valid and setpoint.value <= OFF_FLOW_MOL_PER_S else f"setpoint reads {setpoint.value:g} mol/s"


async def _scan_off(detector: SegmentedDetector) -> str:
    await detector.stop()
    return ""


def _is_on(reading: Reading | None) -> bool:
    """An unknown switch counts as on: the careful answer."""
    return reading is None or not reading.valid or reading.value > 0


def _fresh(readings: Mapping[str, Reading], now: Instant, channel: str, limits: InterlockLimits) -> PermitInput:
    return PermitInput(f"{channel} is fresh", *_usable(readings.get(channel), now, channel, limits))


def _usable(reading: Reading | None, now: Instant, channel: str, limits: InterlockLimits) -> tuple[bool, str]:
    if reading is None:
        return False, f"{channel} was never read"
    age_s = now.seconds_since(reading.instant)
    if age_s > limits.stale_after_s:
        return False, f"{channel} is {age_s:.1f} s old, the limit is {limits.stale_after_s:g} s"
    if not reading.valid:
        return False, f"{channel} is invalid: {reading.reason}"
    return True, ""


def _interlock_word(
    readings: Mapping[str, Reading], now: Instant, channel: str, limits: InterlockLimits
) -> PermitInput:
    good, reason = _usable(readings.get(channel), now, channel, limits)
    if good and readings[channel].value < 1:
        good, reason = False, "the laser's own interlock is open: close the loop (door, key, relay)"
    return PermitInput("laser interlock closed", good, reason)


def _temperature(
    readings: Mapping[str, Reading], now: Instant, channel: str, limits: InterlockLimits, heating: bool
) -> PermitInput:
    good, reason = _usable(readings.get(channel), now, channel, limits)
    if good and readings[channel].value > limits.temperature_max_k:
        good = False
        value_k = readings[channel].value
        reason = f"{value_k:.0f} K is above {limits.temperature_max_k:g} K (interlocks.temperature_max_k)"
    if not good and not heating and "invalid" in reason:
        good, reason = True, ""  # below its range a pyrometer has nothing to say, and the laser is off
    return PermitInput("temperature below its limit", good, reason)


def _pressure(
    readings: Mapping[str, Reading], now: Instant, watched: Watched, limits: InterlockLimits, flowing: bool
) -> PermitInput:
    name = "pressure inside its window"
    channel = f"{watched.gauge}.pressure_pa"
    if watched.gauge_technology != "capacitance":
        reason = f"{watched.gauge} is a {watched.gauge_technology} gauge, which misreads gases: use a capacitance gauge"
        return PermitInput(name, False, reason)
    good, reason = _usable(readings.get(channel), now, channel, limits)
    if good:
        pressure_pa = readings[channel].value
        low_pa = limits.pressure_min_pa if flowing else 0.0
        if pressure_pa > limits.pressure_max_pa:
            good, reason = False, f"{pressure_pa:.3g} Pa is above {limits.pressure_max_pa:g} Pa ({MAX_SETTING})"
        elif pressure_pa < low_pa:
            good, reason = False, f"{pressure_pa:.3g} Pa is below {low_pa:g} Pa while gas should flow ({MIN_SETTING})"
    return PermitInput(name, good, reason)


def _operator(now: Instant, seen: Instant, limits: InterlockLimits, heating: bool) -> PermitInput:
    silent_s = now.seconds_since(seen)
    good = not heating or silent_s <= limits.operator_timeout_s
    reason = "" if good else f"nobody was heard of for {silent_s:.0f} s with the laser on: keep a page open"
    return PermitInput("operator present", good, reason)
