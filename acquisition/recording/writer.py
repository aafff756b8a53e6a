"""The recorder: called directly by the run, before anything goes to the network, so no network fault loses raw data."""

from __future__ import annotations

import logging
import math
import os
import shutil
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from acquisition import wire
from acquisition.counters import RecorderTimes
from acquisition.errors import EclipsError, MessageRejected, RecordingFailed
from acquisition.frames import Event, Frame, Result, RunFinished, RunStarted, StateSample, checksum
from acquisition.instrument import Instrument
from acquisition.recording.disk import Reserve
from acquisition.recording.journal import Journal, encode_line
from acquisition.recording.manifest import (
    INSTRUMENT,
    JOURNAL,
    Manifest,
    replace_file,
    sync_folder,
    with_model,
    write_manifest,
)
from acquisition.recording.manifest import SCHEMA as RECORDING_SCHEMA
from acquisition.recording.repair import cut_torn_tails
from acquisition.recording.tiff_series import PLACE, Place, TiffSeries

log = logging.getLogger(__name__)

SYNC_INTERVAL_S = 0.25

Acknowledge = Callable[[int], None]
"""Called with the last sequence number whose page and journal line are durable; from the recorder's own thread."""


class Recorder:
    """Writes one run. Methods may be called from any thread; any `RecordingFailed` must stop the run."""

    def __init__(
        self,
        folder: Path,
        run: RunStarted,
        instrument: Instrument,
        acknowledge: Acknowledge,
        *,
        simulated: bool,
        times: RecorderTimes | None = None,
    ) -> None:
        """Makes `folder`, which must not exist, with instrument file, journal and, last of all, manifest."""
        self.folder = folder
        self.run = run
        self.manifest = Manifest(
            schema=RECORDING_SCHEMA,
            run_id=run.run_id,
            status="recording",
            source=run.source,
            started_utc_ns=run.utc_ns,
            shape=run.shape,
            segment_names=tuple(segment.name for segment in instrument.detector.segments),
            pixel_size_m=run.optics.pixel_size_m,
            expected_frames=run.expected_frames,
            notes=run.notes,
            simulated=simulated,
        )
        self._acknowledge = acknowledge
        self._times = times or RecorderTimes()
        self._lock = threading.RLock()
        self._syncing = threading.Lock()
        self._heights_done: set[int] = set()
        self._sequences = array("q")
        self._acknowledged: int | None = None
        self._digest = xxhash.xxh3_64()
        self._failure: BaseException | None = None
        self._begin(instrument)
        pixel_size_m = run.optics.pixel_size_m
        self._frames = TiffSeries(folder, "frames", pixel_size_m)
        self._truth = TiffSeries(folder, "truth", pixel_size_m, value_unit="metres")
        self._heights = TiffSeries(folder, "heights", pixel_size_m, value_unit="metres")
        self._unsynced = threading.Event()
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_loop, name="recorder-sync", daemon=True)
        self._syncer.start()

    def write_frame(self, frame: Frame, truth_m: NDArray[np.float32] | None = None) -> None:
        """Raises `RecordingFailed` when this frame, or making an earlier one durable, failed."""
        with self._times.write.timed(), self._guard():
            place = self._frames.append(frame.images)
            line = {**wire.to_tree(frame.header), "place": PLACE.dump_python(place, mode="json")}
            if truth_m is not None:
                truth_m = np.ascontiguousarray(truth_m, np.float32)
                line["truth"] = PLACE.dump_python(self._truth.append(truth_m[np.newaxis]), mode="json")
                line["truth_xxh3"] = checksum(truth_m)
            self._log(line)
            self._sequences.append(frame.header.sequence)
            self._digest.update(frame.header.xxh3.encode())

    def write_state(self, sample: StateSample) -> None:
        with self._guard():
            self._log(wire.to_tree(sample))

    def write_event(self, event: Event) -> None:
        with self._guard():
            self._log(wire.to_tree(event))

    def write_result(self, result: Result) -> str:
        """Keep the first result of each frame. Returns "" when kept, else why not; raises `MessageRejected` for a frame
        that was not recorded, or a height of another size."""
        sequence, shape = result.header.sequence, result.height_m.shape
        with self._guard():
            if self._closing.is_set():
                return f"run {self.run.run_id} is closed"
            if sequence in self._heights_done:
                return f"frame {sequence} has its height already"
            if not self._is_recorded(sequence):
                raise MessageRejected(f"frame {sequence} of {self.run.run_id} was not recorded: it can have no height")
            if shape != self.run.shape[1:]:
                raise MessageRejected(f"height {sequence} has shape {shape}, its frame {self.run.shape[1:]}")
            place = self._heights.append(result.height_m[np.newaxis])
            self._log(result_line(result, place))
            self._heights_done.add(sequence)
            model = result.header.model
            models = with_model(self.manifest.models, model, sequence)
            self.manifest = self.manifest.changed(heights=len(self._heights_done), model=model, models=models)
        return ""

    def finish_frames(self, finished: RunFinished) -> None:
        """The last frame is written: make all durable and say so in the manifest. Heights may still come."""
        with self._guard():
            self._log(wire.to_tree(finished))
            self._frames.close()
            self._truth.close()
        with self._disk():
            self._sync()
        self.manifest = self.manifest.changed(
            frames=finished.frames, last_sequence=finished.last_sequence, digest=finished.digest, reason=finished.reason
        )
        write_manifest(self.folder, self.manifest)

    def missing_heights(self) -> list[int]:
        """Recorded frames that have no height yet, in order."""
        with self._lock:
            return [sequence for sequence in self._sequences if sequence not in self._heights_done]

    @property
    def has_all_heights(self) -> bool:
        with self._lock:
            return len(self._heights_done) == len(self._sequences)

    @property
    def digest(self) -> str:
        """xxh3 over the checksums of all frames in order."""
        return self._digest.hexdigest()

    @property
    def frames(self) -> int:
        return len(self._sequences)

    def close(self, status: str, reason: str = "") -> None:
        """Make all durable and set the final status. Harmless when closed.

        What a disk that failed left torn is cut off, and the run is then `incomplete` whatever was asked for; raises
        `RecordingFailed` when that is not what was asked for, or not even the manifest can be written.
        """
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        self._unsynced.set()
        self._syncer.join()
        with suppress(RecordingFailed), self._disk():
            self._sync()
        for part in (self._frames, self._truth, self._heights, self._journal):
            with suppress(RecordingFailed), self._disk():
                part.close()
        self._reserve.give_back()
        asked, failure = status, self._failure
        if failure is not None:
            status, reason = "incomplete", reason or f"it could not be written: {failure}"
            self._cut_torn_tails()
        self.manifest = self.manifest.changed(
            status=status, reason=reason or self.manifest.reason, frames=self.frames, digest=self.digest
        )
        write_manifest(self.folder, self.manifest)
        if status != asked:
            raise RecordingFailed(f"{self.folder} is {status}, not {asked}: {reason}") from failure

    def _is_recorded(self, sequence: int) -> bool:
        place = bisect_left(self._sequences, sequence)
        return place < len(self._sequences) and self._sequences[place] == sequence

    def _begin(self, instrument: Instrument) -> None:
        """The manifest comes last: a folder that has one has all that a run needs."""
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise RecordingFailed(f"{self.folder} cannot be made: {error}") from error
        try:
            self._reserve = Reserve(self.folder)
            replace_file(self.folder / INSTRUMENT, instrument.to_toml().encode())
            self._journal = Journal(self.folder / JOURNAL)
            self._log(wire.to_tree(self.run))
            write_manifest(self.folder, self.manifest)
            sync_folder(self.folder.parent)
        except (OSError, EclipsError) as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise RecordingFailed(f"{self.folder} cannot be made: {error}") from error

    def _log(self, tree: Mapping[str, Any]) -> None:
        with self._lock:
            self._journal.append(encode_line(tree))

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Hold the lock, refuse after a failure, wake the syncer."""
        with self._lock:
            if self._failure is not None:
                raise RecordingFailed(f"{self.folder} could not be written: {self._failure}")
            with self._disk():
                yield
        self._unsynced.set()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn disk errors into `RecordingFailed` for this and every later call."""
        try:
            yield
        except OSError as error:
            self._failure = self._failure or error
            raise RecordingFailed(f"{self.folder} cannot be written: {error}") from error

    def _sync_loop(self) -> None:
        while not self._closing.is_set():
            self._unsynced.wait()
            self._unsynced.clear()
            try:
                with self._disk():
                    self._sync()
            except RecordingFailed:
                return
            self._closing.wait(SYNC_INTERVAL_S)

    def _sync(self) -> None:
        """Make what has been written durable, then acknowledge it. The lock is not held while the disk works.

        A system tells of lost data once and then reports success: after any failure nothing is acknowledged again.
        """
        with self._syncing:
            with self._lock:
                self._refuse_after_failure()
                last = self._sequences[-1] if self._sequences else None
                streams = [series.fileno() for series in (self._frames, self._truth, self._heights)]
                descriptors = [os.dup(d) for d in (*streams, self._journal.fileno()) if d is not None]
            try:
                with self._times.sync.timed():
                    for descriptor in descriptors:
                        (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(descriptor)
            except OSError as error:
                self._failure = self._failure or error
                raise
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            with self._lock:
                self._refuse_after_failure()
            if last is not None and last != self._acknowledged:
                self._acknowledged = last
                self._tell_acknowledged(last)

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise OSError(f"an earlier failure: {self._failure}")

    def _tell_acknowledged(self, last: int) -> None:
        try:
            self._acknowledge(last)
        except Exception:  # whoever listens may fail in any way; the recording goes on
            log.exception("acknowledging frame %d of %s", last, self.folder)

    def _cut_torn_tails(self) -> None:
        try:
            cut_torn_tails(self.folder)
        except (EclipsError, OSError) as error:
            log.warning("the torn end of %s stays until `eclips repair`: %s", self.folder, error)


def result_line(result: Result, place: Place) -> dict[str, Any]:
    """The journal line of a height. Figures that are not finite are left out: JSON has no number for them."""
    tree = wire.to_tree(result.header)
    tree["figures"] = {name: value for name, value in tree["figures"].items() if math.isfinite(value)}
    return {**tree, "height_xxh3": checksum(result.height_m), "place": PLACE.dump_python(place, mode="json")}
