"""What `eclips serve` measures of itself, and all that a scrape tells: one registry for each application."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.hub import Hub
from service.node_metrics import node_metrics, node_restarts
from service.process_end import restarts_before

API = "/api/v1"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_BOUNDS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Metrics(Collector):
    """The service's own figures, and at each scrape what the hub has heard of the node.

    `eclips_node_up` is 0 when the node is silent; everything of the node is then left out rather than told stale.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._own = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter(
            "eclips_http_requests", "Requests by route, method and status", ["route", "method", "status"], registry=own
        )
        self.request_seconds = Histogram(
            "eclips_http_request_duration_seconds",
            "From a request to the end of its answer",
            ["route"],
            buckets=REQUEST_BOUNDS_S,
            registry=own,
        )
        self.websocket_clients = Gauge("eclips_websocket_clients", "WebSockets that are open", ["socket"], registry=own)
        self.live_sent = Counter("eclips_live_messages_sent", "Pictures sent to pages", registry=own)
        self.live_skipped = Counter(
            "eclips_live_frames_skipped",
            "Frames that were newer when a page asked again, summed over pages",
            registry=own,
        )
        for socket in ("status", "live"):
            self.websocket_clients.labels(socket)

    def collect(self) -> Iterator[Metric]:
        yield from self._own.collect()
        yield from self._hub_metrics()
        if self._hub.connected:
            yield from node_metrics(self._hub.status)

    def _hub_metrics(self) -> Iterator[Metric]:
        hub = self._hub
        yield GaugeMetricFamily(
            "eclips_node_up", "Whether the acquisition node gave a sign of life lately", hub.connected
        )
        if hub.status_at:
            age_s = time.monotonic() - hub.status_at
            yield GaugeMetricFamily("eclips_node_heartbeat_age_seconds", "Time since the last sign of life", age_s)
        text = "How often a node was heard again after it had been silent"
        yield CounterMetricFamily("eclips_hub_reconnects", text, hub.reconnects)
        text = "Frames that the service jumped over to stay with the newest"
        yield CounterMetricFamily("eclips_hub_frames_skipped", text, hub.skipped)
        rejected = CounterMetricFamily(
            "eclips_hub_messages_rejected", "Messages from the node that failed a check", labels=["socket"]
        )
        for name, messages in hub.rejected.items():
            rejected.add_metric([name], messages)
        yield rejected
        restarts = CounterMetricFamily(
            "eclips_program_restarts",
            "How often its supervisor had started a program again when it began",
            labels=["program", "worker"],
        )
        known = dict(node_restarts(hub.status)) if hub.connected else {}
        for labels, count in {("serve", ""): float(restarts_before()), **known}.items():
            restarts.add_metric(labels, count)
        yield restarts


class RequestMeter:
    """ASGI middleware: counts and times HTTP requests by the template of their route below `API`, never by their
    path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            metrics: Metrics = scope["app"].state.services.metrics
            route = getattr(scope.get("route"), "path", "other").removeprefix(API)
            method = scope["method"] if scope["method"] in METHODS else "other"
            metrics.requests.labels(route, method, str(status)).inc()
            metrics.request_seconds.labels(route).observe(time.perf_counter() - began)
