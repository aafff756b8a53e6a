"""A detector of any microscope that writes TIFFs to a folder, a local one or one of the network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from acquisition.clock import Clock, Instant, SystemClock
from acquisition.devices import Limits, Readings
from acquisition.errors import BadInput, DeviceFailed
from acquisition.instrument import Instrument
from hardware_drivers.passive_detector import Given, PassiveDetector
from hardware_drivers.tiff.image_file import read_image_file
from hardware_drivers.tiff.naming import Naming
from hardware_drivers.tiff.sets import ImageSet, image_set
from hardware_drivers.tiff.watch import FolderWatch, FoundSet

GLANCE_S = 1.0
SIZE_LIMITS = Limits(1, 65_536, "detector.size_limit_px")
CLOCK_TOLERANCE_S = 2.0


def folder_detector(
    folder: Path,
    instrument: Instrument,
    *,
    name: str = "detector",
    pattern: str | None = None,
    existing: Literal["take", "leave"] = "leave",
    sidecar: str | None = None,
    patience_s: float = 30.0,
    settle_s: float = 1.0,
    poll_s: float = 0.5,
    size_limits: Limits = SIZE_LIMITS,
    clock: Clock | None = None,
) -> FolderDetector:
    """Takes sets of images, one per segment of `instrument`, as they become whole in `folder`.

    `pattern`: regular expression with a group `channel`; without one see `naming.Naming`. `existing`: whether files
    that are there when a run is armed are taken, each once as long as the program runs. `sidecar`: suffix of the text
    that the microscope writes beside each image (`.txt` of Hitachi and JEOL) and that is waited for. `patience_s`: how
    long a set may lack a segment. `settle_s`: how long a file must have stayed as it is, which matters where a copy
    reserves its full size first. `poll_s`: how often the folder is looked at. It is polled because a network drive
    does not report what other machines write, and because a file must be looked at twice to be seen to have settled.

    Raises `BadInput` for a pattern or times that cannot be.
    """
    for key, seconds in (("patience_s", patience_s), ("settle_s", settle_s), ("poll_s", poll_s)):
        if not 0.0 <= seconds <= 86_400.0:
            raise BadInput(f"{key} of the watched folder is {seconds:g} s: give 0 to 86400")
    segments = [segment.name for segment in instrument.detector.segments]
    Naming(segments, pattern)

    def new_watch() -> FolderWatch:
        return FolderWatch(folder, Naming(segments, pattern), len(segments), patience_s, settle_s, sidecar)

    return FolderDetector(name, instrument, size_limits, clock or SystemClock(), new_watch, existing, max(poll_s, 0.01))


class FolderDetector(PassiveDetector):
    """Reads `sets_taken`, `sets_refused`, `sets_incomplete`, `files_waiting` of the present or last run.

    A folder that goes away during a run is waited for, and said; only entering and arming raise `DeviceFailed` then.
    """

    def __init__(
        self,
        name: str,
        instrument: Instrument,
        size_limits: Limits,
        clock: Clock,
        new_watch: Callable[[], FolderWatch],
        existing: Literal["take", "leave"],
        poll_s: float,
    ) -> None:
        super().__init__(name, instrument, size_limits, clock)
        self._new_watch = new_watch
        self._watch = new_watch()
        self._existing = existing
        self._poll_s = poll_s
        self._looking = threading.Lock()
        self._glance: asyncio.Task[None] | None = None
        self._away = ""
        self._refused = 0
        self._failing: dict[str, float] = {}

    async def read(self) -> Readings:
        self._require_connection()
        if not self._armed:
            await self._glance_at_folder()
        counts = self._watch.counts
        return {
            "scanning": self._reading(self._scanning),
            "sets_taken": self._reading(counts.found - len(self._watch.found) - self._refused),
            "sets_refused": self._reading(self._refused),
            "sets_incomplete": self._reading(counts.incomplete + counts.late),
            "files_waiting": self._reading(self._watch.waiting, self._away),
        }

    async def _connect(self) -> None:
        await self._glance_at_folder()
        if self._away:
            raise DeviceFailed(f"{self.name}: {self._away}")

    async def _disconnect(self) -> None:
        pass

    async def _begin(self) -> None:
        watch = self._new_watch()
        if self._existing == "take":
            watch.go_on_after(self._watch)
        else:
            try:
                await asyncio.to_thread(watch.leave_present)
            except OSError as error:
                raise DeviceFailed(f"{self.name}: {self._unreachable(error)}") from error
        self._watch, self._refused, self._failing = watch, 0, {}

    def _end(self) -> None:
        self._collect_news()
        if self._watch.found:
            keys = ", ".join(one.key for one in self._watch.found)
            self._tell(f"whole sets that the run ended before: {keys}; they lie in the folder still")

    async def _next(self) -> Given | None:
        while self._armed:
            await asyncio.to_thread(self._look)
            self._collect_news()
            if self._watch.found:
                given = await asyncio.to_thread(self._read, self._watch.found.popleft())
                if given is not None:
                    return given
            if not self._watch.found:
                await self._wait_for_news(self._poll_s)
        return None

    def _look(self) -> None:
        """In a thread; one at a time, as one whose waiter is gone may still hang in a dead network drive."""
        with self._looking:
            watch = self._watch
            if watch.found:
                return
            try:
                watch.look(self._now_s())
            except OSError as error:
                self._set_away(self._unreachable(error))
            else:
                self._set_away("")

    def _read(self, one: FoundSet) -> Given | None:
        """In a thread. None for a set that is refused, which is told, or that has to be looked at again."""
        try:
            found = image_set([read_image_file(path) for path in one.files], self._instrument)
            if not self._watch.unchanged(one):
                self._again(one, "its files changed while they were read")
                return None
            self._check_size(found)
        except BadInput as refused:
            if isinstance(refused.__cause__, OSError):
                self._again(one, str(refused))
                return None
            self._refuse(one, str(refused))
            return None
        except OSError as error:
            self._again(one, self._unreachable(error))
            return None
        self._failing.pop(one.key, None)
        return Given(found.images, found.instrument, self._ended(one), _hardware_time_ns(found))

    def _again(self, one: FoundSet, reason: str) -> None:
        """What cannot be read now may be in a moment: a drive that goes away, a file that is still locked."""
        now_s = self._now_s()
        if now_s - self._failing.setdefault(one.key, now_s) >= self._watch.patience_s:
            self._refuse(one, reason)
        else:
            self._watch.put_back(one)

    def _refuse(self, one: FoundSet, reason: str) -> None:
        self._failing.pop(one.key, None)
        self._refused += 1
        self._tell(f"set {one.key} is left out: {reason}")

    def _check_size(self, found: ImageSet) -> None:
        segments, height, width = found.images.shape
        if segments != len(self._instrument.detector.segments):
            raise BadInput(f"it has {segments} images, not one for each of the instrument's segments")
        if (height, width) != self._size_px:
            raise BadInput(
                f"its images are {width} x {height} px, the run was started for {self._size_px[1]} x "
                f"{self._size_px[0]}: set the microscope so, or start a run of that size"
            )

    def _ended(self, one: FoundSet) -> Instant:
        """The files' own time on this host's clocks; never later than now, whatever the file server's clock says."""
        now = self._clock.now()
        age_s = (now.utc_ns - one.changed_ns) / 1e9
        if age_s < -CLOCK_TOLERANCE_S:
            self._tell(f"the files of set {one.key} are of a time {-age_s:.0f} s ahead: set the file server's clock")
        return now.later(-max(age_s, 0.0))

    def _now_s(self) -> float:
        return self._clock.now().monotonic_ns / 1e9

    def _collect_news(self) -> None:
        while self._watch.news:
            self._tell(self._watch.news.pop(0))

    def _unreachable(self, error: OSError) -> str:
        reason = error.strerror or type(error).__name__
        return f"the folder {self._watch.folder} cannot be reached ({reason}): is the drive connected?"

    def _set_away(self, reason: str) -> None:
        if bool(reason) != bool(self._away) and self._armed:
            self._tell(reason or f"the folder {self._watch.folder} is there again")
        self._away = reason

    async def _glance_at_folder(self) -> None:
        """Without hanging in a dead network drive: one glance at a time, waited for briefly."""
        if self._glance is None or self._glance.done():
            self._glance = asyncio.create_task(asyncio.to_thread(self._list_folder))
        done, _ = await asyncio.wait([self._glance], timeout=GLANCE_S)
        if not done:
            self._set_away(f"the folder {self._watch.folder} does not answer within {GLANCE_S:g} s")

    def _list_folder(self) -> None:
        try:
            next(iter(self._watch.folder.iterdir()), None)
        except OSError as error:
            self._set_away(self._unreachable(error))
        else:
            self._set_away("")


def _hardware_time_ns(found: ImageSet) -> int | None:
    """The microscope's time of day, read as that of this host's zone."""
    try:
        return None if found.taken is None else round(found.taken.timestamp() * 1e9)
    except (OverflowError, OSError, ValueError):
        return None
