"""What a node counts from its start on: plain numbers that travel in its heartbeat, for `eclips serve` to tell."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

BOUNDS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
MAX_STAGES = 16
REMEMBERED_FRAMES = 256


@dataclass(slots=True)
class Histogram:
    """Durations by size, from any thread: `counts[i]` of at most `BOUNDS_S[i]` (and above the bound before), the last
    above them all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, seconds: float) -> None:
        """Values that are no durations are left out: some come from other machines."""
        if math.isfinite(seconds) and seconds >= 0:
            with self._lock:
                self.counts[bisect_left(BOUNDS_S, seconds)] += 1
                self.sum_s += seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add what the block takes, unless it raises."""
        began = time.perf_counter()
        yield
        self.add(time.perf_counter() - began)

    def tree(self) -> dict[str, Any]:
        with self._lock:
            return {"counts": list(self.counts), "sum_s": self.sum_s}


@dataclass(slots=True)
class RecorderTimes:
    """What the disk takes, over all runs: `write` to hand one frame to the system, `sync` to make durable what was
    handed over."""

    write: Histogram = field(default_factory=Histogram)
    sync: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class NodeCounters:
    """Counts only grow; a node that is started again begins at zero. Each has one thread that writes it."""

    frames_acquired: int = 0
    frames_recorded: int = 0
    frames_acknowledged: int = 0
    frames_given_up: int = 0
    heights_kept: int = 0
    heights_refused: int = 0
    runs_started: int = 0
    runs_complete: int = 0
    runs_incomplete: int = 0
    events: dict[tuple[str, str], int] = field(default_factory=dict)
    latency: Histogram = field(default_factory=Histogram)
    stages: dict[str, Histogram] = field(default_factory=dict)
    _given_up: Set[tuple[str, int]] = frozenset()
    _last_acknowledged: tuple[str, int] = ("", -1)
    _published_ns: OrderedDict[tuple[str, int], int] = field(default_factory=OrderedDict)

    def published(self, key: tuple[str, int], monotonic_ns: int, *, recorded: bool) -> None:
        """A frame went to recorder and stream."""
        self.frames_acquired += 1
        self.frames_recorded += recorded
        self._published_ns[key] = monotonic_ns
        while len(self._published_ns) > REMEMBERED_FRAMES:
            self._published_ns.popitem(last=False)

    def acknowledged(self, run_id: str, sequence: int) -> None:
        """Everything of a run up to `sequence` is durable."""
        run, last = self._last_acknowledged
        self.frames_acknowledged += sequence - (last if run == run_id else -1)
        self._last_acknowledged = (run_id, sequence)

    def given_up(self, keys: Set[tuple[str, int]]) -> None:
        """The frames that are given up at present; those of runs that ended are forgotten one day."""
        self.frames_given_up += len(keys - self._given_up)
        self._given_up = keys

    def height(self, key: tuple[str, int], monotonic_ns: int, timing_s: dict[str, float], *, kept: bool) -> None:
        """A worker handed a height back."""
        self.heights_kept += kept
        self.heights_refused += not kept
        published_ns = self._published_ns.pop(key, None)
        if published_ns is not None:
            self.latency.add((monotonic_ns - published_ns) / 1e9)
        for stage, seconds in timing_s.items():
            name = stage if stage in self.stages or len(self.stages) < MAX_STAGES else "other"
            self.stages.setdefault(name, Histogram()).add(seconds)

    def event(self, name: str, severity: str) -> None:
        self.events[name, severity] = self.events.get((name, severity), 0) + 1

    def tree(self) -> dict[str, Any]:
        """For the heartbeat; see `acquisition.status`."""
        return {
            "frames": {
                "acquired": self.frames_acquired,
                "recorded": self.frames_recorded,
                "acknowledged": self.frames_acknowledged,
                "given_up": self.frames_given_up,
            },
            "heights": {"kept": self.heights_kept, "refused": self.heights_refused},
            "runs": {
                "started": self.runs_started,
                "complete": self.runs_complete,
                "incomplete": self.runs_incomplete,
            },
            "events": [
                {"name": name, "severity": severity, "count": count}
                for (name, severity), count in list(self.events.items())
            ],
            "bounds_s": list(BOUNDS_S),
            "latency": self.latency.tree(),
            "stages": {name: histogram.tree() for name, histogram in list(self.stages.items())},
        }
