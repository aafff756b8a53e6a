"""A recorded run read back: what the journal says, pixels by byte offset, checksums on the way."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from acquisition import wire
from acquisition.errors import BadInput, EclipsError
from acquisition.frames import Event, Frame, FrameHeader, ResultHeader, RunFinished, RunStarted, StateSample, checksum
from acquisition.instrument import Instrument, load_instrument
from acquisition.recording.journal import read_lines, walk_journal
from acquisition.recording.line_index import LineIndex
from acquisition.recording.manifest import INSTRUMENT, JOURNAL, Manifest, read_manifest
from acquisition.recording.tiff_series import PLACE, Place, read_pages

T = TypeVar("T")
Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """`truth_xxh3` is empty where no truth was kept, and in recordings that were made before it was written."""

    header: FrameHeader
    place: Place
    truth: Place | None
    truth_xxh3: str


@dataclass(frozen=True, slots=True)
class RecordedHeight:
    header: ResultHeader
    place: Place
    xxh3: str


class RecordedRun:
    """A run on disk, complete or not, even while it is being recorded (`refresh` follows it).

    `frames` and `heights` are by sequence number in order; a later journal line about a height replaces an earlier
    one. What the journal says is read from it when it is asked for: 16 bytes a line stay in memory, so that a run of
    any length opens. Raises `BadInput` where `path` is not a recorded run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path)
        self.instrument: Instrument = _instrument(path)
        self.run: RunStarted | None = None
        self.finished: RunFinished | None = None
        self.frames = LineIndex(lambda begin: self._again([begin], _recorded_frame)[0])
        self.heights = LineIndex(lambda begin: self._again([begin], _recorded_height)[0])
        self._states = array("q")
        self._events = array("q")
        self.damaged_lines = 0
        self.journal_bytes = 0
        self.refresh()

    def refresh(self) -> None:
        """Take in what was recorded since."""
        self.manifest = read_manifest(self.path)
        try:
            for line in walk_journal(self.path / JOURNAL, self.journal_bytes):
                self.journal_bytes = line.end
                self._take(line.begin, line.tree)
        except FileNotFoundError:
            raise BadInput(
                f"{self.path} has no {JOURNAL}: nothing in it can be located; bring it back from a copy, or take its "
                "images into a new run with `eclips import`"
            ) from None
        except OSError as error:
            raise BadInput(f"{self.path / JOURNAL} cannot be read: {error}") from error

    @property
    def states(self) -> list[StateSample]:
        """In the order of the journal."""
        return self._again(self._states, wire.from_tree)

    @property
    def events(self) -> list[Event]:
        """In the order of the journal."""
        return self._again(self._events, wire.from_tree)

    @property
    def sequences(self) -> list[int]:
        """Sequence numbers of the recorded frames, in order."""
        return list(self.frames)

    @property
    def missing_heights(self) -> list[int]:
        return [sequence for sequence in self.frames if sequence not in self.heights]

    def started(self) -> RunStarted:
        """How the run started. Raises `BadInput` when the journal lost it."""
        if self.run is None:
            raise BadInput(f"the journal of {self.path} does not say how the run started; try `eclips repair`")
        return self.run

    def read_frame(self, sequence: int) -> Frame:
        """Raises `BadInput` for a frame that was not recorded or no longer has the bytes that were recorded."""
        recorded = self._frame(sequence)
        header = recorded.header
        images = read_pages(self.path, recorded.place, header.shape, header.dtype)
        if checksum(images) != header.xxh3:
            raise BadInput(f"frame {sequence} of {self.path} is damaged: its checksum does not match the journal")
        return Frame(header, images)

    def read_truth(self, sequence: int) -> NDArray[np.float32] | None:
        """(H, W) float32 metres of a simulated run that kept its truth, else None. Raises `BadInput` when damaged."""
        recorded = self._frame(sequence)
        if recorded.truth is None:
            return None
        truth_m: NDArray[np.float32] = read_pages(self.path, recorded.truth, recorded.header.shape, "float32")[0]
        if recorded.truth_xxh3 and checksum(truth_m) != recorded.truth_xxh3:
            raise BadInput(f"the truth of frame {sequence} of {self.path} is damaged: reconstruct without it")
        return truth_m

    def read_height(self, sequence: int) -> NDArray[np.float32]:
        """(H, W) float32 metres. Raises `BadInput` when there is none or it is damaged."""
        height = self.heights.get(sequence)
        if height is None:
            raise BadInput(f"frame {sequence} of {self.path} has no height yet; make it with `eclips reprocess`")
        array: NDArray[np.float32] = read_pages(self.path, height.place, self._frame(sequence).header.shape, "float32")[
            0
        ]
        if checksum(array) != height.xxh3:
            raise BadInput(f"height {sequence} of {self.path} is damaged; make it again with `eclips reprocess`")
        return array

    def frame_iterator(self, sequences: list[int] | None = None) -> Iterator[Frame]:
        """Frames in the given order, or all."""
        for sequence in self.sequences if sequences is None else sequences:
            yield self.read_frame(sequence)

    def _frame(self, sequence: int) -> RecordedFrame:
        try:
            return self.frames[sequence]
        except KeyError:
            span = f"{self.sequences[0]} to {self.sequences[-1]}" if self.frames else "none"
            raise BadInput(f"frame {sequence} was not recorded in {self.path} (recorded: {span})") from None

    def _take(self, begin: int, tree: Tree | None) -> None:
        try:
            if tree is None:
                raise ValueError("the line is damaged")
            header = wire.from_tree(tree)
            if isinstance(header, FrameHeader):
                self.frames.put(_recorded_frame(tree).header.sequence, begin)
            elif isinstance(header, ResultHeader):
                self.heights.put(_recorded_height(tree).header.sequence, begin)
            elif isinstance(header, RunStarted):
                self.run = header
            elif isinstance(header, RunFinished):
                self.finished = header
            elif isinstance(header, StateSample):
                self._states.append(begin)
            elif isinstance(header, Event):
                self._events.append(begin)
        except (EclipsError, ValueError, OverflowError):
            self.damaged_lines += 1

    def _again(self, begins: Iterable[int], read: Callable[[Tree], T]) -> list[T]:
        """What the lines say that were found there before."""
        try:
            return [read(tree) for tree in read_lines(self.path / JOURNAL, begins)]
        except (EclipsError, OSError, ValueError) as error:
            raise BadInput(
                f"{self.path / JOURNAL} was changed since the run was opened ({error}): open it again"
            ) from error


def _recorded_frame(tree: Tree) -> RecordedFrame:
    header: FrameHeader = wire.from_tree(tree)
    place, truth = PLACE.validate_python(tree.get("place")), tree.get("truth")
    if header.dtype != "uint16" or min(header.shape) < 1 or len(place.offsets) != header.shape[0]:
        raise ValueError(f"frame {header.sequence} cannot lie where the journal says")
    kept_truth = None if truth is None else PLACE.validate_python(truth)
    return RecordedFrame(header, place, kept_truth, str(tree.get("truth_xxh3", "")))


def _recorded_height(tree: Tree) -> RecordedHeight:
    place = PLACE.validate_python(tree.get("place"))
    return RecordedHeight(wire.from_tree(tree), place, str(tree.get("height_xxh3")))


def _instrument(path: Path) -> Instrument:
    try:
        return load_instrument(path / INSTRUMENT)
    except BadInput as error:
        raise BadInput(f"{error}; try `eclips repair`") from None
