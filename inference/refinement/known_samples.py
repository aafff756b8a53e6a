"""Samples whose shape is known up to where they lie: the scale of a calibration."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput

Floats = NDArray[np.float64]
Shape = Callable[[Floats, Floats, float], Floats]
"""Heights in metres at x, y (metres from the sample's own middle, along its own axes) for its size in metres."""

UNITS = {"deg": 1.0, "rad": 180.0 / math.pi, "m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "nm": 1e-9, "": 1.0}
NUMBER = re.compile(r"\s*([-+0-9.eE]+?)\s*(deg|rad|mm|um|µm|nm|m|)\s*")
LEVEL_SIGMA_DEG = 3.0
STATED_TILT_SIGMA_DEG = 0.1


@dataclass(frozen=True, slots=True)
class Pose:
    """One number of where the sample lies: its start, what is known of it (`sigma`), and a step to feel its effect."""

    name: str
    start: float
    sigma: float
    step: float


@dataclass(frozen=True, slots=True)
class Sample:
    """`told` as the user gave it. `turns_deg`: azimuths after which the shape repeats; 0 for one that never turns.
    `sizes_m`: candidates for a size that isn't known. `tilt_deg`: the stated tilt, with `tilt_sigma_deg`."""

    told: str
    shape: Shape
    turns_deg: float
    sizes_m: tuple[float, ...] = ()
    moves: bool = True
    tilt_deg: tuple[float, float] = (0.0, 0.0)
    tilt_sigma_deg: float = LEVEL_SIGMA_DEG

    def poses(self, pixel_m: float, start: Mapping[str, float] | None = None) -> tuple[Pose, ...]:
        """Of the sample in a frame: `x_m`, `y_m`, `azimuth_deg`, `size_m` as far as it has them, then its tilts."""
        start = start or {}
        found = []
        if self.moves:
            found += [Pose(name, start.get(name, 0.0), 1e3 * pixel_m, 0.02 * pixel_m) for name in ("x_m", "y_m")]
        if self.turns_deg > 0:
            found.append(Pose("azimuth_deg", start.get("azimuth_deg", 0.0), 90.0, 0.02))
        if self.sizes_m:
            size = start.get("size_m", self.sizes_m[0])
            found.append(Pose("size_m", size, size, 1e-3 * size))
        tilts = zip(("tilt_x_deg", "tilt_y_deg"), self.tilt_deg, strict=True)
        return (*found, *(Pose(name, value, self.tilt_sigma_deg, 0.01) for name, value in tilts))

    def heights_m(self, pose: Mapping[str, float], shape: tuple[int, int], pixel_m: float) -> Floats:
        """(H, W); the frame's middle is the origin, tilts as in the instrument file."""
        rows, columns = shape
        x, y = np.meshgrid((np.arange(columns) - 0.5 * columns) * pixel_m, (np.arange(rows) - 0.5 * rows) * pixel_m)
        from_x, from_y = x - pose.get("x_m", 0.0), y - pose.get("y_m", 0.0)
        turn = math.radians(pose.get("azimuth_deg", 0.0))
        # counter-clockwise as seen, with y down
        along, across = (
            from_x * math.cos(turn) - from_y * math.sin(turn),
            from_x * math.sin(turn) + from_y * math.cos(turn),
        )
        relief = self.shape(along, across, pose.get("size_m", 0.0))
        tilt_x, tilt_y = (math.tan(math.radians(pose.get(name, 0.0))) for name in ("tilt_x_deg", "tilt_y_deg"))
        return np.asarray(relief + tilt_x * x - tilt_y * y, np.float64)


def parse_sample(text: str) -> Sample:
    """`flat:tilt_x=10deg`, `grating:pitch=2um,depth=200nm[,profile=triangle]`, `vickers:hv_angle=136deg[,diagonal=..]`
    or `map:FILE` (an .npz with `height_m` and `pixel_m`). Raises `BadInput` with what is wrong and what is known."""
    kind, _, rest = text.partition(":")
    if kind == "map":
        return _map(text, Path(rest))
    makers = {"flat": _flat, "grating": _grating, "vickers": _vickers}
    if kind not in makers:
        raise BadInput(f"sample {text!r} is unknown: give flat:, grating:, vickers: or map:, such as flat:tilt_x=10deg")
    options = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    made = makers[kind](text, options)
    if options:
        raise BadInput(f"sample {text!r}: {', '.join(options)} is no number of a {kind}")
    return made


def _flat(text: str, options: dict[str, str]) -> Sample:
    tilts = (_number(text, options, "tilt_x", 0.0), _number(text, options, "tilt_y", 0.0))
    sigma = _number(text, options, "sigma", STATED_TILT_SIGMA_DEG)
    return Sample(text, lambda x, y, size: 0.0 * x, 0.0, moves=False, tilt_deg=tilts, tilt_sigma_deg=sigma)


def _grating(text: str, options: dict[str, str]) -> Sample:
    pitch_m, depth_m = _number(text, options, "pitch"), _number(text, options, "depth")
    profile = options.pop("profile", "sine")
    if profile not in ("sine", "triangle"):
        raise BadInput(f"sample {text!r}: profile {profile!r} is unknown; known: sine, triangle")

    def shape(x: Floats, y: Floats, size: float) -> Floats:
        phase = x / pitch_m
        if profile == "sine":
            return 0.5 * depth_m * np.cos(2.0 * np.pi * phase)
        return depth_m * (2.0 * np.abs(phase - np.round(phase)) - 0.5)

    return Sample(text, shape, 180.0)


def _vickers(text: str, options: dict[str, str]) -> Sample:
    """A pyramid: `hv_angle` between opposite faces; the diagonal is found where it isn't given."""
    slope = 1.0 / math.tan(math.radians(0.5 * _number(text, options, "hv_angle", 136.0)))
    diagonal_m = _number(text, options, "diagonal", 0.0)
    sizes = (diagonal_m,) if diagonal_m else tuple(np.geomspace(1e-6, 100e-6, 25))

    def shape(x: Floats, y: Floats, size: float) -> Floats:
        half_side = size / (2.0 * math.sqrt(2.0))
        return -slope * np.maximum(half_side - np.maximum(np.abs(x), np.abs(y)), 0.0)

    return Sample(text, shape, 90.0, sizes)


def _map(text: str, path: Path) -> Sample:
    try:
        with np.load(path) as stored:
            height_m = np.asarray(stored["height_m"], np.float64)
            pixel_y_m, pixel_x_m = np.broadcast_to(np.asarray(stored["pixel_m"], np.float64), (2,))
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"sample {text!r}: {path} must be an .npz with height_m and pixel_m ({error})") from None
    rows, columns = height_m.shape

    def shape(x: Floats, y: Floats, size: float) -> Floats:
        places = [y / pixel_y_m + 0.5 * rows, x / pixel_x_m + 0.5 * columns]
        return np.asarray(map_coordinates(height_m, places, order=3, mode="nearest"), np.float64)

    return Sample(text, shape, 360.0)


def _number(text: str, options: dict[str, str], name: str, default: float | None = None) -> float:
    told = options.pop(name, None)
    if told is None:
        if default is None:
            raise BadInput(f"sample {text!r} needs {name}=")
        return default
    found = NUMBER.fullmatch(told)
    try:
        value = float(found[1]) * UNITS[found[2]] if found else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"sample {text!r}: {name} = {told!r} is no number with a unit such as deg, um or nm")
    return value
