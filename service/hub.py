"""What the service knows of the live stream: the newest frame and result, the status, and the recent past."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import zmq

from acquisition.consumer import DataConsumer, Delivery, StateListener
from acquisition.endpoints import CurveKeys, Endpoints
from acquisition.frames import Event, Heartbeat, StateSample
from service.live_message import Made

TREND_SECONDS = 3600
TREND_INTERVAL_S = 1.0
REMEMBERED_EVENTS = 500
NODE_GONE_AFTER_S = 2.0


@dataclass(slots=True)
class Trend:
    """One channel over time, thinned to about one sample a second, also where the wall clock was stepped back."""

    utc_ns: deque[int]
    values: deque[float | None]

    @classmethod
    def empty(cls) -> Trend:
        length = int(TREND_SECONDS / TREND_INTERVAL_S)
        return cls(deque(maxlen=length), deque(maxlen=length))

    def add(self, utc_ns: int, value: float | None) -> None:
        if not self.utc_ns or abs(utc_ns - self.utc_ns[-1]) >= TREND_INTERVAL_S * 1e9:
            self.utc_ns.append(utc_ns)
            self.values.append(value)


class Hub:
    """Three threads ask the node for frames, results and state; `changed` is set on the event loop for each news."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoints: Endpoints, keys: CurveKeys | None) -> None:
        self._context = context
        self._endpoints = endpoints
        self._keys = keys
        self._closing = threading.Event()
        self._watched = threading.Event()
        self._watchers = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Condition | None = None
        self.frame: Delivery | None = None
        self.result: Delivery | None = None
        self.made = Made()
        self.frame_count = 0
        self.result_count = 0
        self.skipped = 0
        self.rejected = {"frames": 0, "results": 0, "state": 0}
        self.reconnects = 0
        self.status: dict[str, Any] = {}
        self.status_at = 0.0
        self.events: deque[Event] = deque(maxlen=REMEMBERED_EVENTS)
        self.event_count = 0
        self.trends: dict[str, Trend] = {}
        self._threads = [
            threading.Thread(target=self._follow_data, args=("frames", self._take_frame), daemon=True),
            threading.Thread(target=self._follow_data, args=("results", self._take_result), daemon=True),
            threading.Thread(target=self._follow_state, daemon=True),
        ]

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Condition()
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        self._closing.set()
        await self._notify()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 3.0)

    @property
    def connected(self) -> bool:
        """Whether the acquisition node gave a sign of life lately."""
        return time.monotonic() - self.status_at < NODE_GONE_AFTER_S

    async def wait(self, is_new: Callable[[], bool], timeout_s: float) -> bool:
        """Until `is_new` holds, checked at each news; False after `timeout_s`."""
        assert self._news is not None
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: is_new() or self._closing.is_set())
        except TimeoutError:
            return False
        return is_new()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Frames and results are asked for only while somebody looks: they are megabytes, and cores are few."""
        self._watchers += 1
        self._watched.set()
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._watched.clear()

    def _follow_data(self, wants: str, take: Callable[[Delivery], None]) -> None:
        consumer = DataConsumer(self._context, self._endpoints.data, self._keys, {"name": "service"})
        while not self._closing.is_set():
            if not self._watched.wait(0.5):
                continue
            delivery = consumer.ask(wants, timeout_s=0.5)
            self.rejected[wants] = consumer.rejected
            if delivery is not None:
                take(delivery)
                self._tell_loop()
        consumer.close()

    def _take_frame(self, delivery: Delivery) -> None:
        self.frame = delivery
        self.frame_count += 1
        self.skipped += delivery.skipped

    def _take_result(self, delivery: Delivery) -> None:
        self.result = delivery
        self.result_count += 1

    def _follow_state(self) -> None:
        listener = StateListener(self._context, self._endpoints.state, self._keys)
        while not self._closing.is_set():
            message = listener.next(timeout_s=0.5)
            self.rejected["state"] = listener.rejected
            if isinstance(message, Heartbeat):
                self.reconnects += bool(self.status) and not self.connected
                self.status = dict(message.status)
                self.status_at = time.monotonic()
                for name, value in self.status["figures"].items():
                    self.trends.setdefault(f"figures.{name}", Trend.empty()).add(message.utc_ns, value)
                self._tell_loop()
            elif isinstance(message, Event):
                self.events.append(message)
                self.event_count += 1
                self._tell_loop()
            elif isinstance(message, StateSample):
                self.trends.setdefault(message.channel, Trend.empty()).add(message.utc_ns, message.value)
        listener.close()

    def _tell_loop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._notify(), self._loop)

    async def _notify(self) -> None:
        assert self._news is not None
        async with self._news:
            self._news.notify_all()
