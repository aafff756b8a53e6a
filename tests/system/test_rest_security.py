"""Who may do what over REST: keys, scopes, origins, control, and requests made to get around them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from acquisition.errors import BadInput
from programs import wait_until, write_settings
from recordings import finish, record
from service import exchanges
from service.app import create_app
from service.keys import SCOPES, KeyBook, Scope
from service.problems import MEDIA_TYPE, Problem
from service.settings import load_settings
from service_here import KEY, Served, served

SECRET = "not for those who fetch runs"
LIFE_S = 3600.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("guarded")
    finish(record(folder / "runs" / "known", 2, [0, 1]))
    (folder / "secret.txt").write_text(SECRET)
    (folder / "runs" / "known" / "linked.txt").symlink_to(folder / "secret.txt")
    with served(write_settings(folder, 32)) as service:
        yield service


@pytest.fixture
def admin(here: Served) -> Iterator[httpx.Client]:
    with api(here, KEY) as made:
        yield made


def api(here: Served, key: str, **headers: str) -> httpx.Client:
    sent = {"Authorization": f"Bearer {key}", **headers}
    return httpx.Client(base_url=f"{here.base_url}/api/v1", headers=sent, timeout=60)


def key_of(admin: httpx.Client, scope: str, life_s: float = LIFE_S) -> str:
    """A new key for `scope`, whatever had its name before."""
    admin.delete(f"/keys/{scope}")
    made = admin.post("/keys", json={"name": scope, "scope": scope, "life_s": life_s}).raise_for_status()
    return str(made.json()["key"])


def refused(answer: httpx.Response, status: int) -> Problem:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    return Problem.model_validate_json(answer.content)


# Keys and what they open


def test_no_key_and_a_wrong_key_open_nothing(here: Served) -> None:
    for key in ("?", "wrong", KEY + "x", KEY.upper(), "\xe9"):
        with httpx.Client(base_url=here.base_url) as stranger:
            answer = stranger.get("/api/v1/status", headers=[(b"Authorization", f"Bearer {key}".encode("latin-1"))])
            assert "key is needed" in refused(answer, 401).detail


def test_a_key_works_until_it_expires_and_then_says_so(here: Served, admin: httpx.Client) -> None:
    with api(here, key_of(admin, "read", life_s=2.0)) as reader:
        assert reader.get("/runs").status_code == 200
        deadline = time.monotonic() + 30
        while (answer := reader.get("/runs")).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "has expired" in refused(answer, 401).detail
    assert [key["expired"] for key in admin.get("/keys").json() if key["name"] == "read"] == [True]


def test_a_revoked_key_opens_nothing_more(here: Served, admin: httpx.Client) -> None:
    with api(here, key_of(admin, "operate")) as program:
        assert program.get("/runs").status_code == 200
        admin.delete("/keys/operate").raise_for_status()
        refused(program.get("/runs"), 401)
    refused(admin.delete("/keys/operate"), 422)


@pytest.mark.parametrize(
    ("method", "path", "body", "needed"),
    [
        ("GET", "/runs", None, "read"),
        ("POST", "/devices/heater:off", None, "read"),
        ("POST", "/safe-state", None, "read"),
        ("POST", "/operator:heartbeat", None, "operate"),
        ("POST", "/run:reset", None, "operate"),
        ("POST", "/devices/oxygen/setpoints", {"flow_mol_per_s": 0.0}, "hardware"),
        ("GET", "/keys", None, "admin"),
        ("POST", "/keys", {"name": "another", "scope": "admin"}, "admin"),
        ("DELETE", "/keys/nobody", None, "admin"),
    ],
)
def test_each_request_needs_its_scope_and_is_refused_below_it(
    here: Served, admin: httpx.Client, method: str, path: str, body: Any, needed: Scope
) -> None:
    admin.delete("/keys/another")
    for scope in SCOPES:
        with api(here, key_of(admin, scope)) as user:
            answer = user.request(method, path, json=body)
            if SCOPES.index(scope) < SCOPES.index(needed):
                assert repr(needed) in refused(answer, 403).detail
            else:
                assert answer.status_code not in (401, 403), answer.text


def test_keys_below_hardware_cannot_heat_by_any_way(here: Served, admin: httpx.Client) -> None:
    with api(here, key_of(admin, "read")) as reader:
        refused(reader.post("/devices/heater/setpoints", json={"current_a": 0.5}), 403)
        refused(reader.post("/devices/heater:arm"), 403)
    with api(here, key_of(admin, "operate")) as operator:
        refused(operator.post("/devices/heater/setpoints", json={"current_a": 0.5}), 403)
        refused(operator.post("/recipe", json={"text": "steps = []"}), 403)
    assert admin.get("/devices/heater").json()["readings"]["current_target_a"]["value"] == 0


def test_keys_are_kept_as_hashes_for_their_owner_alone_and_outlive_a_restart(
    here: Served, admin: httpx.Client, tmp_path: Path
) -> None:
    text = key_of(admin, "hardware")
    runs = here.laboratory.settings.runs_folder
    file = runs.with_name(f"{runs.name}-keys.json")
    assert text not in file.read_text()
    assert text not in admin.get("/keys").text
    assert file.stat().st_mode & 0o077 == 0
    found = KeyBook("another start", file).find(text)
    assert found is not None and found.scope == "hardware" and not found.expired
    assert KeyBook("another start", file).find(KEY) is None


def test_two_keys_of_one_name_and_one_that_never_ends_are_refused(admin: httpx.Client) -> None:
    key_of(admin, "read")
    assert "revoke" in refused(admin.post("/keys", json={"name": "read"}), 409).detail
    for wrong in ({"name": "x", "life_s": 1e12}, {"name": "../x"}, {"name": "x", "scope": "everything"}):
        refused(admin.post("/keys", json=wrong), 422)


def test_the_link_opens_the_page_with_any_key_that_holds(here: Served, admin: httpx.Client) -> None:
    reader = key_of(admin, "read")
    with httpx.Client(base_url=here.base_url) as browser:
        assert browser.get("/", params={"key": reader}).status_code == 303
        assert browser.get("/").status_code == 200
        refused(browser.post("/api/v1/run"), 403)
        admin.delete("/keys/read").raise_for_status()
        refused(browser.get("/"), 401)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_a_foreign_page_is_refused_even_with_the_key(here: Served, origin: str) -> None:
    with api(here, KEY, Origin=origin) as foreign:
        refused(foreign.get("/status"), 403)
        refused(foreign.post("/safe-state"), 403)
    with api(here, KEY, Origin=here.base_url) as own:
        assert own.get("/runs").status_code == 200


def test_what_a_key_had_opened_closes_when_it_is_revoked(here: Served, admin: httpx.Client) -> None:
    address = here.base_url.replace("http", "ws", 1) + "/api/v1/status"
    key = {"Authorization": f"Bearer {key_of(admin, 'read')}"}
    with connect(address, additional_headers=key, open_timeout=60) as line:
        assert line.recv(timeout=60)
        admin.delete("/keys/read").raise_for_status()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                line.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.10.1", "::", "lab.example"])
def test_an_address_where_keys_would_travel_unencrypted_is_refused(host: str) -> None:
    with pytest.raises(BadInput, match=r"unencrypted.*serve\.certificate.*ssh -L.*trusted_network"):
        create_app(load_settings(None, {"serve": {"host": host}}), KEY)
    create_app(load_settings(None, {"serve": {"host": host, "trusted_network": True}}), KEY)


def test_a_damaged_file_of_keys_is_told_with_its_way_out(tmp_path: Path) -> None:
    (tmp_path / "runs-keys.json").write_text('[{"name": "x"')
    with pytest.raises(BadInput, match="delete the file to revoke"):
        create_app(load_settings(None, {"runs_folder": str(tmp_path / "runs")}), KEY)


def test_every_change_that_is_open_to_lookers_is_one_that_harms_nothing() -> None:
    paths = create_app(load_settings(), KEY).openapi()["paths"]
    open_to_lookers = {
        f"{method} {path.removeprefix('/api/v1')}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if method != "get" and operation["security"] == [{"key": ["read"]}]
    }
    assert open_to_lookers == {
        "post /safe-state",
        "post /devices/{name}:off",
        "post /devices/{name}:stop",
        "post /recipe/abort",
        "post /recipe/dry-run",
        "post /runs/{run_id}/verify",
        "post /runs/{run_id}/export",
        "post /runs/{run_id}:report",
    }


# Who drives


def test_one_drives_and_the_others_look_stop_and_switch_off(here: Served) -> None:
    with api(here, KEY, **{"Eclips-Session": "session-of-ada"}) as ada, api(here, KEY) as bob:
        assert ada.post("/control", json={"name": "Ada"}).json()["yours"] is True
        assert bob.get("/control").json()["holder"] == "Ada"
        for path in ("/run", "/run:stop", "/devices/heater:arm", "/replay:step"):
            told = refused(bob.post(path), 409)
            assert "Ada has control" in told.detail
            assert told.permitted is not None and "take_over" in told.permitted
        assert bob.get("/status").status_code == 200
        assert bob.post("/devices/heater:off").status_code == 200
        assert bob.post("/safe-state").json() == {"unverified": []}
        assert ada.post("/devices/oxygen/setpoints", json={"flow_mol_per_s": 0.0}).status_code == 200
        ada.delete("/control").raise_for_status()
        assert bob.post("/devices/oxygen/setpoints", json={"flow_mol_per_s": 0.0}).status_code == 200


def test_control_is_taken_over_only_by_saying_so(here: Served) -> None:
    with (
        api(here, KEY, **{"Eclips-Session": "session-of-ada"}) as ada,
        api(here, KEY, **{"Eclips-Session": "session-of-bob"}) as bob,
    ):
        ada.post("/control", json={"name": "Ada"}).raise_for_status()
        refused(bob.post("/control", json={"name": "Bob"}), 409)
        assert bob.post("/control", json={"name": "Bob", "take_over": True}).json()["holder"] == "Bob"
        assert "Bob has control" in refused(ada.post("/run"), 409).detail
        assert ada.delete("/control").json()["holder"] == "Bob"
        assert bob.delete("/control").json()["holder"] is None


def test_control_without_a_session_is_refused(here: Served, admin: httpx.Client) -> None:
    assert "session" in refused(admin.post("/control", json={"name": "Ada"}), 422).detail
    assert admin.get("/control").json()["holder"] is None


# Requests made to get around the door


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e", "..%2fsecret.txt", "..%2f..%2fsecret.txt", "%2fetc%2fpasswd", "linked.txt", "%00", "x" * 300],
)
def test_no_name_leads_out_of_the_runs_folder(here: Served, admin: httpx.Client, name: str) -> None:
    for path in (f"/runs/{name}", f"/runs/known/files/{name}", f"/runs/{name}/files/run.json", f"/tasks/{name}/file"):
        # As it is: httpx would take the dots out.
        line = HTTPConnection(urlsplit(here.base_url).netloc, timeout=60)
        line.request("GET", f"/api/v1{path}", headers=here.headers)
        answer = line.getresponse()
        assert 400 <= answer.status < 500, path
        assert SECRET.encode() not in answer.read()
        line.close()
    assert 400 <= admin.post("/replay", json={"run": f"../{name}"}).status_code < 500


def test_a_huge_body_is_refused_with_the_limit(here: Served, admin: httpx.Client) -> None:
    told = refused(admin.post("/run", content=b"x" * (exchanges.MAX_BODY_BYTES + 1)), 413)
    assert told.limit == exchanges.MAX_BODY_BYTES

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    with suppress(httpx.TransportError):  # it may hang up on us while we are still sending
        refused(admin.post("/run", content=endless()), 413)
    assert admin.get("/status").json()["state"] == "idle"


def test_slow_clients_are_refused_and_keep_nobody_waiting(
    here: Served, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "BODY_PATIENCE_S", 1.0)
    address = urlsplit(here.base_url)
    head = (
        f"POST /api/v1/run HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 9\r\n"
    )
    slow = [socket.create_connection((address.hostname, address.port), timeout=30) for _ in range(40)]
    try:
        for index, line in enumerate(slow):
            line.sendall(head.encode() + (b"\r\n{" if index % 2 else b""))
        assert admin.get("/status").status_code == 200
        for line in slow[1::2]:
            assert b" 408 " in line.recv(4096)
        assert admin.get("/status").json()["state"] == "idle"
    finally:
        for line in slow:
            line.close()


# Second tries, and what has not changed


def test_a_request_sent_twice_with_one_key_is_carried_out_once(here: Served, admin: httpx.Client) -> None:
    once = {"Idempotency-Key": "export-7"}
    first = admin.post("/runs/known/export", json={"format": "npz"}, headers=once)
    again = admin.post("/runs/known/export", json={"format": "npz"}, headers=once)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.headers["location"] == again.headers["location"]
    assert sum(task["id"] == first.json()["id"] for task in admin.get("/tasks").json()) == 1
    assert "another request" in refused(admin.post("/runs/known/export", json={}, headers=once), 422).detail
    refused(admin.post("/run", headers={"Idempotency-Key": "x" * 201}), 422)


# Setpoints that somebody else changed


def test_a_setpoint_for_a_device_that_changed_is_refused_with_what_changed(here: Served, admin: httpx.Client) -> None:
    path, wanted = "/devices/oxygen", {"flow_mol_per_s": 1e-7}
    known = {"If-Match": admin.get(path).headers["etag"]}
    assert admin.get(path).headers["etag"] == known["If-Match"]
    assert admin.post(f"{path}/setpoints", json=wanted, headers=known).status_code == 200
    admin.post(f"{path}:off").raise_for_status()
    answer = admin.post(f"{path}/setpoints", json={"flow_mol_per_s": 2e-7}, headers=known)
    told = refused(answer, 412)
    assert "nothing was sent" in told.detail
    assert told.changes is not None
    assert [change.split(" UTC ")[1] for change in told.changes] == ["flow_mol_per_s 1e-07", "off"]
    assert admin.get(path).headers["etag"] == answer.headers["etag"]
    again = {"If-Match": f'"other", {answer.headers["etag"]}'}
    assert admin.post(f"{path}/setpoints", json=wanted, headers=again).status_code == 200
    for passing in ({}, {"If-Match": "*"}):
        assert admin.post(f"{path}/setpoints", json=wanted, headers=passing).status_code == 200


def test_stop_all_counts_as_a_change_of_laser_and_gas(admin: httpx.Client) -> None:
    known = {name: admin.get(f"/devices/{name}").headers["etag"] for name in ("heater", "oxygen", "stage")}
    admin.post("/safe-state").raise_for_status()
    body, only_if = {"current_a": 0.0}, {"If-Match": known["heater"]}
    told = refused(admin.post("/devices/heater/setpoints", json=body, headers=only_if), 412)
    assert told.changes is not None and "safe state" in told.changes[-1]
    assert admin.get("/devices/oxygen").headers["etag"] != known["oxygen"]
    assert admin.get("/devices/stage").headers["etag"] == known["stage"]


def test_a_tag_of_another_start_or_device_never_matches(admin: httpx.Client) -> None:
    for wrong in ('"cafe-0"', "nonsense", 'W/"x"', "", '"a",' * 30):
        answer = admin.post("/devices/oxygen/setpoints", json={"flow_mol_per_s": 0.0}, headers={"If-Match": wrong})
        assert answer.status_code == (422 if wrong.count(",") > 20 else 412), answer.text


def test_an_answer_that_has_not_changed_is_not_sent_again(here: Served, admin: httpx.Client) -> None:
    listed = admin.get("/runs")
    again = admin.get("/runs", headers={"If-None-Match": listed.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    told = admin.get("/status").headers["etag"]
    wait_until(lambda: admin.get("/status").headers["etag"] != told, lambda: "a status that never changes")
    assert "etag" not in admin.get("/runs/nowhere").headers
