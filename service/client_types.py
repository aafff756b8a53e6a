"""What the client hands out: the service's answers as typed objects, in SI units. What a newer service tells beyond
them is passed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ExportFormat = Literal["zip", "npz", "npy", "tiff", "ome-tiff", "ome-zarr", "gwy", "gsf", "stl", "ply", "mp4"]


@dataclass(frozen=True, slots=True)
class Reading:
    """`value` is None where it is not valid, and `reason` says why."""

    value: float | None
    valid: bool
    age_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Limit:
    """`setting` names what to change in the settings file."""

    low: float
    high: float
    setting: str


@dataclass(frozen=True, slots=True)
class DeviceState:
    """`readings` and `limits` by quantity with its unit, such as `temperature_k`. `tag` changes with each thing that is
    sent to the device."""

    kind: str
    connected: bool
    reason: str
    gas: str | None
    readings: Mapping[str, Reading]
    limits: Mapping[str, Limit]
    tag: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """`active` while its cause lasts; it goes once acknowledged too."""

    id: str
    raised_utc_ns: int
    severity: str
    text: str
    way_out: str
    active: bool
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class Event:
    utc_ns: int
    name: str
    severity: str
    text: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of the laser's permit."""

    name: str
    good: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Interlocks:
    """`operator_countdown_s`: while the laser is on, how long it waits for a sign of life."""

    permit: bool
    inputs: tuple[Condition, ...]
    operator_countdown_s: float | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """`position` counts the frames of the replay from 0."""

    run_id: str
    position: int
    total: int
    speed: str


@dataclass(frozen=True, slots=True)
class LiveRun:
    """The present or last run."""

    run_id: str
    frames: int
    expected: int | None
    heights: int | None
    recording: bool
    replayed: Replayed | None


@dataclass(frozen=True, slots=True)
class ModelsInUse:
    """The model set of the workers, and the one before it; None before there was one."""

    active: str | None
    before: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """`state` is idle, armed, acquiring, finishing or fault; `figures` are those of the newest height."""

    utc_ns: int
    state: str
    fault: str | None
    permitted: tuple[str, ...]
    run: LiveRun | None
    frame_age_s: float | None
    figures: Mapping[str, float | None]
    devices: Mapping[str, DeviceState]
    interlocks: Interlocks
    alarms: tuple[Alarm, ...]
    models: ModelsInUse
    dose_electrons_per_nm2: float
    simulated: bool


@dataclass(frozen=True, slots=True)
class ModelUse:
    """`name` made the heights of frame `from_frame` and of those after it, until the next one."""

    name: str
    from_frame: int


@dataclass(frozen=True, slots=True)
class RunInfo:
    """`status` is recording, complete, incomplete, recovered or damaged, `reason` why it is not complete. `model` is
    the last of `models`, which recordings of before have not."""

    run_id: str
    status: str
    reason: str
    frames: int
    heights: int
    bytes: int
    started_utc_ns: int
    shape: tuple[int, int, int]
    pixel_size_m: float | None
    model: str
    models: tuple[ModelUse, ...]
    notes: str
    simulated: bool

    @property
    def over(self) -> bool:
        return self.status != "recording"


@dataclass(frozen=True, slots=True)
class FrameInfo:
    sequence: int
    utc_ns: int
    pixel_size_m: float
    flags: tuple[str, ...]
    has_height: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """`findings` say what is wrong, worst first, each with its way out."""

    ok: bool
    findings: tuple[str, ...]
    frames: int
    heights: int


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a key opens and until when."""

    name: str
    scope: str
    expires_utc_ns: int
    expired: bool


@dataclass(frozen=True, slots=True)
class Trend:
    """One channel over time: `utc_s` and `values`, NaN where a reading was invalid."""

    utc_s: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An array with its scale: `values` (S, H, W) uint16 counts, or (H, W) float32 metres. Notebooks show it."""

    values: NDArray[Any]
    sequence: int
    pixel_size_m: float
    png: Callable[[], bytes] = field(repr=False)

    @property
    def size_m(self) -> tuple[float, float]:
        """Height and width of the field."""
        rows, columns = self.values.shape[-2:]
        return rows * self.pixel_size_m, columns * self.pixel_size_m

    def _repr_png_(self) -> bytes:
        return self.png()
