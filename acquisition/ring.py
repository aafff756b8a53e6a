"""What consumers may still be given: recent messages within a byte budget, and who is working on which frame."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from acquisition.wire import Part

log = logging.getLogger(__name__)

Key = tuple[str, int]
MAX_ATTEMPTS = 3
MAX_FAILED_KEPT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """An encoded message and the encoded `run_started` of its run. `serial` orders entries across runs, from 1."""

    serial: int
    key: Key
    about: Part
    parts: Sequence[Part]

    @property
    def nbytes(self) -> int:
        return sum(len(part) for part in self.parts)


class Ring:
    """The newest entries, never more bytes than `budget_bytes` (but always the newest one). For any thread."""

    def __init__(self, budget_bytes: int) -> None:
        self._lock = threading.Lock()
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._by_key: dict[Key, Entry] = {}
        self.nbytes = 0
        self.last_serial = 0

    def add(self, key: Key, about: Part, parts: Sequence[Part]) -> Entry:
        with self._lock:
            self.last_serial += 1
            entry = Entry(self.last_serial, key, about, parts)
            self._entries[entry.serial] = self._by_key[key] = entry
            self.nbytes += entry.nbytes
            while self.nbytes > self._budget_bytes and len(self._entries) > 1:
                _, oldest = self._entries.popitem(last=False)
                self.nbytes -= oldest.nbytes
                if self._by_key[oldest.key] is oldest:
                    del self._by_key[oldest.key]
        return entry

    def find(self, key: Key) -> Entry | None:
        """The newest entry of that frame, if it is still kept."""
        with self._lock:
            return self._by_key.get(key)

    def newest_after(self, serial: int) -> Entry | None:
        """The newest entry if it is newer than `serial`."""
        with self._lock:
            if self.last_serial <= serial or not self._entries:
                return None
            return self._entries[self.last_serial]

    def next_after(self, serial: int) -> Entry | None:
        """The oldest kept entry that is newer than `serial`; a serial above `serial + 1` means a gap."""
        with self._lock:
            if self.last_serial <= serial or not self._entries:
                return None
            oldest = next(iter(self._entries))
            return self._entries[max(oldest, serial + 1)]


@dataclass(frozen=True, slots=True)
class Lease:
    entry: Entry
    deadline_ns: int
    attempts: int


@dataclass(slots=True)
class Backfill:
    """Frames of a finished run that still lack a height. `load` reads from its recording what has left the ring."""

    run_id: str
    about: Part
    waiting: deque[int]
    load: Callable[[int], Sequence[Part]]
    done: set[int] = field(default_factory=set)


@dataclass(slots=True)
class WorkBoard:
    """Hands every frame to one worker at a time: the newest first, then what a dead worker held, then old runs'.

    Pure bookkeeping: no sockets, no clock; `now_ns` is monotonic. `given_up` is replaced, never changed.
    """

    frames: Ring
    skipped: int = 0
    given_up: set[Key] = field(default_factory=set)
    _cursor: int = 0
    _leases: dict[Key, Lease] = field(default_factory=dict)
    _backfills: OrderedDict[str, Backfill] = field(default_factory=OrderedDict)

    def next(self, now_ns: int, lease_ns: int, *, alone: bool = True) -> Entry | None:
        """The frame a free worker should take now, leased until `now_ns + lease_ns`; None when nothing waits. One that
        isn't `alone`, because it has another frame in hand, gets none on which a worker has failed: if that ends it
        again, the other would be lost with it.

        A frame on which `MAX_ATTEMPTS` workers failed is given up, so that it cannot stop all others.
        """
        self._let_go_of_old_failures(now_ns)
        entry = self._newest() or (self._expired(now_ns) if alone else None) or self._from_recording()
        if entry is not None:
            before = self._leases.get(entry.key)
            attempts = before.attempts + 1 if before else 1
            self._leases[entry.key] = Lease(entry, now_ns + lease_ns, attempts)
        return entry

    def finish(self, key: Key) -> None:
        """A result for `key` came in: nobody needs to work on it any more."""
        self._leases.pop(key, None)
        backfill = self._backfills.get(key[0])
        if backfill is not None:
            backfill.done.add(key[1])

    def take_back(self, entry: Entry) -> None:
        """`entry` never reached the worker that it was meant for: it waits on, and nobody has failed on it."""
        lease = self._leases.pop(entry.key, None)
        if lease is None:
            return
        if lease.attempts == 1 and entry.serial == self._cursor:
            self._cursor -= 1
        else:
            self._leases[entry.key] = Lease(entry, 0, lease.attempts - 1)

    def release(self, key: Key) -> None:
        """Whoever held `key` has failed on it or is gone; it may be handed out again at once."""
        lease = self._leases.get(key)
        if lease is not None:
            self._leases[key] = Lease(lease.entry, 0, lease.attempts)

    def add_backfill(self, backfill: Backfill) -> None:
        self._backfills[backfill.run_id] = backfill

    def drop_run(self, run_id: str) -> None:
        """Forget all work of a run."""
        self._backfills.pop(run_id, None)
        self.given_up = {key for key in self.given_up if key[0] != run_id}
        for key in [key for key in self._leases if key[0] == run_id]:
            del self._leases[key]
        newest = self.frames.newest_after(self._cursor)
        if newest is not None and newest.key[0] == run_id:
            self._cursor = newest.serial

    def _newest(self) -> Entry | None:
        entry = self.frames.newest_after(self._cursor)
        if entry is not None:
            self.skipped += entry.serial - self._cursor - 1
            self._cursor = entry.serial
        return entry

    def _let_go_of_old_failures(self, now_ns: int) -> None:
        """Frames that failed wait behind newer ones, and only so many are kept; the others wait in their recording."""
        failed = [key for key, lease in self._leases.items() if lease.deadline_ns <= now_ns]
        for key in failed[:-MAX_FAILED_KEPT]:
            del self._leases[key]
            if key[0] in self._backfills:
                self._backfills[key[0]].waiting.append(key[1])

    def _expired(self, now_ns: int) -> Entry | None:
        for key, lease in list(self._leases.items()):
            if lease.deadline_ns > now_ns:
                continue
            if lease.attempts < MAX_ATTEMPTS:
                return lease.entry
            del self._leases[key]
            self.given_up = {*self.given_up, key}
        return None

    def _from_recording(self) -> Entry | None:
        for backfill in self._backfills.values():
            while backfill.waiting:
                sequence = backfill.waiting.popleft()
                key = (backfill.run_id, sequence)
                if sequence in backfill.done or key in self._leases:
                    continue
                kept = self.frames.find(key)
                try:
                    return Entry(0, key, backfill.about, kept.parts if kept else backfill.load(sequence))
                except Exception:  # a damaged or vanished page: this frame cannot have a height, the others can
                    log.exception("frame %d of %s cannot be read back", sequence, backfill.run_id)
                    self.given_up = {*self.given_up, key}
        return None
