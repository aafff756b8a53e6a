"""The laser's permit: any input that is bad, invalid, missing or old takes it away; the safe state is verified."""

from __future__ import annotations

from dataclasses import replace

import pytest

from acquisition.clock import Instant
from acquisition.devices import HeaterStatus, Limits, Reading
from acquisition.errors import DeviceFailed, LimitExceeded
from acquisition.interlocks import InterlockLimits, PermitInput, Watched, make_safe, permit_inputs

NOW = Instant(100_000_000_000, 0)
WATCHED = Watched("heater", "pyrometer", "gauge", "capacitance", ("oxygen",))
GOOD = {
    "heater.emission": 1.0,
    "heater.interlock": 1.0,
    "pyrometer.temperature_k": 900.0,
    "gauge.pressure_pa": 121.0,
    "oxygen.flow_mol_per_s": 1e-5,
    "oxygen.flow_setpoint_mol_per_s": 1e-5,
}


def readings(**changes: float | Reading | None) -> dict[str, Reading]:
    values: dict[str, float | Reading | None] = {**GOOD, **{k.replace("__", "."): v for k, v in changes.items()}}
    return {
        channel: value if isinstance(value, Reading) else Reading(value, True, NOW)
        for channel, value in values.items()
        if value is not None
    }


def judge(found: dict[str, Reading], watched: Watched = WATCHED, operator_s: float = 0.0) -> list[PermitInput]:
    seen = NOW.later(-operator_s)
    return [c for c in permit_inputs(found, NOW, seen, watched, InterlockLimits()) if not c.good]


def test_good_readings_give_the_permit() -> None:
    assert judge(readings()) == []


@pytest.mark.parametrize("channel", [channel for channel in GOOD if "setpoint" not in channel])
def test_a_missing_reading_takes_the_permit(channel: str) -> None:
    assert judge(readings(**{channel: None}))


@pytest.mark.parametrize("channel", [channel for channel in GOOD if "setpoint" not in channel])
def test_a_stale_reading_takes_the_permit(channel: str) -> None:
    old = Reading(GOOD[channel], True, NOW.later(-3.1))
    bad = judge(readings(**{channel: old}))
    assert bad and "3.1 s old" in bad[0].reason


@pytest.mark.parametrize("channel", [channel for channel in GOOD if "setpoint" not in channel])
def test_an_invalid_reading_takes_the_permit_while_heating(channel: str) -> None:
    assert judge(readings(**{channel: Reading(GOOD[channel], False, NOW, "code 77770")}))


def test_a_laser_that_tells_a_fault_of_its_own_has_no_permit() -> None:
    assert judge(readings(heater__healthy=1.0)) == []
    (bad,) = judge(readings(heater__healthy=Reading(0.0, False, NOW, "its driver is too hot")))
    assert "too hot" in bad.reason


def test_a_pyrometer_below_its_range_is_no_obstacle_while_the_laser_is_off() -> None:
    under = Reading(0.0, False, NOW, "under range")
    assert judge(readings(heater__emission=0.0, pyrometer__temperature_k=under)) == []
    assert judge(readings(pyrometer__temperature_k=under))


@pytest.mark.parametrize(
    ("channel", "value", "says"),
    [
        ("pyrometer.temperature_k", 1301.0, "above 1300 K"),
        ("gauge.pressure_pa", 1001.0, "above 1000 Pa"),
        ("gauge.pressure_pa", 0.5, "below 1 Pa"),
        ("heater.interlock", 0.0, "interlock is open"),
    ],
)
def test_a_value_beyond_its_limit_takes_the_permit_and_says_which(channel: str, value: float, says: str) -> None:
    bad = judge(readings(**{channel: value}))
    assert len(bad) == 1 and says in bad[0].reason


def test_vacuum_is_permitted_while_no_gas_should_flow() -> None:
    assert judge(readings(gauge__pressure_pa=1e-3, oxygen__flow_setpoint_mol_per_s=0.0)) == []


def test_a_pirani_gauge_never_guards_the_laser() -> None:
    bad = judge(readings(), replace(WATCHED, gauge_technology="pirani"))
    assert len(bad) == 1 and "capacitance" in bad[0].reason


def test_silence_of_the_operator_takes_the_permit_only_while_the_laser_is_on() -> None:
    assert judge(readings(), operator_s=61)
    assert judge(readings(heater__emission=0.0), operator_s=61) == []


@pytest.mark.parametrize("value", [1.51, -0.1, float("nan"), float("inf")])
def test_a_limit_refuses_with_value_and_limit(value: float) -> None:
    with pytest.raises(LimitExceeded, match=r"limits\.heater_current_a.*nothing was sent"):
        Limits(0.0, 1.5, "limits.heater_current_a").check(value, "heater current_a")


class StubbornHeater:
    """Answers, but its current does not go down."""

    name = "heater"

    async def off(self) -> None: ...

    async def status(self) -> HeaterStatus:
        return HeaterStatus(True, True, 1.1, 0.0)


class SilentHeater(StubbornHeater):
    async def off(self) -> None:
        raise DeviceFailed("heater did not answer within 2 s")


class ObedientGas:
    name = "oxygen"
    flow = 1e-5

    async def set_flow(self, flow_mol_per_s: float) -> None:
        self.flow = flow_mol_per_s

    async def read(self) -> dict[str, Reading]:
        return {"flow_setpoint_mol_per_s": Reading(self.flow, True, NOW)}


@pytest.mark.parametrize("heater", [StubbornHeater(), SilentHeater()])
async def test_what_cannot_be_verified_safe_is_told_and_the_rest_is_still_done(heater: StubbornHeater) -> None:
    gas = ObedientGas()
    unverified = await make_safe([heater], [gas], None)  # type: ignore[list-item]
    assert len(unverified) == 1 and "laser heater could not be verified safe" in unverified[0]
    assert gas.flow == 0.0
