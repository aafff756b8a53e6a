"""What a report tells of a run: computed from its heights, its state and its results, a sample where there is much."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.accuracy import Accuracy, compare
from inference.metrology.areal import areal
from inference.metrology.height_map import frame_map

KEY_FRAMES = 6
MOST_MEASURED = 40
TRACK = "track.json"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Texture:
    """Areal parameters of the measured frames, each with what it scatters by from frame to frame: the standard
    deviation of neighbours' differences over the square root of two, in which slow change does not count."""

    sequences: list[int]
    values: dict[str, Floats]
    scatter: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Facts:
    recorded: RecordedRun
    keys: list[int]
    texture: Texture
    accuracy: dict[int, Accuracy]
    track: dict[str, Any] | None

    def seconds(self, monotonic_ns: int) -> float:
        """Since the first frame."""
        return 1e-9 * (monotonic_ns - next(iter(self.recorded.frames.values())).header.monotonic_ns)

    def joined(self) -> dict[str, tuple[Floats, Floats]]:
        """Readings joined to frames by name: seconds, and values or NaN."""
        headers = [frame.header for frame in self.recorded.frames.values()]
        names = dict.fromkeys(name for header in headers for name in header.state)
        seconds = np.array([self.seconds(header.monotonic_ns) for header in headers])
        found = {}
        for name in names:
            values = [header.state[name].value if name in header.state else None for header in headers]
            found[name] = (seconds, np.array([np.nan if value is None else value for value in values], np.float64))
        return found

    def sampled(self) -> dict[str, tuple[Floats, Floats]]:
        """Readings as they came, where they were recorded, else as they were joined."""
        found: dict[str, tuple[list[float], list[float]]] = {}
        for sample in self.recorded.states:
            seconds, values = found.setdefault(sample.channel, ([], []))
            seconds.append(self.seconds(sample.monotonic_ns))
            values.append(np.nan if sample.value is None else sample.value)
        arrays = {name: (np.array(seconds), np.array(values)) for name, (seconds, values) in found.items()}
        return self.joined() | arrays

    def figures(self) -> dict[str, tuple[Floats, Floats]]:
        """Figures of the heights by name: sequence numbers, and values or NaN."""
        heights = dict(sorted(self.recorded.heights.items()))
        names = dict.fromkeys(name for height in heights.values() for name in height.header.figures)
        numbers = np.array(list(heights), np.float64)
        return {
            name: (numbers, np.array([one.header.figures.get(name, np.nan) for one in heights.values()], np.float64))
            for name in names
        }


def gather(run: Path, report: Callable[[int, int], None]) -> Facts:
    """Raises `BadInput` for a run without heights."""
    recorded = RecordedRun(run)
    if not recorded.heights:
        raise BadInput(f"{run.name} has no heights to report on; make them with `eclips reprocess`")
    numbers = sorted(recorded.heights)
    keys = sorted({numbers[round(place)] for place in np.linspace(0, len(numbers) - 1, KEY_FRAMES)})
    texture = _texture(recorded, _measured(numbers), report)
    accuracy = {}
    for number in keys:
        truth_m = recorded.read_truth(number)
        if truth_m is not None:
            height_m = recorded.read_height(number)
            accuracy[number] = compare(height_m, truth_m, recorded.frames[number].header.optics.pixel_size_m)
    return Facts(recorded, keys, texture, accuracy, _track(run))


def _measured(numbers: list[int]) -> list[int]:
    """All, or pairs of neighbours evenly over the run, so that the scatter can be told."""
    if len(numbers) <= MOST_MEASURED:
        return numbers
    firsts = np.linspace(0, len(numbers) - 2, MOST_MEASURED // 2).round().astype(int)
    return [numbers[index] for index in sorted({int(i) for first in firsts for i in (first, first + 1)})]


def _texture(recorded: RecordedRun, sequences: list[int], report: Callable[[int, int], None]) -> Texture:
    rows: list[dict[str, float | None]] = []
    for done, sequence in enumerate(sequences, start=1):
        try:
            rows.append(asdict(areal(frame_map(recorded, sequence).map.level())))
        except BadInput:  # a flat map has no texture
            rows.append({})
        report(done, len(sequences))
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {
        name: np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64) for name in names
    }
    neighbours = np.flatnonzero(np.diff(sequences) == 1)
    scatter: dict[str, float | None] = {}
    for name, series in values.items():
        steps = np.diff(series)[neighbours]
        steps = steps[np.isfinite(steps)]
        scatter[name] = float(np.sqrt(np.mean(steps**2) / 2.0)) if len(steps) >= 2 else None
    return Texture(sequences, values, scatter)


def _track(run: Path) -> dict[str, Any] | None:
    """What tracking the run left beside it."""
    try:
        tree = json.loads((run / TRACK).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"unreadable": str(error)}
    return tree if isinstance(tree, dict) else {"content": tree}
