"""Two programs, a source and a sink of frames, and what one transfer between them shows."""

from __future__ import annotations

import importlib.util
import os
import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from acquisition.errors import ComponentFailed
from acquisition.frames import checksum
from service.benchmarks.programs import PATIENCE_S, Program, answer_jobs
from service.benchmarks.stream_peers import WAYS, Images, Job

PICTURES = 4
WARM_UP_SHARE = 0.1
FRAMES_A_SAMPLE = 16


@dataclass(frozen=True, slots=True)
class Transfer:
    """Times are of the clock that both processes share; `resident` are samples of bytes, one each few frames."""

    job: Job
    sent_ns: Sequence[int]
    expected: Sequence[str]
    sequences: Sequence[int]
    received_ns: Sequence[int]
    verified: Sequence[str]
    source_cpu_s: float
    sink_cpu_s: float
    source_resident: Sequence[int]
    sink_resident: Sequence[int]

    @property
    def frames_per_s(self) -> float:
        """Of those that arrived, without the first tenth."""
        times_ns = self.received_ns[int(WARM_UP_SHARE * len(self.received_ns)) :]
        return (len(times_ns) - 1) / ((times_ns[-1] - times_ns[0]) / 1e9) if len(times_ns) > 1 else 0.0

    @property
    def gb_per_s(self) -> float:
        return self.frames_per_s * self.job.frame_bytes / 1e9

    def latency_ms(self, percentile: float) -> float:
        """From the pixels being there, before any checksum, to the frame received and checked."""
        delays_ns = [at - self.sent_ns[sequence] for sequence, at in zip(self.sequences, self.received_ns, strict=True)]
        return float(np.percentile(delays_ns, percentile)) / 1e6

    def cpu_ms(self) -> tuple[float, float]:
        """Of source and sink for one frame that arrived."""
        frames = max(1, len(self.sequences))
        return 1e3 * self.source_cpu_s / frames, 1e3 * self.sink_cpu_s / frames

    @property
    def lost(self) -> int:
        return len(self.sent_ns) - len(set(self.sequences))

    @property
    def wrong(self) -> int:
        """Frames that came twice, out of order, or with other pixels than were sent under that number."""
        backwards = sum(b <= a for a, b in zip(self.sequences, self.sequences[1:], strict=False))
        pairs = zip(self.sequences, self.verified, strict=True)
        return backwards + sum(xxh3 not in ("", self.expected[sequence % PICTURES]) for sequence, xxh3 in pairs)

    @property
    def growth_pct(self) -> float | None:
        """Of the memory of the process that grew more, over the second half; None where a system does not tell."""
        grown = [_growth_pct(resident) for resident in (self.source_resident, self.sink_resident) if resident]
        return max(grown, default=None)


class Pair:
    """Both programs, kept from transfer to transfer."""

    def __init__(self) -> None:
        self._source, self._sink = Program(__name__, "source"), Program(__name__, "sink")

    def transfer(
        self,
        way: str,
        shape: tuple[int, int, int],
        frames: int,
        window: int,
        rate_hz: float = 0.0,
        fresh: bool = False,
    ) -> Transfer:
        """Raises `ComponentFailed` when an end fails or nothing arrives."""
        job = Job(way, shape, frames, window, _free_ports(3), rate_hz, fresh)
        for end in (self._source, self._sink):
            end.tell(asdict(job))
        try:
            sink = self._sink.hear()
        finally:
            source = self._source.hear()
        if not sink["sequences"]:
            raise ComponentFailed(f"none of {frames} frames came by {way}")
        return Transfer(
            job,
            source["sent_ns"],
            source["expected"],
            sink["sequences"],
            sink["received_ns"],
            sink["verified"],
            source["cpu_s"],
            sink["cpu_s"],
            source["resident"],
            sink["resident"],
        )

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (self._source, self._sink):
            end.__exit__(kind, error, trace)


def missing(way: str) -> str:
    """The module that a way needs and that is not installed, else ""."""
    needs = WAYS[way].needs
    return "" if importlib.util.find_spec(needs) else needs


def memcpy_gb_per_s(shape: tuple[int, int, int], rounds: int) -> float:
    """What plain copying inside one process reaches (median)."""
    source = np.ones(shape, np.uint16)
    target = np.zeros_like(source)
    times_s = []
    for _ in range(rounds):
        began = time.perf_counter()
        np.copyto(target, source)
        times_s.append(time.perf_counter() - began)
    return source.nbytes / statistics.median(times_s) / 1e9


def _feed(job: Job) -> Mapping[str, Any]:
    """Send all frames once the sink is there, never more than the window ahead, and wait for the last to arrive."""
    pictures = _pictures(job.shape)
    source = WAYS[job.way].source(job)
    seen: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
    seen.bind(f"tcp://127.0.0.1:{job.ports[-1]}")
    sent_ns, resident = [], []
    try:
        arrived = _hear(seen)
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        for sequence in range(job.frames):
            while sequence - arrived >= job.window:
                arrived = _hear(seen)
            time.sleep(max(0.0, began_s + sequence / job.rate_hz - time.monotonic()) if job.rate_hz else 0.0)
            images = pictures[sequence % PICTURES]
            images = images.copy() if job.fresh else images
            sent_ns.append(time.monotonic_ns())
            source.send(sequence, images)
            if sequence % FRAMES_A_SAMPLE == 0:
                resident.append(_resident_bytes())
        while arrived < job.frames:
            arrived = _hear(seen)
        cpu_s = time.process_time() - began_cpu_s
    finally:
        seen.close(0)
        source.close()
    expected = [checksum(images) for images in pictures]
    return {"sent_ns": sent_ns, "expected": expected, "cpu_s": cpu_s, "resident": [*filter(None, resident)]}


def _drain(job: Job) -> Mapping[str, Any]:
    """Receive until the last frame has come; tell the source when to begin and now and then how far it is."""
    sink = WAYS[job.way].sink(job)
    tell: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    tell.connect(f"tcp://127.0.0.1:{job.ports[-1]}")
    sequences: list[int] = []
    received_ns, verified, resident, told, began_cpu_s = [], [], [], 0, time.process_time()
    try:
        tell.send(b"0")
        while not sequences or sequences[-1] < job.frames - 1:
            arrival = sink.receive(PATIENCE_S)
            if arrival is None:
                break
            received_ns.append(time.monotonic_ns())
            sequences.append(arrival.sequence)
            verified.append(arrival.xxh3)
            if len(sequences) % FRAMES_A_SAMPLE == 0:
                resident.append(_resident_bytes())
            if arrival.sequence + 1 - told >= max(1, job.window // 4) or arrival.sequence == job.frames - 1:
                told = arrival.sequence + 1
                tell.send(str(told).encode())
        cpu_s = time.process_time() - began_cpu_s
    finally:
        tell.close(1000)
        sink.close()
    return {
        "sequences": sequences,
        "received_ns": received_ns,
        "verified": verified,
        "cpu_s": cpu_s,
        "resident": [*filter(None, resident)],
    }


def _hear(seen: zmq.Socket[bytes]) -> int:
    if not seen.poll(round(2000 * PATIENCE_S)):
        raise ComponentFailed(f"the sink has been silent for {2 * PATIENCE_S:g} s")
    return int(seen.recv())


def _pictures(shape: Sequence[int]) -> list[Images]:
    chance = np.random.default_rng(1)
    return [chance.integers(0, 4096, shape, np.uint16) for _ in range(PICTURES)]


def _growth_pct(resident: Sequence[int]) -> float:
    """Least memory of the last quarter against the third's: what is in flight comes and goes, what leaks stays."""
    middle, late = len(resident) // 2, 3 * len(resident) // 4
    return 100.0 * (min(resident[late:]) / min(resident[middle:late] or resident) - 1.0)


def _resident_bytes() -> int:
    """Of this process; 0 where the system does not tell it in a file."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = tuple(one.getsockname()[1] for one in sockets)
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    end = {"source": _feed, "sink": _drain}[sys.argv[1]]
    answer_jobs(lambda tree: end(Job(**tree)))
