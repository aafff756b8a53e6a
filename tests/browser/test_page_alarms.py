"""What goes wrong is seen, stays until it is acknowledged, and says its way out; a lost line comes back by itself.

The states of a lab that a simulated one cannot be brought into from outside are put into the status messages.
"""

from __future__ import annotations

import json
import re

from playwright.sync_api import Page, Route, WebSocketRoute, expect

ALARM = {
    "id": "device-gauge",
    "raised_utc_ns": 1_700_000_000_000_000_000,
    "severity": "alarm",
    "text": "gauge is not answering: no reply within 1 s",
    "way_out": "check cable, power and port",
    "active": True,
    "acknowledged": False,
}


def with_status(page: Page, change: dict[str, object]) -> None:
    """Reload with `change` put into every status that the service sends."""

    def between(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            tree = json.loads(message)
            socket.send(json.dumps(tree | change) if tree["kind"] == "status" else message)

        server.on_message(pass_on)

    page.route_web_socket(re.compile("/api/v1/status"), between)
    page.reload()


def test_an_alarm_shows_in_bar_and_banner_and_says_what_to_do(page: Page) -> None:
    with_status(page, {"alarms": [ALARM]})
    expect(page.get_by_role("button", name="ALARMS (1)")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("check cable, power and port")
    page.get_by_role("button", name="ALARMS (1)").click()
    entry = page.get_by_label("Standing alarms")
    expect(entry).to_contain_text("gauge is not answering")
    expect(entry).to_contain_text("What to do: check cable, power and port")


def test_acknowledging_is_sent_to_the_service_by_the_alarms_name(page: Page) -> None:
    asked: list[str] = []

    def note(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json={})

    page.route("**/alarms/*", note)
    with_status(page, {"alarms": [ALARM]})
    page.get_by_role("button", name="ALARMS (1)").click()
    with page.expect_response("**/alarms/*"):
        page.get_by_role("button", name="Acknowledge device-gauge").click()
    assert [url.rsplit("/", 1)[1] for url in asked] == ["device-gauge:acknowledge"]


def test_a_locked_heater_says_which_interlock_and_which_limit(page: Page) -> None:
    reason = "1350 K is above 1300 K (interlocks.temperature_max_k)"
    bad = {"name": "temperature below its limit", "good": False, "reason": reason}
    with_status(page, {"interlocks": {"permit": False, "inputs": [bad], "operator_countdown_s": None}})
    expect(page.get_by_role("button", name="Arm", exact=True)).to_be_disabled()
    expect(page.get_by_label("Why the heater is locked")).to_have_text(f"temperature below its limit: {reason}")
    expect(page.get_by_role("button", name="OFF", exact=True)).to_be_enabled()


def test_a_lost_line_is_told_and_comes_back_by_itself(page: Page) -> None:
    lines: list[WebSocketRoute] = []

    def between(socket: WebSocketRoute) -> None:
        lines.append(socket)
        socket.connect_to_server()

    page.route_web_socket(re.compile("/api/v1/status"), between)
    page.reload()
    expect(page.get_by_label("Run state")).to_contain_text("acquiring")
    lines[-1].close(code=1012, reason="restart")
    expect(page.get_by_role("alert")).to_contain_text("connected again")
    expect(page.get_by_role("alert")).to_contain_text("events missed")


def test_frames_that_stop_turn_the_age_into_a_warning(page: Page) -> None:
    page.route_web_socket(re.compile("/api/v1/live"), lambda socket: None)
    page.reload()
    expect(page.get_by_label("Frame age")).to_contain_text("STALE")
    expect(page.get_by_label("Frame age")).to_have_class(re.compile("warn"))
