"""Requests made from the schema, and requests made to harm: each is carried out or refused as the schema says, with a
reason a program can read; never a failure, and nothing without the key."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks
from starlette.routing import BaseRoute, Route, WebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from hostile import values
from programs import wait_until, write_settings
from recordings import ROUNDS, finish, record
from service.app import create_app
from service.problems import MEDIA_TYPE, Problem
from service.settings import load_settings
from service_here import KEY, Served, served

PUBLIC = {"/api/v1/health", "/assets/plotly.min.js", "/page"}
"""All that answers without a key: a sign of life, and the files that the page is made of."""
APP = create_app(load_settings(), KEY)
SCHEMA = schemathesis.openapi.from_dict(APP.openapi())
MOST_PX = 48
REQUESTS = 200 if ROUNDS < 100 else 100 * ROUNDS
NAMES = ("run_id", "sequence", "name", "alarm_id", "id")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fuzzed")
    for name in ("known", "damaged"):
        finish(record(folder / "runs" / name, 3, [0, 2]))
    (folder / "runs" / "damaged" / "run.json").write_text("{")
    with served(write_settings(folder, 32)) as service:
        yield service


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        yield made


@pytest.fixture(scope="module")
def client(here: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=here.base_url, headers=here.headers, timeout=60) as made:
        yield made


def assert_problem(answer: Any) -> None:
    """An error as documented: its media type, its fields, its own status in it."""
    media_type = answer.headers["content-type"]
    assert (media_type if isinstance(media_type, str) else media_type[0]) == MEDIA_TYPE
    told = Problem.model_validate_json(answer.content)
    assert told.status == answer.status_code
    assert told.detail


def assert_sound(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert_problem(answer)


def with_known_names(case: schemathesis.Case, number: int) -> None:
    """Every other request names things that are there, so that more than the door is tried."""
    names = {"run_id": "known", "name": ("heater", "stage", "oxygen", "viridis", "gray")[number % 5], "sequence": 2}
    for parameter in case.path_parameters or {}:
        if parameter in names and number % 2:
            case.path_parameters[parameter] = names[parameter]
    if isinstance(case.body, dict) and "run" in case.body and number % 2:
        case.body["run"] = "known"


def kept_small(case: schemathesis.Case) -> None:
    """Frames of a size that a test machine simulates in no time."""
    if isinstance(case.body, dict):
        for side in ("width_px", "height_px"):
            if isinstance(case.body.get(side), int | float) and case.body[side] > MOST_PX:
                case.body[side] = MOST_PX


def _cases() -> st.SearchStrategy[schemathesis.Case]:
    """Requests that keep to the schema, and for every operation that has anything to get wrong, such that do not."""
    operations = [found.ok() for found in SCHEMA.get_all_operations()]
    wrong = [operation for operation in operations if operation.body or "{" in operation.path or operation.query]
    return st.one_of(operation.as_strategy() for operation in operations) | st.one_of(
        operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE) for operation in wrong
    )


@pytest.mark.soak
@settings(max_examples=REQUESTS, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=_cases(), number=st.integers(0, 9))
def test_every_generated_request_is_answered_as_the_schema_says(
    case: schemathesis.Case, number: int, here: Served, session: requests.Session
) -> None:
    with_known_names(case, number)
    kept_small(case)
    answer = case.call(base_url=here.base_url, session=session, headers=here.headers, timeout=60)
    assert_sound(answer)
    case.validate_response(
        answer,
        checks=[
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_headers_conformance,
            checks.response_schema_conformance,
        ],
    )


# Who may come in


def _routes(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[tuple[str, BaseRoute]]:
    for route in routes:
        # FastAPI keeps what it includes as it is since 0.130, and as copies before.
        included = getattr(route, "original_router", None)
        if included is None:
            yield prefix + getattr(route, "path", ""), route
        else:
            yield from _routes(included.routes, prefix + route.include_context.prefix)  # type: ignore[attr-defined]


ROUTES = list(_routes(APP.routes))
SOCKETS = [path for path, route in ROUTES if isinstance(route, WebSocketRoute)]
DOORS = [
    (method, path)
    for path, route in ROUTES
    if isinstance(route, Route) and path not in PUBLIC
    for method in sorted(route.methods or ())
]
"""Every method of every route that is not public."""


def test_what_is_public_is_what_is_said_to_be() -> None:
    assert {path for path, route in ROUTES if not isinstance(route, Route | WebSocketRoute)} == {"/page"}
    assert {path for _, path in DOORS} | PUBLIC - {"/page", "/assets/plotly.min.js"} == {
        *APP.openapi()["paths"],
        "/",
        "/api/v1/openapi.json",
    }
    assert SOCKETS == ["/api/v1/status", "/api/v1/live"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Cookie": f"eclips_key={KEY[:-1]}"},
    ],
)
def test_without_the_key_no_route_answers(here: Served, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=here.base_url, headers=headers, timeout=60) as stranger:
        for method, path in DOORS:
            answer = stranger.request(method, path.format(**dict.fromkeys(NAMES, "1")))
            assert (method, path, answer.status_code) == (method, path, 401)
            assert_problem(answer)
        for path in PUBLIC - {"/page"}:
            assert stranger.get(path).status_code == 200
        assert stranger.get("/page/index.html").status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://[", "http://127.0.0.1:1"])
def test_pages_of_other_origins_are_refused_at_every_route(here: Served, origin: str) -> None:
    with httpx.Client(base_url=here.base_url, headers=here.headers | {"Origin": origin}, timeout=60) as foreign:
        for method, path in DOORS:
            if path != "/":
                answer = foreign.request(method, path.format(**dict.fromkeys(NAMES, "1")))
                assert (method, path, answer.status_code) == (method, path, 403)
                assert_problem(answer)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Origin": "http://evil.example"}])
def test_no_socket_opens_without_the_key_or_to_another_origin(here: Served, headers: dict[str, str]) -> None:
    offered = here.headers | headers if "Origin" in headers else headers
    for path in SOCKETS:
        with pytest.raises(InvalidStatus) as refused, socket(here, path, offered):
            pass
        assert refused.value.response.status_code == (403 if "Origin" in headers else 401)


# Requests made to harm


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/nowhere", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
        ("DELETE", "/api/v1/runs", 405),
        ("PATCH", "/api/v1/run", 405),
        ("GET", "/api/v1/run", 405),
        ("GET", "/api/v1/colormaps/%00", 422),
        ("GET", "/api/v1/colormaps/%ff%fe", 422),
        ("GET", "/api/v1/runs/" + "x" * 5000, 422),
        ("GET", "/api/v1/runs/" + "%f0%9f%92%a5" * 100, 422),
        ("GET", "/api/v1/runs/%00", 422),
        ("GET", "/api/v1/runs/..%5c..", 422),
        ("GET", "/api/v1/runs/damaged", 422),
        ("GET", "/api/v1/runs/known/frames/" + "9" * 4000, 422),
        ("GET", "/api/v1/runs/known/frames/" + "9" * 5000, 422),
        ("GET", "/api/v1/runs/known/frames/-1", 422),
        ("GET", "/api/v1/runs/known/heights/1", 422),
        ("GET", "/api/v1/trends?seconds=nan", 422),
        ("GET", "/api/v1/trends?seconds=inf", 422),
        ("GET", "/api/v1/devices/" + "x" * 20_000, 409),
        ("POST", "/api/v1/devices/" + "x" * 20_000 + ":off", 409),
        ("POST", "/api/v1/alarms/" + "x" * 20_000 + ":acknowledge", 409),
        *(
            ("GET", f"/api/v1/plan?{query}", 422)
            for number in ("nan", "inf", "-inf", "-1", "0", "1e400")
            for query in (f"dose={number}", f"terrace_m={number}&step_m=1e-9", f"terrace_m=1e-7&step_m={number}")
        ),
        ("GET", "/api/v1/plan?terrace_m=1e-7", 422),
        ("GET", "/api/v1/plan?width_px=8193", 422),
    ],
)
def test_a_request_for_what_is_not_there_is_refused(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    assert_problem(answer)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("dose", ["5e-324", "1e-3", "1e9"])
@pytest.mark.parametrize("step", ["1e-12", "0.1", "1e300"])
def test_a_plan_for_any_dose_and_step_is_made_or_refused(client: httpx.Client, dose: str, step: str) -> None:
    for terrace in ("1e-12", "1e-7", "0.1"):
        assert_sound(client.get(f"/api/v1/plan?dose={dose}&terrace_m={terrace}&step_m={step}&width_px=16"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"notes": "\xff"}',
        b'{"\\ud800": 1}',
        b'{"notes": "\\ud800"}',
        b'{"run": "\\ud800"}',
        b'{"run": "\\u0000"}',
        b'{"run": "' + b"x" * 900 + b'"}',
        b'{"run": "known", "first": 99}',
        b'{"run": "known", "speed": "nan"}',
        b'{"run": "damaged"}',
        b'{"values": {"\\ud800": 1}}',
        b'{"position": 1' + b"0" * 30 + b"}",
        b'{"position": 1' + b"0" * 5000 + b"}",
        b'{"frames": NaN}',
        b'{"frames": -1, "name": 7}',
        b'{"current_a": Infinity}',
        b'{"current_a": NaN}',
        b'{"current_a": 1e999}',
        b'{"current_a": "1e3"}',
        b'{"x_m": NaN, "y_m": 0, "z_m": -Infinity}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"{" + b",".join(b'"%d": 1' % n for n in range(20_000)) + b"}",
        b'"' + b"x" * 1_000_000 + b'"',
    ],
)
def test_a_body_that_cannot_be_is_refused_by_every_route_that_takes_one(client: httpx.Client, body: bytes) -> None:
    for path in ("/run", "/replay", "/replay:seek", "/devices/heater/setpoints", "/devices/stage/setpoints"):
        if path == "/run" and body in (b"", b"null"):
            continue
        for kind in ("application/json", "multipart/form-data"):
            answer = client.post(f"/api/v1{path}", content=body, headers={"Content-Type": kind})
            assert 400 <= answer.status_code < 500, (path, answer.text)
            assert_problem(answer)
            assert len(answer.content) < 10_000


@pytest.mark.parametrize(
    "accept", ["", "*/*", "nonsense", "image/*;q=0.1", "text/html", "x" * 5000, "image/png, image/tiff", "\xe9"]
)
def test_any_wish_for_a_picture_is_answered_with_one_or_refused(client: httpx.Client, accept: str) -> None:
    answer = client.get("/api/v1/runs/known/heights/2", headers=[(b"Accept", accept.encode("latin-1"))])
    assert_sound(answer)
    assert answer.status_code in (200, 422)


def test_a_damaged_run_hides_no_other(client: httpx.Client) -> None:
    listed = {run["run_id"]: run for run in client.get("/api/v1/runs").raise_for_status().json()}
    assert listed["known"]["frames"] == 3
    assert listed["damaged"]["status"] == "damaged"
    assert "eclips repair" in listed["damaged"]["reason"]
    assert set(listed["damaged"]) == set(listed["known"])


def test_the_schema_is_told_to_whoever_has_the_key(client: httpx.Client) -> None:
    told = client.get("/api/v1/openapi.json").raise_for_status().json()
    assert told == json.loads(json.dumps(APP.openapi()))


# Sockets


def socket(here: Served, path: str, headers: dict[str, str] | None = None) -> ClientConnection:
    address = here.base_url.replace("http", "ws", 1) + path
    return connect(address, additional_headers=here.headers if headers is None else headers, open_timeout=60)


@pytest.fixture(scope="module")
def frames_come(here: Served, client: httpx.Client) -> None:
    """A run is under way and the service has a frame of it."""
    answer = client.post("/api/v1/run", json={"record": False})
    assert answer.status_code in (201, 409)
    wait_until(lambda: client.get("/api/v1/status").json()["state"] == "acquiring", lambda: "no run")


wishes = (
    st.fixed_dictionaries(
        {},
        optional={
            "layers": st.lists(st.sampled_from(["segments", "height", "sigma", "", "x" * 100]), max_size=10),
            "max_px": st.integers(0, 5000),
        },
    ).map(json.dumps)
    | values.filter(lambda value: not isinstance(value, bytes)).map(lambda value: json.dumps(value, default=str))
    | st.text(max_size=50)
    | st.binary(max_size=50)
    | st.sampled_from(["[" * 50_000, "x" * 70_000, '{"layers": null}', '{"max_px": 1e3}', "{}", b"{}", b"\xff"])
)


@pytest.mark.soak
@settings(max_examples=8 * ROUNDS, deadline=None, suppress_health_check=list(HealthCheck))
@given(wishes)
def test_any_wish_to_the_live_socket_is_answered_or_closed_with_a_reason(
    here: Served, frames_come: None, wish: str | bytes
) -> None:
    with socket(here, "/api/v1/live") as live:
        try:
            live.send(wish)
            message = live.recv(timeout=60)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None and closed.rcvd.code in (1007, 1009), closed
            return
    assert isinstance(message, bytes)
    (length,) = struct.unpack("<I", message[:4])
    header = json.loads(message[4 : 4 + length])
    for layer in header["layers"]:
        assert max(layer["shape"]) <= MOST_PX and min(layer["shape"]) > 0


@pytest.mark.parametrize("message", ["", "{}", b"", b"\xff", "x" * 60_000])
def test_whatever_is_sent_to_the_status_socket_it_goes_on_telling(here: Served, message: str | bytes) -> None:
    with socket(here, "/api/v1/status") as status:
        status.send(message)
        kinds = {json.loads(status.recv(timeout=60))["kind"] for _ in range(3)}
    assert "status" in kinds
