"""What a scrape tells: the real status of a node on the simulated lab, and the service's own figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
import yaml
import zmq
from fastapi.testclient import TestClient
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from acquisition.clock import SystemClock
from acquisition.counters import BOUNDS_S, MAX_STAGES, REMEMBERED_FRAMES, Histogram, NodeCounters
from acquisition.devices import ScanRequest
from acquisition.endpoints import Endpoints
from acquisition.node import NodeSettings
from acquisition.program import AcquisitionProgram
from acquisition.wire import MAX_HEADER_BYTES
from programs import free_ports
from service import wiring
from service.app import create_app
from service.hub import Hub
from service.metrics import Metrics
from service.settings import Settings, load_settings

KEY = "the-key"
DOCUMENTED = {
    "eclips_run_state": "gauge",
    "eclips_runs_started": "counter",
    "eclips_runs_ended": "counter",
    "eclips_frames_acquired": "counter",
    "eclips_frames_recorded": "counter",
    "eclips_frames_acknowledged": "counter",
    "eclips_frames_skipped": "counter",
    "eclips_frames_given_up": "counter",
    "eclips_frame_age_seconds": "gauge",
    "eclips_heights_waiting": "gauge",
    "eclips_frames_leased": "gauge",
    "eclips_ring_bytes": "gauge",
    "eclips_ring_budget_bytes": "gauge",
    "eclips_consumers_stalled": "gauge",
    "eclips_node_messages_rejected": "counter",
    "eclips_socket_thread_errors": "counter",
    "eclips_events": "counter",
    "eclips_recorder_write_seconds": "histogram",
    "eclips_recorder_sync_seconds": "histogram",
    "eclips_disk_free_bytes": "gauge",
    "eclips_disk_low_space_bytes": "gauge",
    "eclips_interlock_permit": "gauge",
    "eclips_interlock_input_good": "gauge",
    "eclips_recipe_state": "gauge",
    "eclips_recipe_step": "gauge",
    "eclips_alarms_active": "gauge",
    "eclips_alarms_standing": "gauge",
    "eclips_device_connected": "gauge",
    "eclips_device_reconnects": "counter",
    "eclips_device_readings": "counter",
    "eclips_device_invalid_readings": "counter",
    "eclips_device_sample_age_seconds": "gauge",
    "eclips_stage_seconds": "histogram",
    "eclips_height_latency_seconds": "histogram",
    "eclips_heights": "counter",
    "eclips_workers": "gauge",
    "eclips_worker_info": "gauge",
    "eclips_worker_frames": "counter",
    "eclips_worker_failures": "counter",
    "eclips_worker_messages_rejected": "counter",
    "eclips_worker_seen_age_seconds": "gauge",
}
OF_THE_SERVICE = {
    "eclips_node_up": "gauge",
    "eclips_http_requests": "counter",
    "eclips_http_request_duration_seconds": "histogram",
    "eclips_websocket_clients": "gauge",
    "eclips_live_messages_sent": "counter",
    "eclips_live_frames_skipped": "counter",
    "eclips_hub_reconnects": "counter",
    "eclips_hub_frames_skipped": "counter",
    "eclips_hub_messages_rejected": "counter",
    "eclips_program_restarts": "counter",
}


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The status of a node after a recorded run of three frames, as it comes out of a heartbeat."""

    async def run() -> dict[str, Any]:
        settings = load_settings(None, {"runs_folder": str(tmp_path_factory.mktemp("node") / "runs")})
        clock = SystemClock()
        endpoints = Endpoints(*(f"tcp://127.0.0.1:{port}" for port in free_ports(3)))
        node_settings = NodeSettings(endpoints, settings.runs_folder, scan=ScanRequest(64, 64), restarts=2)
        async with AcquisitionProgram(wiring.lab(settings, clock), node_settings, clock, lambda _: None) as program:
            await program.carry_out("start", {"frames": 3})
            await program.node.machine.wait()
            program.node.recordings.hurry()
            return dict(await program.carry_out("status", {}))

    found: dict[str, Any] = cbor2.loads(cbor2.dumps(asyncio.run(run())))
    return found


@pytest.fixture
def hub() -> Iterator[Hub]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield Hub(context, Endpoints("tcp://127.0.0.1:1", "tcp://127.0.0.1:1", "tcp://127.0.0.1:1"), None)
    context.destroy()


def heard(hub: Hub, status: dict[str, Any]) -> Hub:
    hub.status, hub.status_at = status, time.monotonic()
    return hub


def scraped(metrics: Metrics) -> dict[str, Metric]:
    families = list(text_string_to_metric_families(generate_latest(metrics).decode()))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    found = [
        one.value
        for family in families.values()
        for one in family.samples
        if one.name == sample and one.labels == labels
    ]
    assert len(found) == 1, (sample, labels, found)
    return found[0]


def test_every_documented_metric_is_told_with_type_and_help(hub: Hub, status: dict[str, Any]) -> None:
    families = scraped(Metrics(heard(hub, status)))
    for name, kind in (DOCUMENTED | OF_THE_SERVICE).items():
        assert families[name].type == kind, name
        assert families[name].documentation, name
    undocumented = {name for name in families if name.startswith("eclips_")} - DOCUMENTED.keys() - OF_THE_SERVICE.keys()
    assert {name for name in undocumented if not name.endswith("_created")} == {"eclips_node_heartbeat_age_seconds"}


def test_a_recorded_run_is_counted_frame_by_frame(hub: Hub, status: dict[str, Any]) -> None:
    families = scraped(Metrics(heard(hub, status)))
    for what in ("acquired", "recorded", "acknowledged"):
        assert value(families, f"eclips_frames_{what}_total") == 3
    assert value(families, "eclips_runs_started_total") == 1
    assert value(families, "eclips_heights_waiting") == 3
    assert value(families, "eclips_recorder_write_seconds_count") == 3
    assert value(families, "eclips_ring_bytes") > 3 * 4 * 64 * 64 * 2
    assert value(families, "eclips_run_state", eclips_run_state="idle") == 1
    assert value(families, "eclips_run_state", eclips_run_state="fault") == 0
    assert value(families, "eclips_interlock_permit") == status["interlocks"]["permit"]
    assert value(families, "eclips_program_restarts_total", program="acquire", worker="") == 2
    assert value(families, "eclips_device_reconnects_total", device="stage") == 0
    assert value(families, "eclips_device_readings_total", device="stage") > 0


def test_a_silent_node_is_told_as_down_and_nothing_stale_of_it(hub: Hub, status: dict[str, Any]) -> None:
    metrics = Metrics(heard(hub, status))
    assert value(scraped(metrics), "eclips_node_up") == 1
    hub.status_at -= 60.0
    families = scraped(metrics)
    assert value(families, "eclips_node_up") == 0
    assert value(families, "eclips_node_heartbeat_age_seconds") >= 60
    assert not DOCUMENTED.keys() & families.keys()


def test_workers_that_tell_nonsense_of_themselves_break_no_scrape(hub: Hub, status: dict[str, Any]) -> None:
    about = {"name": "twin", "done": "many", "failed": "nan", "model": ["x"] * 1000, "rejected": "7"}
    status = status | {"workers": [about, about, {"last_seen_s": 1.0}]}
    families = scraped(Metrics(heard(hub, status)))
    assert value(families, "eclips_worker_frames_total", worker="twin") == 0
    assert value(families, "eclips_worker_failures_total", worker="twin") == 0
    assert value(families, "eclips_worker_messages_rejected_total", worker="twin") == 7
    assert all(len(label) <= 80 for one in families["eclips_worker_info"].samples for label in one.labels.values())


def test_the_status_leaves_room_in_its_heartbeat(status: dict[str, Any]) -> None:
    counters = NodeCounters()
    counters.height(("run", 0), 0, {f"stage {n}": 0.1 for n in range(1000)}, kept=True)
    assert len(counters.stages) == MAX_STAGES + 1
    assert sum(sum(one.counts) for one in counters.stages.values()) == 1000
    fullest = status | {"counters": status["counters"] | counters.tree()}
    assert len(cbor2.dumps(fullest)) < MAX_HEADER_BYTES / 2


def test_durations_fall_into_the_bucket_of_the_next_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS_S[0], 0.002, 1e6, float("nan"), float("inf"), -1.0):
        histogram.add(seconds)
    assert histogram.counts == [2, 1, *[0] * (len(BOUNDS_S) - 2), 1]
    assert histogram.sum_s == pytest.approx(1e6 + 0.003)


def test_every_acknowledged_frame_is_counted_once_over_runs() -> None:
    counters = NodeCounters()
    for run, sequence in (("a", 0), ("a", 4), ("b", 2), ("b", 3)):
        counters.acknowledged(run, sequence)
    assert counters.frames_acknowledged == 5 + 4


def test_a_frame_that_is_given_up_is_counted_once_also_when_its_run_is_forgotten() -> None:
    counters = NodeCounters()
    for keys in ({("a", 1)}, {("a", 1), ("a", 2)}, set(), {("b", 1)}):
        counters.given_up(keys)
    assert counters.frames_given_up == 3


def test_latency_is_that_of_frames_still_remembered() -> None:
    counters = NodeCounters()
    for sequence in range(REMEMBERED_FRAMES + 1):
        counters.published(("run", sequence), 1_000_000_000, recorded=True)
    for sequence in (0, 1, 1):
        counters.height(("run", sequence), 1_500_000_000, {}, kept=sequence == 1)
    assert sum(counters.latency.counts) == 1
    assert counters.latency.sum_s == pytest.approx(0.5)
    assert (counters.heights_kept, counters.heights_refused) == (2, 1)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data, state, control = free_ports(3)
    stream = {"data_port": data, "state_port": state, "control_port": control}
    app = create_app(load_settings(None, {"runs_folder": str(tmp_path_factory.mktemp("app")), "stream": stream}), KEY)
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as made:
        yield made


def families_of(client: TestClient) -> dict[str, Metric]:
    text = client.get("/api/v1/metrics").raise_for_status().text
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_a_scrape_needs_the_key_and_answers_without_a_node(client: TestClient) -> None:
    assert client.get("/api/v1/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert value(families_of(client), "eclips_node_up") == 0


def test_requests_are_counted_by_route_template_and_status(client: TestClient) -> None:
    for run in ("a", "b"):
        assert client.get(f"/api/v1/runs/{run}").status_code == 422
    client.request("BREW", "/teapot")
    families = families_of(client)
    template = {"route": "/runs/{run_id}", "method": "GET", "status": "422"}
    assert value(families, "eclips_http_requests_total", **template) == 2
    assert value(families, "eclips_http_requests_total", route="other", method="other", status="404") == 1
    assert value(families, "eclips_http_request_duration_seconds_count", route="/runs/{run_id}") == 2


def test_two_applications_count_for_themselves(client: TestClient, tmp_path: Path) -> None:
    client.get("/api/v1/colormaps").raise_for_status()
    assert value(families_of(client), "eclips_http_requests_total", route="/colormaps", method="GET", status="200") == 1
    other = create_app(load_settings(None, {"runs_folder": str(tmp_path)}), KEY)
    with TestClient(other, headers={"Authorization": f"Bearer {KEY}"}) as second:
        routes = {one.labels.get("route") for one in families_of(second)["eclips_http_requests"].samples}
    assert "/colormaps" not in routes


def test_the_example_for_prometheus_scrapes_what_the_service_serves(client: TestClient) -> None:
    example = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "prometheus.yml").read_text())
    (job,) = example["scrape_configs"]
    assert client.get(job["metrics_path"]).status_code == 200
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{Settings().serve.port}"]}]
    assert job["authorization"]["type"] == "Bearer"


def test_open_metrics_are_told_to_those_who_ask(client: TestClient) -> None:
    asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = client.get("/api/v1/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in open_metrics(answer.text)}
    assert families["eclips_node_up"].type == "gauge"
