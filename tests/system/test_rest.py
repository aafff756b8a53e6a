"""The service as a program sees it: keys, limits, runs, pictures, replay."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile

from acquisition.recording import RecordedRun
from programs import Program, wait_until, write_settings


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("rest")
    made = Program("up", "--config", str(write_settings(folder)), runs=folder / "runs")
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[httpx.Client]:
    with program.client() as made:
        wait_until(lambda: made.get("/ready").json()["ready"], lambda: "never ready")
        yield made


def to_idle(client: httpx.Client) -> None:
    if client.get("/status").json()["state"] == "acquiring":
        client.post("/run:stop").raise_for_status()
    wait_until(lambda: client.get("/status").json()["state"] == "idle", lambda: "never idle")


def finished_run(client: httpx.Client) -> str:
    """The name of a complete recorded run of four frames."""
    to_idle(client)
    run_id = client.post("/run", json={"frames": 4, "notes": "four frames"}).raise_for_status().json()["run_id"]
    wait_until(lambda: client.get(f"/runs/{run_id}").json()["status"] == "complete", lambda: "never complete")
    return str(run_id)


def test_nothing_is_told_without_the_key(client: httpx.Client) -> None:
    for path in ("/status", "/runs", "/devices"):
        answer = httpx.get(f"{str(client.base_url).rstrip('/')}{path}", headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
    assert httpx.get(f"{client.base_url}health").status_code == 200


def test_pages_of_other_origins_are_refused(client: httpx.Client) -> None:
    assert client.get("/status", headers={"Origin": "http://evil.example"}).status_code == 403


def test_the_link_signs_in_and_hides_the_key(program: Program) -> None:
    with httpx.Client() as browser:
        answer = browser.get(program.link)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        assert "httponly" in answer.headers["set-cookie"].lower()
    assert httpx.get(program.link.split("?")[0]).status_code == 401


def test_a_laser_current_beyond_its_limit_is_refused_and_nothing_is_sent(client: httpx.Client) -> None:
    before = client.get("/devices/heater").json()["readings"]["current_target_a"]["value"]
    answer = client.post("/devices/heater/setpoints", json={"current_a": 1.8})
    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["value"], problem["limit"], problem["setting"]) == (1.8, 1.5, "limits.heater_current_a")
    assert "nothing was sent" in problem["detail"]
    after = client.get("/devices/heater").json()["readings"]["current_target_a"]["value"]
    assert after == before == 0


@pytest.mark.parametrize(
    ("device", "values"),
    [
        ("hydrogen", {"flow_mol_per_s": 1.0}),
        ("oxygen", {"flow_mol_per_s": -1e-6}),
        ("stage", {"x_m": 1.0}),
        ("pyrometer", {"emissivity": 1.5}),
        ("heater", {"current_a": "inf"}),
    ],
)
def test_every_setpoint_beyond_its_limit_is_refused(
    client: httpx.Client, device: str, values: dict[str, float]
) -> None:
    answer = client.post(f"/devices/{device}/setpoints", json=values)
    assert answer.status_code == 422
    assert "limit" in answer.json() or "finite" in answer.json()["detail"]


def test_half_of_a_setpoint_pair_is_never_carried_out(client: httpx.Client) -> None:
    before = client.get("/devices/stage").json()["readings"]["x_m"]["value"]
    assert client.post("/devices/stage/setpoints", json={"x_m": 1e-6, "y_m": 1.0}).status_code == 422
    assert client.get("/devices/stage").json()["readings"]["x_m"]["value"] == pytest.approx(before, abs=1e-9)


def test_heating_from_rest_warms_the_specimen_and_off_turns_the_laser_off(client: httpx.Client) -> None:
    def reading(device: str, quantity: str) -> float:
        value = client.get(f"/devices/{device}").json()["readings"][quantity]["value"]
        return float("nan") if value is None else float(value)

    client.post("/devices/heater/setpoints", json={"current_a": 1.2}).raise_for_status()
    client.post("/devices/heater:arm").raise_for_status()
    wait_until(lambda: reading("pyrometer", "temperature_k") > 600, lambda: "never warm")
    client.post("/devices/heater:off").raise_for_status()
    wait_until(lambda: reading("heater", "emission") == 0, lambda: "still on")
    assert reading("heater", "current_target_a") == 0


def test_what_is_not_possible_now_says_what_is(client: httpx.Client) -> None:
    to_idle(client)
    answer = client.post("/run:stop")
    assert answer.status_code == 409
    assert answer.json()["permitted"] == ["start", "replay"]


def test_a_run_scans_with_the_pixel_size_that_it_was_asked_for(client: httpx.Client) -> None:
    to_idle(client)
    asked = {"frames": 1, "pixel_size_m": 1.25e-9}
    run_id = client.post("/run", json=asked).raise_for_status().json()["run_id"]
    wait_until(lambda: client.get(f"/runs/{run_id}/frames").json(), lambda: "no frame")
    assert client.get(f"/runs/{run_id}/frames").json()[0]["pixel_size_m"] == 1.25e-9
    to_idle(client)


@pytest.mark.parametrize(("pixel_size_m", "side"), [(1e-12, "low"), (1e-3, "high")])
def test_a_pixel_size_beyond_the_detectors_is_refused_with_its_limit(
    client: httpx.Client, pixel_size_m: float, side: str
) -> None:
    to_idle(client)
    limit = client.get("/devices/detector").json()["limits"]["pixel_size_m"][side]
    answer = client.post("/run", json={"pixel_size_m": pixel_size_m})
    assert (answer.status_code, answer.json()["value"], answer.json()["limit"]) == (422, pixel_size_m, limit)
    assert client.get("/status").json()["state"] == "idle"


def test_a_run_is_started_listed_looked_at_and_verified(program: Program, client: httpx.Client) -> None:
    run_id = finished_run(client)
    listed = next(run for run in client.get("/runs").json() if run["run_id"] == run_id)
    assert (listed["frames"], listed["heights"], listed["notes"]) == (4, 4, "four frames")
    assert client.post(f"/runs/{run_id}/verify").json() == {"ok": True, "findings": [], "frames": 4, "heights": 4}
    on_disk = RecordedRun(program.runs / run_id)
    npy = client.get(f"/runs/{run_id}/heights/2", headers={"Accept": "application/octet-stream"})
    np.testing.assert_array_equal(np.load(io.BytesIO(npy.content)), on_disk.read_height(2))
    page = client.get(f"/runs/{run_id}/frames/3", headers={"Accept": "image/tiff"})
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(page.content)), on_disk.read_frame(3).images)
    assert client.get(f"/runs/{run_id}/heights/0").content.startswith(b"\x89PNG")
    assert client.get(f"/runs/{run_id}/heights/99").status_code == 422


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fetc", "nowhere", "a%00b"])
def test_names_that_are_no_runs_are_refused(client: httpx.Client, name: str) -> None:
    assert client.get(f"/runs/{name}").status_code in (404, 422)


def test_a_replay_drives_the_page_and_bars_the_devices(client: httpx.Client) -> None:
    run_id = finished_run(client)
    client.post("/replay", json={"run": run_id, "speed": "1", "loop": True}).raise_for_status()
    wait_until(lambda: (client.get("/status").json()["run"] or {}).get("replayed"), lambda: "no replay")
    refused = client.post("/devices/heater/setpoints", json={"current_a": 0.5})
    assert refused.status_code == 409
    assert "replay" in refused.json()["detail"]
    client.post("/replay:seek", json={"position": 2}).raise_for_status()
    assert client.post("/replay:seek", json={"position": 9}).status_code == 409
    client.post("/run:stop").raise_for_status()
    to_idle(client)


def test_a_replay_outside_the_runs_folder_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    assert client.post("/replay", json={"run": str(tmp_path)}).status_code == 422


def test_unknown_fields_are_refused(client: httpx.Client) -> None:
    to_idle(client)
    assert client.post("/run", json={"framse": 3}).status_code == 422


def test_stop_all_brings_everything_to_rest(client: httpx.Client) -> None:
    to_idle(client)
    client.post("/devices/oxygen/setpoints", json={"flow_mol_per_s": 1e-6}).raise_for_status()
    run_id = client.post("/run", json={}).raise_for_status().json()["run_id"]
    assert client.post("/safe-state").json() == {"unverified": []}
    wait_until(lambda: client.get("/status").json()["state"] == "idle", lambda: "still running")
    listed = next(run for run in client.get("/runs").json() if run["run_id"] == run_id)
    assert listed["reason"] == "cut short by the safe state: asked for"
    setpoint = lambda: client.get("/devices/oxygen").json()["readings"]["flow_setpoint_mol_per_s"]["value"]  # noqa: E731
    wait_until(lambda: setpoint() == 0, lambda: "gas still flows")


def test_a_run_is_tracked_as_a_task_and_its_result_kept(client: httpx.Client) -> None:
    run_id = finished_run(client)
    wait_until(lambda: client.get(f"/runs/{run_id}").json()["heights"] == 4, lambda: "heights are missing")
    assert client.get(f"/runs/{run_id}/track").status_code == 422
    assert client.post(f"/runs/{run_id}:track", json={"reference": ["1,2"]}).status_code == 422
    answer = client.post(f"/runs/{run_id}:track")
    assert answer.status_code == 202
    task = answer.json()["id"]
    wait_until(lambda: client.get(f"/tasks/{task}").json()["state"] in ("done", "failed"), lambda: "never over")
    assert client.get(f"/tasks/{task}").json()["result"]["frames"] == 4
    found = client.get(f"/runs/{run_id}/track").json()
    assert found["current"] and len(found["frames"]) == 4 and "--reference" in found["growth"]["refused"]
