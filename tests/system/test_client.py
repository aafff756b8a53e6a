"""The Python client over real HTTP: a simulated lab and recorded runs, refusals as errors, control, second tries."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile

from acquisition.errors import BadInput, ChangedMeanwhile, ComponentFailed, LimitExceeded, RequestRefused
from acquisition.recording import RecordedRun
from programs import write_settings
from recordings import SHAPE, finish, frame, record
from service import client as client_module
from service.client import AccessDenied, Lab, connect
from service_here import KEY, Served, served

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("client")
    finish(record(folder / "runs" / "known", 4, [0, 1, 3]))
    with served(write_settings(folder, 32)) as service:
        yield service


@pytest.fixture
def lab(here: Served) -> Iterator[Lab]:
    with connect(f"{here.base_url}/?key={KEY}") as made:
        if "stop" in made.status().permitted:
            made.stop()
        made.wait_until(lambda status: status.state == "idle", PATIENCE_S)
        yield made


# Getting in


def test_what_is_no_address_or_has_no_key_is_refused_before_anything_is_sent() -> None:
    for wrong in ("ftp://lab", "http://", "http://127.0.0.1:1"):
        with pytest.raises(BadInput):
            connect(wrong)


def test_a_wrong_key_is_told(here: Served) -> None:
    with pytest.raises(AccessDenied, match="key is needed"):
        connect(here.base_url, "wrong")


def test_a_service_that_is_not_there_is_told_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client_line.FIRST_PAUSE_S", 0.01)
    with pytest.raises(ComponentFailed, match=r"http://127\.0\.0\.1:1 does not answer.*eclips up"):
        connect("127.0.0.1:1", "key")


def test_the_client_needs_no_networks() -> None:
    code = "import service.client, sys; print({'torch', 'onnxruntime', 'fastapi', 'zmq', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_key_for_looking_looks_and_does_not_drive(here: Served, lab: Lab) -> None:
    with connect(here.base_url, lab.make_key("wall display")) as display:
        assert display.status().state == "idle"
        with pytest.raises(AccessDenied, match="'wall display' is for 'read'"):
            display.start()
        assert [(key.name, key.scope, key.expired) for key in lab.made_keys()] == [("wall display", "read", False)]
        lab.revoke_key("wall display")
        with pytest.raises(AccessDenied, match="key is needed"):
            display.status()


# Looking


def test_the_status_comes_as_typed_objects(lab: Lab) -> None:
    status = lab.status()
    assert (status.state, status.permitted, status.fault) == ("idle", ("start", "replay"), None)
    assert status.simulated
    assert status.devices["heater"].limits["current_a"].high == 1.5
    assert status.devices["oxygen"].gas == "oxygen"
    assert {condition.name for condition in lab.interlocks().inputs} >= {"operator present", "laser interlock closed"}
    assert lab.alarms() == []


def test_readings_are_asked_for_by_name(lab: Lab) -> None:
    lab.wait_until(lambda status: "x_m" in status.devices["stage"].readings, PATIENCE_S)
    assert abs(lab.stage["x_m"]) < 1e-3
    with pytest.raises(KeyError):
        lab.stage["colour"]
    with pytest.raises(RequestRefused, match="no device 'kiln'") as refused:
        lab.device("kiln")
    assert "heater" in refused.value.permitted


def test_trends_are_arrays_and_metrics_are_numbers(lab: Lab) -> None:
    lab.wait_until(lambda _: "heater.current_a" in lab.trends(60) or "stage.x_m" in lab.trends(60), PATIENCE_S)
    trend = lab.trends(60)["stage.x_m"]
    assert trend.utc_s.shape == trend.values.shape
    assert lab.metrics()["eclips_node_up"] == 1.0
    assert lab.metrics()['eclips_websocket_clients{socket="live"}'] == 0.0


def test_an_alarm_that_does_not_stand_cannot_be_acknowledged(lab: Lab) -> None:
    with pytest.raises(RequestRefused, match="no alarm"):
        lab.acknowledge("a?b #c")


def test_a_setpoint_can_be_made_to_depend_on_what_was_seen(lab: Lab) -> None:
    oxygen = lab.gas("oxygen")
    seen = oxygen.state.tag
    oxygen.set(flow_mol_per_s=1e-7, only_if=seen)
    with pytest.raises(ChangedMeanwhile, match="nothing was sent") as stale:
        oxygen.set(flow_mol_per_s=2e-7, only_if=seen)
    assert [change.split(" UTC ")[1] for change in stale.value.changes] == ["flow_mol_per_s 1e-07"]
    oxygen.set(flow_mol_per_s=0.0, only_if=stale.value.tag)


# Recorded runs


def test_frames_and_heights_come_as_arrays_with_their_pixel_size(lab: Lab) -> None:
    run = lab.run("known")
    assert [one.sequence for one in run.frames()] == [0, 1, 2, 3]
    assert [one.has_height for one in run.frames()] == [True, True, False, True]
    found = run.frame(2)
    np.testing.assert_array_equal(found.values, frame(2).images)
    assert (found.values.dtype, found.pixel_size_m) == (np.uint16, 5e-9)
    assert found.size_m == pytest.approx((SHAPE[1] * 5e-9, SHAPE[2] * 5e-9))
    assert [height.sequence for height in run.heights()] == [0, 1, 3]
    assert run.height(3).values.dtype == np.float32
    assert run.height(3).values[0, 0] == np.float32(3e-9)
    assert run.height(3)._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="no height"):
        run.height(2)


def test_a_run_of_more_frames_than_fit_one_answer_is_listed_whole(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client_parts.MOST_FRAMES", 2)
    assert [one.sequence for one in lab.run("known").frames()] == [0, 1, 2, 3]


def test_a_height_is_saved_as_tiff_in_metres_with_its_scale(lab: Lab, tmp_path: Path) -> None:
    path = lab.run("known").save_tiff(3, tmp_path / "height.tif")
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert page.asarray()[0, 0] == np.float32(3e-9)
        count, centimetre = page.tags["XResolution"].value
        assert 0.01 * centimetre / count == pytest.approx(5e-9, rel=1e-6)


def test_a_profile_comes_in_metres(lab: Lab) -> None:
    distances_m, heights_m = lab.run("known").profile(3, (2, 5), (12, 5), width_px=3)
    np.testing.assert_allclose(distances_m, np.arange(11) * 5e-9)
    np.testing.assert_allclose(heights_m, np.full(11, 3e-9), rtol=1e-6)
    for end in ((SHAPE[2], 5), (2.5, 5)):
        with pytest.raises(BadInput, match="the line"):
            lab.run("known").profile(3, (2, 5), end)


def test_a_run_is_exported_as_it_is_with_progress(here: Served, lab: Lab, tmp_path: Path) -> None:
    told: list[str] = []
    out = lab.run("known").export(tmp_path / "known.zip", progress=lambda done, total: told.append(f"{done}/{total}"))
    assert told
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path)
    np.testing.assert_array_equal(RecordedRun(tmp_path / "known").read_frame(1).images, frame(1).images)
    with np.load(lab.run("known").export(tmp_path / "heights.npz", "npz")) as arrays:
        assert arrays["sequence"].tolist() == [0, 1, 3]
    assert not list(tmp_path.glob("*.part"))


def test_runs_are_listed_and_verified(lab: Lab) -> None:
    listed = {run.run_id: run for run in lab.runs()}
    assert (listed["known"].frames, listed["known"].heights, listed["known"].over) == (4, 3, True)
    verdict = lab.run(listed["known"]).verify()
    assert not verdict.ok
    assert "eclips reprocess" in verdict.findings[0]
    for wrong in ("nowhere", "..", "", "a b?c#d"):
        with pytest.raises(BadInput, match=r"no recorded run|is no name"):
            lab.run(wrong)
    with pytest.raises(BadInput, match="knows no"):
        lab.run("../known/nothing")


# Driving


def test_a_run_is_started_and_waited_for(lab: Lab) -> None:
    run = lab.start(frames=3, name="three", notes="of three frames", record=False)
    assert run.wait(PATIENCE_S) is None
    status = lab.status()
    assert status.run is not None
    assert (status.run.run_id, status.run.frames) == (run.run_id, 3)


def test_a_recorded_run_that_is_aborted_is_incomplete(lab: Lab) -> None:
    run = lab.start(name="endless")
    lab.wait_until(lambda status: status.run is not None and status.run.frames > 1, PATIENCE_S)
    with pytest.raises(TimeoutError, match="not over"):
        run.wait(0.0)
    lab.abort()
    told = run.wait(PATIENCE_S)
    assert told is not None
    assert told.status == "incomplete"
    with pytest.raises(RequestRefused) as refused:
        lab.abort()
    assert refused.value.permitted == ("start", "replay")


def test_a_setpoint_beyond_its_limit_tells_value_limit_and_setting(lab: Lab) -> None:
    with pytest.raises(LimitExceeded, match="nothing was sent") as refused:
        lab.heater.set(current_a=1.8)
    assert (refused.value.value, refused.value.limit) == (1.8, 1.5)
    assert refused.value.setting == "limits.heater_current_a"


def test_the_stage_tells_where_it_has_got_to_and_gas_what_flows(lab: Lab) -> None:
    assert lab.stage.set(x_m=2e-6)["x_m"] == pytest.approx(2e-6, abs=1e-8)
    lab.gas("oxygen").set(flow_mol_per_s=1e-6)
    lab.wait_until(lambda _: lab.gas("oxygen")["flow_setpoint_mol_per_s"] == pytest.approx(1e-6), PATIENCE_S)
    lab.pyrometer.set(emissivity=0.3)
    assert lab.safe_state() == []
    lab.wait_until(lambda _: lab.gas("oxygen")["flow_setpoint_mol_per_s"] == 0, PATIENCE_S)
    assert any(event.name == "safe_state" for event in lab.events())


def test_a_replay_is_stepped_and_sought(lab: Lab) -> None:
    lab.replay("known", speed="step", loop=True)
    lab.wait_until(lambda status: status.run is not None and status.run.replayed is not None, PATIENCE_S)
    lab.step()
    lab.seek(2)
    told = lab.wait_until(lambda s: s.run and s.run.replayed and s.run.replayed.position >= 2, PATIENCE_S)
    assert told.run is not None and told.run.replayed is not None
    assert (told.run.replayed.run_id, told.run.replayed.total) == ("run", 4)
    with pytest.raises(RequestRefused, match="replay"):
        lab.heater.arm()


def test_a_recipe_is_rehearsed_begun_paused_and_aborted(lab: Lab, tmp_path: Path) -> None:
    steps = [{"do": "set", "device": "oxygen", "flow_sccm": 1.0}, {"do": "wait", "seconds": 600.0}]
    recipe = {"name": "feed", "description": "Oxygen for a while.", "steps": steps}
    assert lab.rehearse(recipe)["good"]
    lab.start_recipe(recipe)
    lab.wait_until(lambda _: lab.recipe()["step"] == 2, PATIENCE_S)
    lab.pause_recipe()
    assert lab.recipe()["state"] == "paused"
    lab.resume_recipe()
    assert lab.abort_recipe() == []
    lab.wait_until(lambda _: lab.gas("oxygen")["flow_setpoint_mol_per_s"] == 0, PATIENCE_S)
    file = tmp_path / "hot.toml"
    file.write_text('name = "hot"\n[[steps]]\ndo = "set"\ndevice = "heater"\ncurrent_a = 1.8\n')
    with pytest.raises(LimitExceeded) as refused:
        lab.start_recipe(file)
    assert (refused.value.value, refused.value.limit) == (1.8, 1.5)


# Control


def test_control_keeps_others_out_and_gives_signs_of_life(
    here: Served, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "HEARTBEAT_INTERVAL_S", 0.05)
    seen = threading.Event()
    guard = here.laboratory.program.node.guard
    with connect(here.base_url, KEY) as other, lab.control("Ada"):
        monkeypatch.setattr(guard, "operator_seen", seen.set)
        assert seen.wait(PATIENCE_S)
        assert other.driver() == "Ada"
        with pytest.raises(RequestRefused, match="Ada has control"):
            other.start()
        with pytest.raises(RequestRefused, match="Ada has control"), other.control("Bob"):
            pass
        lab.gas("oxygen").off()
    assert lab.driver() is None
    with other_driver(here) as bob, bob.control("Bob"):
        bob.gas("oxygen").set(flow_mol_per_s=0.0)


def other_driver(here: Served) -> Lab:
    return connect(here.base_url, KEY)


def heat(lab: Lab) -> None:
    lab.heater.set(current_a=0.8)
    lab.heater.arm()
    lab.wait_until(lambda status: (status.devices["heater"].readings["emission"].value or 0) > 0, PATIENCE_S)


def test_an_error_while_driving_switches_the_laser_off(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError), lab.control("Ada"):
        heat(lab)
        _ = 1 / 0
    lab.wait_until(lambda status: status.devices["heater"].readings["emission"].value == 0, PATIENCE_S)


def test_who_was_relieved_leaves_the_laser_to_the_next(here: Served, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "HEARTBEAT_INTERVAL_S", 0.05)
    with other_driver(here) as bob, bob.control("Bob", take_over=True):
        with pytest.raises(RequestRefused, match="Bob has control"), lab.control("Ada", take_over=True):
            heat(lab)
            bob._line.post("control", {"name": "Bob", "take_over": True})
            beating = [thread for thread in threading.enumerate() if thread.name.endswith("(_beat)")]
            lab.wait_until(lambda _: sum(thread.is_alive() for thread in beating) < 2, PATIENCE_S)
            lab.heater.set(current_a=1.0)
        assert bob.heater["emission"] > 0
        bob.heater.off()


# What goes wrong on the way


class Faulty(BaseHTTPRequestHandler):
    """Hangs up on the first request of each kind without an answer, and notes what came."""

    seen: list[tuple[str, str | None]]

    def do_POST(self) -> None:
        self.seen.append((self.path, self.headers["Idempotency-Key"]))
        if len(self.seen) > 1:
            self.send_response(500 if "reset" in self.path else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[HTTPServer]:
    Faulty.seen = []
    with HTTPServer(("127.0.0.1", 0), Faulty) as server:
        running = threading.Thread(target=server.serve_forever, daemon=True)
        running.start()
        yield server
        server.shutdown()
        running.join(10)


def test_what_was_lost_is_sent_again_under_the_same_key(faulty: HTTPServer) -> None:
    with connect(f"127.0.0.1:{faulty.server_port}", "key") as lab:
        lab.stop()
    (first, key), (second, again) = Faulty.seen
    assert first == second == "/api/v1/run:stop"
    assert key is not None and key == again


def test_what_failed_is_not_tried_again(faulty: HTTPServer) -> None:
    with connect(f"127.0.0.1:{faulty.server_port}", "key") as lab:
        lab.stop()
        with pytest.raises(ComponentFailed, match="500"):
            lab.reset()
    assert [path for path, _ in Faulty.seen].count("/api/v1/run:reset") == 1


def test_the_client_leaves_no_line_open(here: Served) -> None:
    with connect(here.base_url, KEY) as lab:
        http: httpx.Client = lab._line._http
    assert http.is_closed
