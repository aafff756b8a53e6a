"""What the real programs tell of themselves: a scrape while they work and when the node is gone, and their logs."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from programs import Program, wait_until, write_settings

Start = Callable[..., Program]
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Start]:
    """Start `eclips COMMAND` with settings that all programs of a test share."""
    config, started = write_settings(tmp_path), list[Program]()

    def starter(*arguments: str) -> Program:
        started.append(Program(*arguments, "--config", str(config), runs=tmp_path / "runs"))
        return started[-1]

    yield starter
    for program in started:  # the node first: it waits for heights as long as a worker lives
        program.close()


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


def log_lines(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The log lines of each program in the folder."""
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("*.jsonl")}


def test_a_scrape_follows_a_run_and_answers_when_the_node_is_gone(programs: Start, tmp_path: Path) -> None:
    node, _, service = programs("acquire"), programs("infer"), programs("serve")
    with service.client() as client:

        def now(name: str, **labels: str) -> float:
            return total(values(scrape(client)), name, **labels)

        wait_until(lambda: now("eclips_heights_total", outcome="kept") >= 2, lambda: "no heights were counted")
        families = scrape(client)
        first = values(families)
        ours = [family for family in families if family.name.startswith("eclips_")]
        assert all(family.documentation for family in ours)
        for family in ours:
            for sample in family.samples:
                assert family.type != "counter" or sample.name == f"{family.name}_total"
        assert first["eclips_node_up", ()] == 1
        assert first["eclips_workers", ()] == 1
        assert first["eclips_run_state", (("eclips_run_state", "acquiring"),)] == 1
        assert total(first, "eclips_stage_seconds_count", stage="integrate") >= 2
        assert 0 < first["eclips_ring_bytes", ()] <= first["eclips_ring_budget_bytes", ()]

        signed = {"Authorization": client.headers["Authorization"]}
        with connect(f"ws{str(client.base_url)[4:]}live", additional_headers=signed) as socket:
            socket.send("{}")
            socket.recv(timeout=60)
            assert now("eclips_websocket_clients", socket="live") == 1
            assert now("eclips_live_messages_sent_total") == 1
        wait_until(lambda: now("eclips_websocket_clients", socket="live") == 0, lambda: "the socket stays open")

        grown = ("frames_acquired", "frames_recorded", "frames_acknowledged", "device_readings", "worker_frames")
        wait_until(
            lambda: all(now(f"eclips_{name}_total") > total(first, f"eclips_{name}_total") for name in grown),
            lambda: "not all of these counters grew: " + ", ".join(grown),
        )
        later = values(scrape(client))
        counted = [key for key in first if key[0].startswith("eclips_") and key[0].endswith(("_total", "_bucket"))]
        assert len(counted) > 50
        assert [key for key in counted if later.get(key, 0.0) < first[key]] == []
        assert total(later, "eclips_http_requests_total", route="/metrics", status="200") >= 3

        node.process.send_signal(signal.SIGKILL)
        wait_until(lambda: now("eclips_node_up") == 0, lambda: "a dead node is told as alive")
        names = {family.name for family in scrape(client)}
        assert "eclips_http_requests" in names
        assert not {"eclips_frames_acquired", "eclips_run_state", "eclips_interlock_permit"} & names
        programs("acquire", "--idle")
        wait_until(lambda: now("eclips_node_up") == 1, lambda: "the new node was not heard")
        assert now("eclips_hub_reconnects_total") == 1
        assert now("eclips_frames_acquired_total") == 0

    lines = log_lines(tmp_path / "runs-logs")
    assert {"acquire", "infer", "serve"} <= lines.keys()
    assert node.run_folder().name in {line.get("run_id") for line in lines["acquire"]}
    assert any(line["message"].startswith("transition: armed -> acquiring") for line in lines["acquire"])


def test_restarts_are_told_and_no_log_holds_the_key(start: Start, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    program = start("up", logs='level = "debug"', serve=f'key_file = "{key_file.as_posix()}"')
    key = program.link.split("key=")[1]
    assert key_file.read_text() == key
    assert key_file.stat().st_mode & 0o077 == 0
    with program.client() as client:
        wait_until(lambda: client.get("/ready").json()["ready"], lambda: "never ready")
        assert httpx.get(program.link).status_code == 303
        assert client.get(f"/runs/none?key={key}").status_code == 422
        client.post("/run:stop").raise_for_status()
        waiting = lambda: total(values(scrape(client)), "eclips_heights_waiting")  # noqa: E731
        wait_until(lambda: waiting() == 0, lambda: "some heights were never made")
        os.kill(program.children()["infer"], signal.SIGKILL)
        restarted = lambda: total(values(scrape(client)), "eclips_program_restarts_total", program="infer")  # noqa: E731
        wait_until(lambda: restarted() >= 1, lambda: "the restart of the worker was not told")
    assert program.interrupt() == 0
    lines = log_lines(tmp_path / "runs-logs")
    assert lines.keys() == {"up", "acquire", "infer", "serve"}
    for name, told in lines.items():
        assert {line["program"] for line in told} == {name}
        assert told[-1]["message"] == "ended"
    warnings = [line["message"] for line in lines["up"] if line["level"] == "warning"]
    assert warnings == ["infer ended with status -9: starting it again"]
    assert len([line for line in program.lines if re.search("infer ended with status -9", line)]) == 1
    for path in (tmp_path / "runs-logs").iterdir():
        assert key not in path.read_text()
