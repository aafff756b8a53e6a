"""What the real programs tell of themselves: a scrape while they work and when the node is gone, and their logs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from programs import Program, wait_until, write_settings

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("observed")


@pytest.fixture(scope="module")
def program(folder: Path) -> Iterator[Program]:
    tables = {"logs": 'level = "debug"', "serve": f'key_file = "{(folder / "key").as_posix()}"'}
    made = Program("up", "--config", str(write_settings(folder, **tables)), runs=folder / "runs")
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[httpx.Client]:
    with program.client() as made:
        wait_until(lambda: now(made, "eclips_heights_total", outcome="kept") >= 2, lambda: "no heights were counted")
        yield made


def scrape(client: httpx.Client) -> list[Metric]:
    return list(text_string_to_metric_families(client.get("/metrics").raise_for_status().text))


def values(families: list[Metric]) -> Values:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def total(found: Values, name: str, **labels: str) -> float:
    """Of all samples of that name with these labels; nan without one."""
    wanted = set(labels.items())
    matching = [value for (sample, has), value in found.items() if sample == name and wanted <= set(has)]
    return sum(matching) if matching else float("nan")


def now(client: httpx.Client, name: str, **labels: str) -> float:
    return total(values(scrape(client)), name, **labels)


def log_lines(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The log lines of each program in the folder."""
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("*.jsonl")}


def test_a_scrape_holds_what_is_counted_by_the_names_that_prometheus_asks_for(client: httpx.Client) -> None:
    families = [family for family in scrape(client) if family.name.startswith("eclips_")]
    assert all(family.documentation for family in families)
    for family in families:
        for sample in family.samples:
            assert family.type != "counter" or sample.name == f"{family.name}_total"
    found = values(families)
    assert found["eclips_node_up", ()] == 1
    assert found["eclips_workers", ()] == 1
    assert found["eclips_run_state", (("eclips_run_state", "acquiring"),)] == 1
    assert found["eclips_stage_seconds_count", (("stage", "integrate"),)] >= 2
    assert 0 < found["eclips_ring_bytes", ()] <= found["eclips_ring_budget_bytes", ()]


def test_counters_grow_while_a_run_goes_on_and_never_shrink(client: httpx.Client) -> None:
    first = values(scrape(client))
    growing = ("frames_acquired", "frames_recorded", "frames_acknowledged", "device_readings", "worker_frames")
    wait_until(
        lambda: all(now(client, f"eclips_{name}_total") > total(first, f"eclips_{name}_total") for name in growing),
        lambda: "not all of these grew: " + ", ".join(growing),
    )
    later = values(scrape(client))
    counted = [key for key in first if key[0].startswith("eclips_") and key[0].endswith(("_total", "_bucket"))]
    assert len(counted) > 50
    assert [key for key in counted if later.get(key, 0.0) < first[key]] == []
    assert total(later, "eclips_http_requests_total", route="/metrics", status="200") >= 3


def test_an_open_page_is_counted_while_it_is_open(client: httpx.Client) -> None:
    signed = {"Authorization": client.headers["Authorization"]}
    with connect(f"ws{str(client.base_url)[4:]}live", additional_headers=signed) as socket:
        socket.send("{}")
        socket.recv(timeout=60)
        assert now(client, "eclips_websocket_clients", socket="live") == 1
        wait_until(lambda: now(client, "eclips_live_messages_sent_total") == 1, lambda: "the picture was not counted")
    wait_until(lambda: now(client, "eclips_websocket_clients", socket="live") == 0, lambda: "it still counts as open")


def test_a_scrape_answers_when_the_node_is_silent_or_dead_and_tells_its_restart(
    program: Program, client: httpx.Client
) -> None:
    node = program.children()["acquire"]
    os.kill(node, signal.SIGSTOP)
    wait_until(lambda: now(client, "eclips_node_up") == 0, lambda: "a silent node is told as alive")
    names = {family.name for family in scrape(client)}
    assert "eclips_http_requests" in names
    assert not {"eclips_frames_acquired", "eclips_run_state", "eclips_interlock_permit"} & names
    os.kill(node, signal.SIGKILL)
    wait_until(lambda: now(client, "eclips_node_up") == 1, lambda: "the new node was not heard")
    assert now(client, "eclips_hub_reconnects_total") >= 1
    assert now(client, "eclips_program_restarts_total", program="acquire") == 1
    assert now(client, "eclips_program_restarts_total", program="serve") == 0


def test_logs_tell_the_whole_story_except_for_the_key(program: Program, client: httpx.Client, folder: Path) -> None:
    """The last one: it ends the program."""
    key = program.link.split("key=")[1]
    assert (folder / "key").read_text() == key
    assert (folder / "key").stat().st_mode & 0o077 == 0
    assert httpx.get(program.link).status_code == 303
    assert client.get(f"/runs/none?key={key}").status_code == 422
    assert program.interrupt() == 0
    lines = log_lines(folder / "runs-logs")
    assert lines.keys() == {"up", "acquire", "infer", "serve"}
    for name, told in lines.items():
        assert {line["program"] for line in told} == {name}
        assert told[-1]["message"] == "ended"
    warnings = [line["message"] for line in lines["up"] if line["level"] == "warning"]
    assert warnings == ["acquire ended with status -9: starting it again"]
    assert len([line for line in program.lines if "acquire ended with status -9" in line]) == 1
    assert program.run_folder().name in {line.get("run_id") for line in lines["acquire"]}
    assert any(line["message"].startswith("transition: armed -> acquiring") for line in lines["acquire"])
    for path in (folder / "runs-logs").iterdir():
        assert key not in path.read_text()
