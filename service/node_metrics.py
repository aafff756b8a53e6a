"""A node's heartbeat as Prometheus metrics: acquisition, recorder, devices, interlocks and workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    StateSetMetricFamily,
)

from acquisition.recipes.runner import STATES as RECIPE_STATES
from acquisition.run import STATES

Tree = Mapping[str, Any]
Samples = Iterable[tuple[tuple[str, ...], float]]
MAX_LABEL = 80


def node_metrics(status: Tree) -> Iterator[Metric]:
    """Every family of one node. `status` is the tree of `acquisition.status.status_tree`, as it came over the wire."""
    yield from _run_metrics(status)
    yield from _queue_metrics(status)
    yield from _recorder_metrics(status)
    yield from _safety_metrics(status)
    yield from _device_metrics(status)
    yield from _worker_metrics(status)


def node_restarts(status: Tree) -> Iterator[tuple[tuple[str, str], float]]:
    """Program and worker, and how often its supervisor had started it again when it began."""
    yield ("acquire", ""), float(status["counters"]["restarts"])
    for worker in status["workers"]:
        yield ("infer", _label(worker.get("name"))), _number(worker.get("restarts"))


def _run_metrics(status: Tree) -> Iterator[Metric]:
    counters = status["counters"]
    frames, runs, skipped = counters["frames"], counters["runs"], status["drops"]["skipped"]
    states = {state: state == status["state"] for state in STATES}
    yield StateSetMetricFamily("eclips_run_state", "State of the run: 1 for the present one", states)
    yield _counter("eclips_runs_started", "Runs begun, replays included", runs["started"])
    ended = [((name,), runs[name]) for name in ("complete", "incomplete")]
    yield _counter("eclips_runs_ended", "Recorded runs ended, by how: complete has every height", ended, "status")
    yield _counter("eclips_frames_acquired", "Frames taken from the detector or a replay", frames["acquired"])
    yield _counter("eclips_frames_recorded", "Frames handed to the recorder", frames["recorded"])
    yield _counter("eclips_frames_acknowledged", "Frames durable on the disk", frames["acknowledged"])
    yield _counter("eclips_frames_skipped", "Frames that live workers jumped over to stay new", skipped)
    yield _counter("eclips_frames_given_up", "Frames on which several workers failed", frames["given_up"])
    if status["frame_age_s"] is not None:
        yield _gauge("eclips_frame_age_seconds", "Time since the newest frame of the run", status["frame_age_s"])


def _queue_metrics(status: Tree) -> Iterator[Metric]:
    counters = status["counters"]
    queues, ring, sockets = counters["queues"], counters["ring"], counters["sockets"]
    yield _gauge("eclips_heights_waiting", "Recorded frames that have no height yet", queues["waiting"])
    yield _gauge("eclips_frames_leased", "Frames that were handed to workers and not answered", queues["leased"])
    yield _gauge("eclips_ring_bytes", "What recent frames and results hold of memory", ring["bytes"])
    yield _gauge("eclips_ring_budget_bytes", "The most that they may hold", ring["budget_bytes"])
    stalled = status["drops"].get("stalled", 0)
    yield _gauge("eclips_consumers_stalled", "Consumers that asked but do not read what they are given", stalled)
    rejected = [((name,), one["rejected"]) for name, one in sockets.items()]
    yield _counter("eclips_node_messages_rejected", "Messages to the node that failed a check", rejected, "socket")
    errors = [((name,), one["errors"]) for name, one in sockets.items()]
    yield _counter("eclips_socket_thread_errors", "Errors inside a socket's thread of the node", errors, "socket")
    events = [((one["name"], one["severity"]), one["count"]) for one in counters["events"]]
    yield _counter("eclips_events", "Transitions, alarms, faults and other events", events, "name", "severity")


def _recorder_metrics(status: Tree) -> Iterator[Metric]:
    recorder, bounds_s = status["counters"]["recorder"], status["counters"]["bounds_s"]
    writes, syncs = [((), recorder["write"])], [((), recorder["sync"])]
    yield _histogram("eclips_recorder_write_seconds", "Handing one frame to the system", bounds_s, writes)
    yield _histogram("eclips_recorder_sync_seconds", "Making durable what was handed over", bounds_s, syncs)
    yield _gauge("eclips_disk_free_bytes", "Room on the disk of the runs folder", status["disk"]["free_bytes"])
    limit = status["disk"]["low_space_bytes"]
    yield _gauge("eclips_disk_low_space_bytes", "A run is ended in order once less is free", limit)


def _safety_metrics(status: Tree) -> Iterator[Metric]:
    interlocks, alarms = status["interlocks"], status["alarms"]
    yield _gauge("eclips_interlock_permit", "Whether the laser may be on", interlocks["permit"])
    inputs = [((one["name"],), one["good"]) for one in interlocks["inputs"]]
    yield _gauge("eclips_interlock_input_good", "Whether a condition of the permit holds", inputs, "input")
    active = sum(alarm["active"] for alarm in alarms)
    if status.get("relay"):
        beating, edges = status["relay"]["beating"], status["relay"]["edges"]
        yield _gauge("eclips_relay_beating", "Whether the laser's relay gets its heartbeat", beating)
        yield _counter("eclips_relay_edges", "Edges of the relay's heartbeat", edges)
    if status.get("recipe"):
        states = {state: state == status["recipe"]["state"] for state in RECIPE_STATES}
        yield StateSetMetricFamily("eclips_recipe_state", "State of the recipe: 1 for the present one", states)
        yield _gauge("eclips_recipe_step", "Step of the recipe, from 1", status["recipe"].get("step", 0))
    yield _gauge("eclips_alarms_active", "Alarms whose cause lasts", active)
    yield _gauge("eclips_alarms_standing", "Alarms that are active or not acknowledged", len(alarms))


def _device_metrics(status: Tree) -> Iterator[Metric]:
    devices, counted = status["devices"], status["counters"]["devices"]
    connected = [((name, device["kind"]), device["connected"]) for name, device in devices.items()]
    yield _gauge("eclips_device_connected", "Whether a device answers", connected, "device", "kind")
    reconnects = [((name,), max(0, one["connects"] - 1)) for name, one in counted.items()]
    yield _counter("eclips_device_reconnects", "How often a lost device came back", reconnects, "device")
    readings = [((name,), one["readings"]) for name, one in counted.items()]
    yield _counter("eclips_device_readings", "Values read from a device", readings, "device")
    invalid = [((name,), one["invalid"]) for name, one in counted.items()]
    yield _counter("eclips_device_invalid_readings", "Values that a device called invalid", invalid, "device")
    ages = [
        ((name, quantity), reading["age_s"])
        for name, device in devices.items()
        for quantity, reading in device["readings"].items()
    ]
    yield _gauge("eclips_device_sample_age_seconds", "Age of the newest reading", ages, "device", "quantity")


def _worker_metrics(status: Tree) -> Iterator[Metric]:
    counters = status["counters"]
    stages = [((name,), tree) for name, tree in counters["stages"].items()]
    bounds_s = counters["bounds_s"]
    yield _histogram("eclips_stage_seconds", "One stage of one height, as workers tell it", bounds_s, stages, "stage")
    latency = [((), counters["latency"])]
    yield _histogram("eclips_height_latency_seconds", "From a live frame to its height in the node", bounds_s, latency)
    heights = [((name,), counters["heights"][name]) for name in ("kept", "refused")]
    yield _counter("eclips_heights", "Heights that workers handed back", heights, "outcome")
    workers = {_label(worker.get("name")): worker for worker in status["workers"]}
    yield _gauge("eclips_workers", "Workers that asked for frames lately", len(workers))
    info = [((name, _label(one.get("model")), _label(one.get("provider"))), 1.0) for name, one in workers.items()]
    yield _gauge("eclips_worker_info", "1; model set and provider", info, "worker", "model", "provider")
    for metric, help_text, key in (
        ("eclips_worker_frames", "Frames that a worker reconstructed and handed back", "done"),
        ("eclips_worker_failures", "Frames that a worker could not reconstruct or hand back", "failed"),
        ("eclips_worker_messages_rejected", "Messages to a worker that failed a check", "rejected"),
    ):
        told = [((name,), _number(one.get(key))) for name, one in workers.items()]
        yield _counter(metric, help_text, told, "worker")
    ages = [((name,), _number(one.get("last_seen_s"))) for name, one in workers.items()]
    yield _gauge("eclips_worker_seen_age_seconds", "Time since a worker asked or answered", ages, "worker")


def _gauge(name: str, text: str, samples: Samples | float, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), samples)


def _counter(name: str, text: str, samples: Samples | float, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples | float) -> Metric:
    for values, value in [((), samples)] if isinstance(samples, int | float) else samples:
        family.add_metric(values, value)
    return family


def _histogram(
    name: str, text: str, bounds_s: Iterable[float], samples: Iterable[tuple[tuple[str, ...], Tree]], *labels: str
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    edges = [*map(str, bounds_s), "+Inf"]
    for values, tree in samples:
        family.add_metric(values, list(zip(edges, accumulate(tree["counts"]), strict=True)), tree["sum_s"])
    return family


def _label(value: Any) -> str:
    """Workers say of themselves what they like; a label must be short."""
    return str(value)[:MAX_LABEL]


def _number(value: Any) -> float:
    """Counts come as text; what is no number counts as none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return 0.0
    return found if math.isfinite(found) else 0.0
