"""A node that streams made-up frames as fast as it is asked to, and real workers that can be killed.

As a program it forks a worker for every line it reads, so that imports are paid once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from acquisition.clock import SystemClock
from acquisition.consumer import DataConsumer, Delivery
from acquisition.devices import ScanRequest
from acquisition.endpoints import CurveKeys
from acquisition.frames import Exposure, Frame, Result, ResultHeader
from acquisition.instrument import Instrument, four_quadrant
from acquisition.program import AcquisitionProgram
from acquisition.run import RunPlan
from acquisition.stamping import optics_of
from inference import worker as worker_module
from inference.worker import Worker
from programs import free_ports
from service import wiring
from service.settings import StreamSettings, load_settings

PATIENCE_S = 60.0
SIDE_PX = 16
LONGEST_LEASE_S = 120.0
"""Longer than any test waits: a frame that comes back sooner does so because its worker was found to be dead."""


def images_of(sequence: int, side_px: int = SIDE_PX) -> np.ndarray:
    """(4, side, side) uint16 that tell the frame's number in every pixel of the first segment."""
    images = np.full((4, side_px, side_px), 7, np.uint16)
    images[0] = sequence % 65536
    return images


def height_of(images: np.ndarray) -> np.ndarray:
    """What the workers here make of a frame."""
    return images[0].astype(np.float32) * np.float32(1e-9)


def resident_bytes() -> int:
    """Of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


class Numbered:
    """A source of frames that tell their number. `pace_s` between them; `arming_s` is how long it takes to arm."""

    def __init__(self, pace_s: float = 0.0, side_px: int = SIDE_PX, arming_s: float = 0.0) -> None:
        self.pace_s = pace_s
        self.side_px = side_px
        self.arming_s = arming_s
        self.armed = 0

    async def configure(self, scan: ScanRequest) -> Instrument:
        return four_quadrant()

    async def arm(self) -> None:
        await asyncio.sleep(self.arming_s)
        self.armed += 1

    async def exposures(self, count: int | None) -> AsyncIterator[Exposure]:
        optics, sequence = optics_of(four_quadrant()), 0
        while count is None or sequence < count:
            start = SystemClock().now()
            await asyncio.sleep(self.pace_s)
            yield Exposure(images_of(sequence, self.side_px), start, SystemClock().now(), optics)
            sequence += 1

    async def stop(self) -> None:
        self.armed = 0


class Node:
    """The real acquisition program on ports of its own. Without devices' help: its frames come from `Numbered`."""

    def __init__(
        self,
        runs: Path,
        ring_bytes: int = 2**20,
        keys: CurveKeys | None = None,
        endpoints: StreamSettings | None = None,
    ) -> None:
        ports = ("data_port", "state_port", "control_port")
        stream: dict[str, Any] = dict(zip(ports, free_ports(3), strict=True))
        if endpoints is not None:
            stream = {port: getattr(endpoints, port) for port in ports}
        stream["ring_bytes"] = ring_bytes
        if keys is not None:
            stream |= {"own_key": str(keys.own), "peer_keys": str(keys.peers)}
        self.said: list[str] = []
        self.runs = runs
        self.settings = load_settings(
            None, {"runs_folder": str(runs), "scan": {"width_px": 64, "height_px": 64}, "stream": stream}
        )
        self.endpoints = self.settings.stream.endpoints
        self.program: AcquisitionProgram = wiring.acquisition_program(self.settings, self.said.append)

    async def __aenter__(self) -> Node:
        await self.program.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.program.node.hurry()
        await self.program.__aexit__()

    @property
    def machine(self) -> Any:
        return self.program.node.machine

    @property
    def stream(self) -> Any:
        return self.program.node.stream

    async def start(self, source: Numbered, frames: int | None = None, *, record: bool = True) -> str:
        """The name of the run."""
        scan = ScanRequest(source.side_px, source.side_px)
        plan = RunPlan(source, "numbered", scan, record=record, frames=frames, simulated=True)
        started = await self.machine.start(plan)
        return str(started.run_id)

    async def until(self, condition: Callable[[], object], complaint: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, complaint
            await asyncio.sleep(0.02)

    async def complete(self, run_id: str) -> Path:
        """Once every frame of the run has its height and all is in order."""
        done = f"run {self.runs / run_id} complete"
        await self.until(lambda: any(done in line for line in self.said), f"{run_id} was never complete: {self.said}")
        return self.runs / run_id


class QuickPipeline:
    """In the place of the networks: a height that tells the frame's number, after `seconds`."""

    provider = "CPU"
    model = "quick"

    def __init__(self, seconds: float = 0.0, begun: Callable[[Frame], None] = lambda _: None) -> None:
        self._seconds = seconds
        self._begun = begun

    def reconstruct(self, frame: Frame, instrument: Instrument) -> Result:
        self._begun(frame)
        time.sleep(self._seconds)
        at = SystemClock().now()
        header = ResultHeader(
            run_id=frame.header.run_id,
            source="quick",
            sequence=frame.header.sequence,
            monotonic_ns=at.monotonic_ns,
            utc_ns=at.utc_ns,
            model=self.model,
            model_hashes={},
            provider=self.provider,
            calibration_hash="",
            pixel_size_m=frame.header.optics.pixel_size_m,
            figures={"number": float(frame.images[0, 0, 0])},
            timing_s={},
        )
        return Result(header, {"height": height_of(frame.images)})


class WorkerThread:
    """A real worker in this process."""

    def __init__(self, address: str, seconds: float = 0.0, keys: CurveKeys | None = None) -> None:
        self._stop = threading.Event()
        self.begun: deque[tuple[str, int]] = deque(maxlen=1000)
        pipeline: Any = QuickPipeline(seconds, lambda frame: self.begun.append(frame.header.key))
        self.worker = Worker(pipeline, address, keys, self._stop)
        self.thread = threading.Thread(target=self.worker.run, args=(lambda _: None,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self._stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


class Follower:
    """An archive in this process: every frame in order. `told` counts those that came and those that it was told it
    missed; `keys` are the `keep` latest, as (run, sequence)."""

    def __init__(self, node: Node, keep: int = 20_000) -> None:
        self._closing = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._address = node.endpoints.data
        self.keys: deque[tuple[str, int]] = deque(maxlen=keep)
        self.told = 0
        self.in_order = True
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def last(self) -> tuple[str, int]:
        return self.keys[-1]

    def close(self) -> None:
        self._closing.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self._context.destroy(linger=0)

    def _follow(self) -> None:
        consumer = DataConsumer(self._context, self._address)
        while not self._closing.is_set():
            delivery = consumer.ask("frames", mode="every", timeout_s=0.2)
            if delivery is not None:
                self._take(delivery)
        consumer.close()

    def _take(self, delivery: Delivery) -> None:
        assert isinstance(delivery.message, Frame)
        header, images = delivery.message.header, delivery.message.images
        np.testing.assert_array_equal(images[0], header.sequence % 65536)
        if self.keys:
            self.in_order = self.in_order and self.last < header.key
        self.keys.append(header.key)
        self.told += 1 + delivery.skipped


class WorkerProcess:
    """A real worker to kill; `held` are the sequence numbers of the frames that it began with, as it told them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.held: list[int] = []

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class WorkerHost:
    """Starts workers that take `seconds` for a frame."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        self._host = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._workers: dict[int, WorkerProcess] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, address: str, seconds: float) -> WorkerProcess:
        assert self._host.stdin is not None
        with self._news:
            known = len(self._workers)
            print(address, seconds, file=self._host.stdin, flush=True)
            assert self._news.wait_for(lambda: len(self._workers) > known, PATIENCE_S), "no worker was started"
            return list(self._workers.values())[-1]

    def close(self) -> None:
        for worker in self._workers.values():
            try:
                worker.kill()
            except ProcessLookupError:
                continue
        self._host.kill()
        self._host.communicate()

    def _read(self) -> None:
        assert self._host.stdout is not None
        for line in self._host.stdout:
            pid, _, what = line.rstrip("\n").partition(" ")
            with self._news:
                worker = self._workers.setdefault(int(pid), WorkerProcess(int(pid)))
                if what:
                    worker.held.append(int(what))
                self._news.notify_all()


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    worker_module.LEASE_S = LONGEST_LEASE_S
    for line in iter(sys.stdin.readline, ""):
        address, seconds = line.split()
        pid = os.fork()
        if pid == 0:
            tell = lambda frame: os.write(1, f"{os.getpid()} {frame.header.sequence}\n".encode())  # noqa: E731
            pipeline: Any = QuickPipeline(float(seconds), tell)
            Worker(pipeline, address, None, threading.Event()).run(lambda _: None)
        os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    main()
