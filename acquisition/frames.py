"""What travels and is kept: an exposure as a detector gives it, a frame as a run stamps it, a result as a worker
returns it. All immutable; arrays are C-contiguous and never written to after they are handed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from acquisition.clock import Instant

FLAGS = frozenset({"saturated", "partial", "replayed", "simulated"})


@dataclass(frozen=True, slots=True)
class Optics:
    """What may change from frame to frame; a change of any starts a new segment of the run."""

    pixel_size_m: float
    working_distance_m: float
    landing_energy_ev: float
    dwell_time_s: float
    scan_rotation_deg: float
    calibration_hash: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """One scan as the detector delivers it. `images`: (S, H, W) uint16; `truth_m`: (H, W) float32 if simulated."""

    images: NDArray[np.uint16]
    start: Instant
    end: Instant
    optics: Optics
    hardware_time_ns: int | None = None
    flags: frozenset[str] = frozenset()
    truth_m: NDArray[np.float32] | None = None
    recorded: FrameHeader | None = None
    """Set by replay alone: the header this exposure was recorded with, whose times and state it keeps."""


@dataclass(frozen=True, slots=True)
class JoinedValue:
    """A state quantity at the middle of an exposure; an invalid one has no value. `age_s`: distance to the nearest
    real sample."""

    value: float | None
    valid: bool
    age_s: float


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Everything about a frame but its pixels. `sequence` counts from 0 within `run_id`; times in ns."""

    run_id: str
    source: str
    sequence: int
    monotonic_ns: int
    utc_ns: int
    exposure_start_ns: int
    exposure_end_ns: int
    hardware_time_ns: int | None
    shape: tuple[int, int, int]
    dtype: str
    xxh3: str
    optics: Optics
    state: Mapping[str, JoinedValue] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, int]:
        """Identity of the frame across the whole system."""
        return self.run_id, self.sequence


@dataclass(frozen=True, slots=True)
class Frame:
    """`images`: (S, H, W) uint16, one image per detector segment in channel order."""

    header: FrameHeader
    images: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class ResultHeader:
    """Everything about a reconstructed frame but its layers; `sequence` is the frame's.

    `figures` are the per-frame numbers (consistency residual, sigma, ...), `timing_s` the seconds of each stage,
    `model` the name of the model set, `model_hashes` the SHA-256 of each graph used, `provider` what really ran them,
    `estimated` what the instrument file left open and was found from the frame instead, in words for people.
    """

    run_id: str
    source: str
    sequence: int
    monotonic_ns: int
    utc_ns: int
    model: str
    model_hashes: Mapping[str, str]
    provider: str
    calibration_hash: str
    pixel_size_m: float
    figures: Mapping[str, float]
    timing_s: Mapping[str, float]
    estimated: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        return self.run_id, self.sequence


@dataclass(frozen=True, slots=True)
class Result:
    """A reconstructed frame. `layers["height"]`: (H, W) float32 metres, always there and first; others on request."""

    header: ResultHeader
    layers: Mapping[str, NDArray[Any]]

    @property
    def height_m(self) -> NDArray[np.float32]:
        """(H, W) float32, metres."""
        return self.layers["height"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """What a consumer must know before the first frame. `instrument` is the instrument file as a tree; `fuse_frames`
    says how many frames heights may be made of together, below 2 each of its own."""

    run_id: str
    source: str
    sequence: int
    monotonic_ns: int
    utc_ns: int
    shape: tuple[int, int, int]
    dtype: str
    optics: Optics
    instrument: Mapping[str, Any]
    expected_frames: int | None
    notes: str
    fuse_frames: int = 0


@dataclass(frozen=True, slots=True)
class RunFinished:
    """`frames` were sent, the last with `last_sequence` (-1 for none); `digest` is the xxh3 over their checksums."""

    run_id: str
    source: str
    sequence: int
    monotonic_ns: int
    utc_ns: int
    frames: int
    last_sequence: int
    reason: str
    digest: str


@dataclass(frozen=True, slots=True)
class StateSample:
    """One device reading as it came; `channel` is `device.quantity`. An invalid one has a reason and no value."""

    run_id: str
    source: str
    sequence: int
    monotonic_ns: int
    utc_ns: int
    channel: str
    value: float | None
    valid: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """A transition, fault, trip or drop. `severity` is info, warning or alarm."""

    run_id: str
    source: str
    sequence: int
    monotonic_ns: int
    utc_ns: int
    name: str
    severity: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sign of life of an acquisition node, with its whole status as a tree for pages and programs."""

    run_id: str
    source: str
    sequence: int
    monotonic_ns: int
    utc_ns: int
    status: Mapping[str, Any]


Message = Frame | Result | RunStarted | RunFinished | StateSample | Event | Heartbeat


def checksum(array: NDArray[Any]) -> str:
    """64-bit xxh3 of a C-contiguous array's bytes, as 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(array.data)
