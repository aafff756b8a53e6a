"""A node that streams made-up frames as fast as it is asked to, with a worker and an archive for it."""

from __future__ import annotations

import asyncio
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
from acquisition.run_plan import RunPlan
from acquisition.stamping import optics_of
from inference.worker import Worker
from programs import free_ports
from service import wiring
from service.settings import StreamSettings, load_settings

PATIENCE_S = 60.0
SIDE_PX = 16


def images_of(sequence: int, side_px: int = SIDE_PX) -> np.ndarray:
    """(4, side, side) uint16 that tell the frame's number in every pixel of the first segment."""
    images = np.full((4, side_px, side_px), 7, np.uint16)
    images[0] = sequence % 65536
    return images


def height_of(images: np.ndarray) -> np.ndarray:
    """What the workers here make of a frame."""
    height_m: np.ndarray = images[0].astype(np.float32) * np.float32(1e-9)
    return height_m


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
        self.program.node.recordings.hurry()
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

    def __init__(self, seconds: float = 0.0, begun: Callable[[Frame], object] = lambda _: None) -> None:
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
    missed; `keys` are the `keep` latest, as (run, sequence). `address` leads to the node by a detour."""

    def __init__(self, node: Node, keep: int = 20_000, address: str = "") -> None:
        self._closing = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._address = address or node.endpoints.data
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
