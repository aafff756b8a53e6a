"""The service's program dies and is started again: the page comes back by itself and says what it missed."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import httpx
import pytest
import zmq
from playwright.sync_api import Browser, Page, expect

from acquisition.control import ControlClient
from picture import fingerprint, wait_for_change
from programs import Program, wait_until
from service.settings import load_settings

PATIENCE_MS = 90_000


@pytest.fixture
def node(live_microscope: Program) -> Iterator[ControlClient]:
    """A line to the microscope's program that does not lead through the service."""
    settings, context = load_settings(live_microscope.runs.parent / "settings.toml"), zmq.Context[zmq.Socket[bytes]]()
    client = ControlClient(context, settings.stream.endpoints.control)
    yield client
    client.close()
    context.term()


@pytest.fixture
def watched(browser: Browser, service_url: str, api: httpx.Client) -> Iterator[Page]:
    """A page on a run that goes on. The browser itself logs each line that it cannot open, which is no error here."""
    if api.get("/status").json()["state"] == "acquiring":
        api.post("/run:stop").raise_for_status()
    api.post("/run", json={"record": False, "name": "restart"}).raise_for_status()
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    thrown: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: thrown.append(str(error)))
    page.goto(service_url)
    expect(page.get_by_label("Frame age")).to_contain_text("LIVE")
    expect(page.locator("#height-note")).to_contain_text("frame")
    yield page
    context.close()
    assert thrown == []


def test_a_page_outlives_its_service_and_says_what_it_missed(
    watched: Page, live_microscope: Program, node: ControlClient, api: httpx.Client
) -> None:
    run_id = api.get("/status").json()["run"]["run_id"]
    alert, killed = watched.get_by_role("alert"), live_microscope.children()["serve"]
    os.kill(killed, signal.SIGSTOP)  # so that nobody hears what happens meanwhile
    node.call("off", {"device": "heater"})
    os.kill(killed, signal.SIGKILL)
    expect(alert).to_contain_text("the connection to the service is lost since")
    expect(watched.get_by_label("Frame age")).to_contain_text("LOST")
    expect(alert).to_contain_text("connected again after")
    expect(alert).to_contain_text(re.compile(r"[1-9]\d* frames were taken meanwhile"))
    expect(alert).to_contain_text(re.compile(r"and [1-9]\d* that nobody heard"))
    expect(watched.get_by_label("Frame age")).to_contain_text("LIVE")
    height = watched.get_by_role("img", name="Height map", exact=True)
    wait_for_change(watched, height, fingerprint(height))
    wait_until(lambda: "serve" in live_microscope.children(), lambda: "the service was not started again")
    assert live_microscope.children()["serve"] != killed
    assert api.get("/status").json()["run"]["run_id"] == run_id
