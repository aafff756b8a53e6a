"""What a recipe may say: one strict model per kind of step. Keys carry their units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOL_PER_S_PER_SCCM = 7.436e-7
MOST_STEPS = 500
SECONDS_PER_WEEK = 7 * 86400.0
STALE_AFTER_S = 3.0

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=SECONDS_PER_WEEK, allow_inf_nan=False)]
StaleAfter = Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=80)]
Text = Annotated[str, Field(max_length=1000)]

SETPOINTS: Mapping[str, tuple[str, float]] = {
    "current_a": ("current_a", 1.0),
    "power_w": ("power_w", 1.0),
    "flow_sccm": ("flow_mol_per_s", MOL_PER_S_PER_SCCM),
    "flow_mol_per_s": ("flow_mol_per_s", 1.0),
    "emissivity": ("emissivity", 1.0),
}
"""Key of a recipe -> setpoint of a device, and what the key's value is multiplied by to be SI."""

HELD = ("temperature_k", "pressure_pa")
"""Keys that no device takes: they move the target of the hold whose channel ends so."""

READ_BACK: Mapping[str, str] = {"current_a": "current_target_a", "flow_mol_per_s": "flow_setpoint_mol_per_s"}
"""Setpoint -> quantity that a device reads it back as, where the name differs."""


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def words(self) -> str:
        """What it does, in a line for people."""
        shown = self.model_dump(exclude_defaults=True)
        return " ".join([str(shown.pop("do")), *(f"{key} {_shown(value)}" for key, value in shown.items())])


class _Aim(Step):
    """One value for one setpoint: of a device, or of a hold (`temperature_k`, `pressure_pa`), which needs no device."""

    device: Name | None = None
    current_a: Number | None = None
    power_w: Number | None = None
    flow_sccm: Number | None = None
    flow_mol_per_s: Number | None = None
    emissivity: Number | None = None
    temperature_k: Positive | None = None
    pressure_pa: Positive | None = None

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        keys = [key for key in (*SETPOINTS, *HELD) if getattr(self, key) is not None]
        if len(keys) != 1:
            raise ValueError(f"give exactly one of {', '.join((*SETPOINTS, *HELD))}; got {', '.join(keys) or 'none'}")
        if (keys[0] in HELD) != (self.device is None):
            way_out = "leave device out" if keys[0] in HELD else "add device"
            raise ValueError(f"{keys[0]} is set on {'a hold' if keys[0] in HELD else 'a device'}: {way_out}")
        return self

    @property
    def key(self) -> str:
        return next(key for key in (*SETPOINTS, *HELD) if getattr(self, key) is not None)

    @property
    def value(self) -> float:
        """In the unit of `key`."""
        return float(getattr(self, self.key))


class Set(_Aim):
    """At once."""

    do: Literal["set"]


class Ramp(_Aim):
    """From the present value at a rate, or over a time. A held target never runs ahead of its reading: it waits.

    `timeout_s` bounds such waiting; by default as long again as the ramp should take, and a minute.
    """

    do: Literal["ramp"]
    current_a_per_s: Positive | None = None
    power_w_per_s: Positive | None = None
    flow_sccm_per_s: Positive | None = None
    temperature_k_per_s: Positive | None = None
    pressure_pa_per_s: Positive | None = None
    over_s: Annotated[float, Field(gt=0, le=SECONDS_PER_WEEK, allow_inf_nan=False)] | None = None
    timeout_s: Seconds | None = None

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        paced = ("current_a", "power_w", "flow_sccm", "temperature_k", "pressure_pa")
        keys = [*(f"{key}_per_s" for key in paced), "over_s"]
        given = [key for key in keys if getattr(self, key) is not None]
        fitting = [key for key in (f"{self.key}_per_s", "over_s") if key in keys]
        if len(given) != 1 or given[0] not in fitting:
            raise ValueError(f"give exactly one of {', '.join(fitting)}; got {', '.join(given) or 'none'}")
        return self

    @property
    def rate_per_s(self) -> float | None:
        """In the unit of `key` per second; None where `over_s` is given."""
        return None if self.over_s is not None else float(getattr(self, f"{self.key}_per_s"))


class Hold(Step):
    """Keep `channel` at `target` by steering the setpoint `by` (`heater.current_a`, `oxygen.flow_sccm`), until another
    step sets that setpoint or switches its device off.

    `gain` is in the unit of `by` per unit of the channel, `integral_s` the time in which a lasting error doubles its
    answer; `low`, `high` and `per_s` bound the setpoint and its speed, in the unit of `by`. Without a target the
    present reading is kept, from which a ramp may start. A figure of the heights (`figures.step_velocity_m_per_s`) is
    as old as its frame: give a `stale_after_s` of some frame intervals.
    """

    do: Literal["hold"]
    channel: Name
    by: Name
    gain: Positive
    integral_s: Positive
    target: Number | None = None
    low: Number | None = None
    high: Number | None = None
    per_s: Positive | None = None
    stale_after_s: StaleAfter = STALE_AFTER_S

    @model_validator(mode="after")
    def _steers_a_setpoint(self) -> Self:
        device, _, key = self.by.partition(".")
        if not device or key not in SETPOINTS:
            raise ValueError(f"by = {self.by!r} names no setpoint: write device.key with one of {', '.join(SETPOINTS)}")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        return self


class Wait(Step):
    """For `seconds`, or until `channel` (SI, as the status names it) is `above`, `below`, or within `tolerance` of
    `near`, for `for_s` on end and for `for_frames` readings on end, which for a figure of the heights are frames. A
    condition has a timeout, after which the recipe fails or goes on; a reading older than `stale_after_s` meets none.
    """

    do: Literal["wait"]
    seconds: Seconds | None = None
    channel: Name | None = None
    above: Number | None = None
    below: Number | None = None
    near: Number | None = None
    tolerance: Positive | None = None
    for_s: Seconds = 0.0
    for_frames: Annotated[int, Field(ge=1, le=10_000)] = 1
    stale_after_s: StaleAfter = STALE_AFTER_S
    timeout_s: Seconds | None = None
    on_timeout: Literal["fail", "go_on"] = "fail"

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        conditions = [key for key in ("above", "below", "near") if getattr(self, key) is not None]
        if (self.seconds is None) == (self.channel is None):
            raise ValueError("give either seconds, or a channel with a condition")
        if self.seconds is not None and (
            conditions or self.tolerance or self.timeout_s is not None or self.for_s or self.for_frames > 1
        ):
            raise ValueError("seconds are waited for without a condition: give seconds alone")
        if self.channel is not None:
            if len(conditions) != 1:
                raise ValueError(f"give exactly one of above, below, near; got {', '.join(conditions) or 'none'}")
            if (self.near is None) != (self.tolerance is None):
                raise ValueError("near and tolerance belong together: give both, or neither")
            if self.timeout_s is None or self.timeout_s <= self.for_s:
                raise ValueError(f"a condition may never come true: give timeout_s above for_s = {self.for_s:g}")
        return self

    def met_by(self, value: float) -> bool:
        if self.above is not None:
            return value > self.above
        if self.below is not None:
            return value < self.below
        return self.near is not None and self.tolerance is not None and abs(value - self.near) <= self.tolerance


class Move(Step):
    """The stage, to a place; an axis that is not named stays."""

    do: Literal["move"]
    x_um: Number | None = None
    y_um: Number | None = None
    z_um: Number | None = None
    x_m: Number | None = None
    y_m: Number | None = None
    z_m: Number | None = None

    @model_validator(mode="after")
    def _each_axis_once(self) -> Self:
        for axis in "xyz":
            if getattr(self, f"{axis}_um") is not None and getattr(self, f"{axis}_m") is not None:
                raise ValueError(f"{axis}_um and {axis}_m are the same axis: give one of them")
        if not self.target_m:
            raise ValueError("give at least one of x_um, y_um, z_um")
        return self

    @property
    def target_m(self) -> dict[str, float]:
        found = {f"{axis}_m": getattr(self, f"{axis}_m") for axis in "xyz"}
        found |= {f"{axis}_m": 1e-6 * um for axis in "xyz" if (um := getattr(self, f"{axis}_um")) is not None}
        return {axis: value for axis, value in found.items() if value is not None}


class Arm(Step):
    """Allow the laser to emit; refused without its permit, which ends the recipe."""

    do: Literal["arm"]


class Off(Step):
    """The laser, or the gas that `device` names."""

    do: Literal["off"]
    device: Name | None = None


class Mark(Step):
    """A named event in the journal, on the stream and on the page."""

    do: Literal["mark"]
    text: Annotated[str, Field(min_length=1, max_length=200)]


class Start(Step):
    """Start a run; its end in order does not end the recipe, its fault does."""

    do: Literal["start"]
    name: Name = "recipe"
    frames: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    record: bool = True
    notes: Text = ""


class Stop(Step):
    """End the run in order after the frame at hand; its heights are made meanwhile."""

    do: Literal["stop"]


AnyStep = Annotated[
    Set | Ramp | Hold | Wait | Move | Arm | Off | Mark | Start | Stop,
    Field(discriminator="do"),
]


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: Name
    description: Text = ""
    steps: Annotated[tuple[AnyStep, ...], Field(min_length=1, max_length=MOST_STEPS, strict=False)]

    def tree(self) -> dict[str, Any]:
        """As it was written, less what is as by default."""
        about = {"name": self.name, "description": self.description}
        return {**about, "steps": [step.model_dump(exclude_defaults=True) for step in self.steps]}


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
