"""Ways to keep frames on a disk: the recorder as a run calls it, a plain file, plain tifffile; a recorder to kill."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import tifffile

from acquisition.clock import SystemClock
from acquisition.frames import Exposure, Frame, JoinedValue, RunFinished
from acquisition.instrument import four_quadrant
from acquisition.recording import Recorder, writer
from acquisition.stamping import optics_of, stamp, start_run
from service.benchmarks.programs import answer_jobs, say_line
from service.benchmarks.stream_peers import QUANTITIES

PICTURES = 4


@dataclass(frozen=True, slots=True)
class Written:
    """`total_s` ends when the disk has everything, `writes_s` are the single calls."""

    nbytes: int
    total_s: float
    cpu_s: float
    writes_s: Sequence[float]

    @property
    def frames_per_s(self) -> float:
        return len(self.writes_s) / self.total_s

    @property
    def mb_per_s(self) -> float:
        return self.nbytes / self.total_s / 1e6

    @property
    def cpu_ms(self) -> float:
        return 1e3 * self.cpu_s / len(self.writes_s)

    def write_ms(self, percentile: float) -> float:
        return 1e3 * float(np.percentile(self.writes_s, percentile))


class Keeper(Protocol):
    def write(self, frame: Frame) -> None: ...

    def end(self) -> None:
        """Return when the disk has everything."""


class _Ours:
    def __init__(self, folder: Path, frame: Frame) -> None:
        self._recorder = new_recorder(folder / "run", frame, lambda sequence: None)

    def write(self, frame: Frame) -> None:
        self._recorder.write_frame(frame)

    def end(self) -> None:
        frames, digest = self._recorder.frames, self._recorder.digest
        self._recorder.finish_frames(RunFinished("bench", "bench", 0, 0, 0, frames, frames - 1, "bench", digest))
        self._recorder.close("recording")


class _RawFile:
    """The bytes alone into one file, made durable as often as the recorder does it."""

    def __init__(self, folder: Path, frame: Frame) -> None:
        self._file = (folder / "raw").open("wb", buffering=0)
        self._ending = threading.Event()
        self._syncer = threading.Thread(target=self._sync_loop, daemon=True)
        self._syncer.start()

    def write(self, frame: Frame) -> None:
        rest = frame.images.reshape(-1).view(np.uint8).data
        while rest:
            rest = rest[self._file.write(rest) :]

    def end(self) -> None:
        self._ending.set()
        self._syncer.join()
        os.fsync(self._file.fileno())
        self._file.close()

    def _sync_loop(self) -> None:
        while not self._ending.wait(writer.SYNC_INTERVAL_S):
            (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self._file.fileno())


class _Tifffile:
    """A page for each segment, nothing said about when it is on the disk; one fsync at the end, for the comparison."""

    def __init__(self, folder: Path, frame: Frame) -> None:
        self._writer = tifffile.TiffWriter(folder / "plain.tif")

    def write(self, frame: Frame) -> None:
        for image in frame.images:
            self._writer.write(image, photometric="minisblack", metadata=None, contiguous=False)

    def end(self) -> None:
        self._writer.filehandle.flush()
        os.fsync(self._writer.filehandle.fileno())
        self._writer.close()


class _FlushedTifffile(_Tifffile):
    def write(self, frame: Frame) -> None:
        super().write(frame)
        self._writer.filehandle.flush()


OURS, RAW = "eclips recorder", "raw file"
KEEPERS: Mapping[str, tuple[Callable[[Path, Frame], Keeper], str]] = {
    OURS: (_Ours, f"acknowledged when synced, each {writer.SYNC_INTERVAL_S:g} s"),
    RAW: (_RawFile, f"synced each {writer.SYNC_INTERVAL_S:g} s"),
    "tifffile": (_Tifffile, "synced at the end"),
    "tifffile, flushed": (_FlushedTifffile, "flushed a frame, synced at the end"),
}
"""Each with what it promises about the disk."""


def write_all(name: str, folder: Path, frames: Sequence[Frame]) -> Written:
    """Write `frames` into new files in `folder`."""
    keeper = KEEPERS[name][0](folder, frames[0])
    writes_s = []
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for frame in frames:
        at_s = time.perf_counter()
        keeper.write(frame)
        writes_s.append(time.perf_counter() - at_s)
    keeper.end()
    total_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Written(sum(frame.images.nbytes for frame in frames), total_s, cpu_s, writes_s)


def stamped(shape: tuple[int, int, int], count: int) -> list[Frame]:
    """Frames of a few pictures in turn, as a run hands them to its recorder."""
    clock, instrument = SystemClock(), four_quadrant()
    run = start_run(clock.now(), "bench", "bench", instrument, shape[1:], None, "")
    chance, state = np.random.default_rng(1), {name: JoinedValue(1.0, True, 0.1) for name in QUANTITIES}
    pictures = [chance.integers(0, 4096, shape, np.uint16) for _ in range(PICTURES)]
    now = clock.now()
    first = [stamp(run, 0, Exposure(images, now, now, optics_of(instrument)), state) for images in pictures]
    return [
        Frame(replace(first[sequence % PICTURES].header, sequence=sequence), first[sequence % PICTURES].images)
        for sequence in range(count)
    ]


def new_recorder(folder: Path, frame: Frame, acknowledge: Callable[[int], None]) -> Recorder:
    instrument = four_quadrant()
    _, height, width = frame.images.shape
    run = start_run(SystemClock().now(), "bench", "bench", instrument, (height, width), None, "")
    return Recorder(folder, replace(run, run_id=frame.header.run_id), instrument, acknowledge, simulated=True)


def _record_until_killed(job: Mapping[str, Any]) -> NoReturn:
    """Tell every number that is acknowledged, as a line."""
    frames = stamped(tuple(job["shape"]), PICTURES)
    recorder = new_recorder(Path(job["folder"]), frames[0], say_line)
    sequence = 0
    while True:
        frame = frames[sequence % PICTURES]
        recorder.write_frame(Frame(replace(frame.header, sequence=sequence), frame.images))
        sequence += 1


if __name__ == "__main__":
    answer_jobs(_record_until_killed)
