"""A whole recording, reconstructed again: heights replaced as a whole, errors against the truth where it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.frames import Frame, Result
from acquisition.instrument import Instrument
from acquisition.recording import RecordedRun
from acquisition.recording.heights import replace_heights
from inference.accuracy import Accuracy, compare

log = logging.getLogger(__name__)


class Reconstruction(Protocol):
    """Frames to heights: a `Pipeline`, or what is slower and better."""

    @property
    def model(self) -> str: ...

    @property
    def provider(self) -> str: ...

    def reconstruct(self, frame: Frame, instrument: Instrument) -> Result: ...


@dataclass(frozen=True, slots=True)
class Reprocessed:
    """`accuracy` by sequence number, only for frames whose truth was recorded; `figures` are means over frames;
    `estimated` is what the instrument file left open."""

    frames: int
    accuracy: dict[int, Accuracy]
    figures: dict[str, float]
    estimated: tuple[str, ...]
    seconds_per_frame: float


def reprocess(
    path: Path,
    reconstruction: Reconstruction,
    progress: Callable[[int, int], None],
    instrument: Instrument | None = None,
) -> Reprocessed:
    """Reconstruct every frame of the run at `path`; the old heights stay until all new ones are there.

    `progress(done, total)` is called after each frame. Raises `BadInput` when nothing was recorded or a frame is
    damaged.
    """
    recorded = RecordedRun(path)
    if not recorded.frames:
        raise BadInput(f"{path} holds no frames")
    accuracy: dict[int, Accuracy] = {}
    figures: dict[str, list[float]] = {}
    estimated: dict[str, None] = {}
    seconds: list[float] = []

    def results() -> Iterator[Result]:
        for done, frame in enumerate(recorded.frame_iterator(), start=1):
            result = reconstruction.reconstruct(frame, instrument or recorded.instrument)
            truth_m = _truth_m(recorded, frame.header.sequence)
            if truth_m is not None:
                accuracy[frame.header.sequence] = compare(result.height_m, truth_m, frame.header.optics.pixel_size_m)
            for name, value in result.header.figures.items():
                figures.setdefault(name, []).append(value)
            estimated.update(dict.fromkeys(result.header.estimated))
            seconds.append(sum(result.header.timing_s.values()))
            yield result
            progress(done, len(recorded.frames))

    frames = replace_heights(path, results())
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    return Reprocessed(frames, accuracy, means, tuple(estimated), float(np.mean(seconds)))


def _truth_m(recorded: RecordedRun, sequence: int) -> NDArray[np.float32] | None:
    try:
        return recorded.read_truth(sequence)
    except BadInput as error:  # what cannot be compared is reconstructed all the same
        log.warning("%s", error)
        return None
