"""Ways to bring frames from one process to another: ours as users run it, and the peers."""

from __future__ import annotations

import math
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import zmq
from numpy.typing import NDArray

from acquisition.clock import SystemClock
from acquisition.consumer import DataConsumer
from acquisition.endpoints import Endpoints
from acquisition.errors import ComponentFailed
from acquisition.frames import Exposure, Frame, JoinedValue, checksum
from acquisition.instrument import four_quadrant
from acquisition.stamping import optics_of, stamp, start_run
from acquisition.stream import StreamServer

Images = NDArray[np.uint16]
CONNECTED_WITHIN_S = 20.0
QUANTITIES = ("stage.x", "stage.y", "heater.current", "pyrometer.temperature", "gas.hydrogen", "gauge.pressure")
PV = "frames"


@dataclass(frozen=True, slots=True)
class Job:
    """What both ends are told. `rate_hz` 0 is full speed, the source at most `window` frames ahead of the sink;
    `fresh` frames lie in new memory each, as a detector's do, others are sent again and again."""

    way: str
    shape: Sequence[int]
    frames: int
    window: int
    ports: Sequence[int]
    rate_hz: float = 0.0
    fresh: bool = False

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(np.uint16).itemsize


class Arrival(NamedTuple):
    """`xxh3` as the sink verified it, empty where nobody computes one."""

    sequence: int
    xxh3: str
    images: Images


class Source(Protocol):
    def send(self, sequence: int, images: Images) -> None: ...

    def close(self) -> None: ...


class Sink(Protocol):
    def receive(self, timeout_s: float) -> Arrival | None: ...

    def close(self) -> None: ...


class _OurSource:
    """Stamp, which makes the checksum, and publish: what a run does with an exposure, less the recorder."""

    def __init__(self, job: Job) -> None:
        self._clock = SystemClock()
        instrument = four_quadrant()
        _, height, width = job.shape
        self._run = start_run(self._clock.now(), "bench", "bench", instrument, (height, width), job.frames, "")
        self._optics = optics_of(instrument)
        self._state = {name: JoinedValue(1.0, True, 0.1) for name in QUANTITIES}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        endpoints = Endpoints(_loopback(job.ports[0]), _loopback(job.ports[1]), "")
        self._server = StreamServer(self._context, endpoints, lambda result: "", 2 * job.window * job.frame_bytes)

    def send(self, sequence: int, images: Images) -> None:
        now = self._clock.now()
        frame = stamp(self._run, sequence, Exposure(images, now, now, self._optics), self._state)
        self._server.publish_frame(frame, self._run)

    def close(self) -> None:
        self._server.close()
        self._context.destroy(0)


class _OurSink:
    """Every arrival has been checked against the schema and the checksum in its header."""

    def __init__(self, job: Job) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._consumer = DataConsumer(self._context, _loopback(job.ports[0]))
        self._mode = "latest" if job.way == "ours, latest" else "every"

    def receive(self, timeout_s: float) -> Arrival | None:
        delivery = self._consumer.ask("frames", mode=self._mode, timeout_s=timeout_s)
        if delivery is None or not isinstance(delivery.message, Frame):
            return None
        header = delivery.message.header
        return Arrival(header.sequence, header.xxh3, delivery.message.images)

    def close(self) -> None:
        self._consumer.close()
        self._context.destroy(0)


class _RawSource:
    """Pushed without a copy; the high-water mark alone holds it back."""

    def __init__(self, job: Job) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, job.window)
        self._socket.bind(_loopback(job.ports[0]))

    def send(self, sequence: int, images: Images) -> None:
        self._socket.send(struct.pack("<Q", sequence), zmq.SNDMORE)
        self._socket.send(images.reshape(-1).view(np.uint8).data, copy=False)

    def close(self) -> None:
        self._socket.close(1000)


class _RawSink:
    def __init__(self, job: Job) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, job.window)
        self._socket.connect(_loopback(job.ports[0]))
        self._shape = job.shape

    def receive(self, timeout_s: float) -> Arrival | None:
        if not self._socket.poll(round(timeout_s * 1000)):
            return None
        head, payload = self._socket.recv_multipart(copy=False)
        images = np.frombuffer(payload.buffer, np.uint16).reshape(self._shape)
        return Arrival(struct.unpack("<Q", head.buffer)[0], "", images)

    def close(self) -> None:
        self._socket.close(0)


class _CheckedSource(_RawSource):
    """The same with our checksum, so that what is left between it and ours is protocol."""

    def send(self, sequence: int, images: Images) -> None:
        checksum(images)
        super().send(sequence, images)


class _CheckedSink(_RawSink):
    def receive(self, timeout_s: float) -> Arrival | None:
        arrival = super().receive(timeout_s)
        return None if arrival is None else Arrival(arrival.sequence, checksum(arrival.images), arrival.images)


class _P4pSource:
    """An NTNDArray posted to a SharedPV, the sequence in `uniqueId`."""

    def __init__(self, job: Job) -> None:
        os.environ.setdefault("PVXS_LOG", "*=CRIT")
        from p4p.nt import NTNDArray
        from p4p.server import Server
        from p4p.server.thread import SharedPV

        connected = threading.Event()

        class Handler:
            def onFirstConnect(self, pv: Any) -> None:
                connected.set()

        self._type = NTNDArray()
        self._pv = SharedPV(handler=Handler(), initial=self._wrap(-1, np.zeros(job.shape, np.uint16)))
        conf = {
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_SERVER_PORT": str(job.ports[0]),
            "EPICS_PVAS_BROADCAST_PORT": str(job.ports[1]),
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        }
        self._server = Server(providers=[{PV: self._pv}], conf=conf, useenv=False)
        if not connected.wait(CONNECTED_WITHIN_S):
            raise ComponentFailed(f"no p4p client has connected within {CONNECTED_WITHIN_S:g} s")

    def send(self, sequence: int, images: Images) -> None:
        self._pv.post(self._wrap(sequence, images))

    def close(self) -> None:
        self._server.stop()

    def _wrap(self, sequence: int, images: Images) -> Any:
        value = self._type.wrap(images, attrib={"ColorMode": 0}, timestamp=time.time())
        value["uniqueId"] = sequence
        return value


class _P4pSink:
    def __init__(self, job: Job) -> None:
        os.environ.setdefault("PVXS_LOG", "*=CRIT")  # else it tells of each connection that ends
        from p4p.client.thread import Context

        conf = {
            "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{job.ports[0]}",
            "EPICS_PVA_ADDR_LIST": "127.0.0.1",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": str(job.ports[1]),
        }
        _wait_for_port(job.ports[0])
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._context = Context("pva", conf=conf, useenv=False)
        queued = f"field()record[queueSize={job.window}]"
        self._monitor = self._context.monitor(PV, self._arrived.put, request=queued)

    def receive(self, timeout_s: float) -> Arrival | None:
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                value = self._arrived.get(timeout=left_s)
            except queue.Empty:
                return None
            if isinstance(value, np.ndarray) and (sequence := int(value.raw["uniqueId"])) >= 0:  # type: ignore[attr-defined]
                return Arrival(sequence, "", value)
        return None

    def close(self) -> None:
        self._monitor.close()
        self._context.close()


class _ImageZmqSource:
    """Each image is sent when the one before has been answered."""

    def __init__(self, job: Job) -> None:
        from imagezmq import ImageSender

        self._sender = ImageSender(connect_to=_loopback(job.ports[0]), REQ_REP=True)

    def send(self, sequence: int, images: Images) -> None:
        self._sender.send_image(str(sequence), images)

    def close(self) -> None:
        self._sender.close()


class _ImageZmqSink:
    def __init__(self, job: Job) -> None:
        from imagezmq import ImageHub

        self._hub = ImageHub(open_port=_loopback(job.ports[0]), REQ_REP=True)

    def receive(self, timeout_s: float) -> Arrival | None:
        if not self._hub.zmq_socket.poll(round(timeout_s * 1000)):
            return None
        name, images = self._hub.recv_image()
        self._hub.send_reply()
        return Arrival(int(name), "", images)

    def close(self) -> None:
        self._hub.close()


@dataclass(frozen=True, slots=True)
class Way:
    """How frames travel, in words what is done with each besides, and the module that is needed."""

    source: Callable[[Job], Source]
    sink: Callable[[Job], Sink]
    checks: str
    needs: str = "zmq"


OURS, LATEST, RAW, CHECKED = "ours, every", "ours, latest", "raw pyzmq", "raw pyzmq + xxh3"
P4P, IMAGEZMQ = "p4p NTNDArray", "imagezmq"
WAYS: Mapping[str, Way] = {
    OURS: Way(_OurSource, _OurSink, "xxh3 at both ends, schema"),
    LATEST: Way(_OurSource, _OurSink, "xxh3 at both ends, schema"),
    RAW: Way(_RawSource, _RawSink, "none"),
    CHECKED: Way(_CheckedSource, _CheckedSink, "xxh3 at both ends"),
    P4P: Way(_P4pSource, _P4pSink, "type; copies", "p4p"),
    IMAGEZMQ: Way(_ImageZmqSource, _ImageZmqSink, "none; a reply each", "imagezmq"),
}


def _wait_for_port(port: int) -> None:
    """A p4p client that comes too early tries again seconds later only."""
    deadline = time.monotonic() + CONNECTED_WITHIN_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


def _loopback(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"
