"""A real browser on the real service. A page that asks for anything outside fails its test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_MS = 90_000
REFUSAL = "Failed to load resource"


@dataclass(slots=True)
class Heard:
    """What a page did that no page may do."""

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing = "Chromium is not installed (apt install chromium)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def api(service_url: str) -> Iterator[httpx.Client]:
    base, key = service_url.split("/?key=")
    with httpx.Client(base_url=base + "/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        yield client


@pytest.fixture
def page(browser: Browser, service_url: str, api: httpx.Client, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, signed in, with an unrecorded run going on, and without charts unless the test is marked `charts`.
    Fails for errors in the console and outside requests."""
    _run_live(api)
    heard, origin = Heard(), urlsplit(service_url).netloc

    def only_own_origin(sent: Request) -> None:
        asked = urlsplit(sent.url)
        if asked.scheme in ("http", "https") and asked.netloc != origin:
            heard.outside.append(sent.url)

    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    opened.on("request", only_own_origin)
    opened.on("pageerror", lambda error: heard.errors.append(str(error)))
    # The browser itself logs each request that the service refused; those refusals are what some tests are about.
    opened.on("console", lambda m: heard.errors.append(m.text) if m.type == "error" and REFUSAL not in m.text else None)
    if not request.node.get_closest_marker("charts"):
        # From the beginning: what a test answers itself later would else race with the page that asks.
        opened.route("**/plotly.min.js", lambda route: route.abort())
    opened.goto(service_url)
    expect(opened.get_by_label("Frame age")).to_contain_text("LIVE")
    expect(opened.get_by_label("Exaggeration of height").first).to_contain_text("z ×")
    # A browser throws away what is pressed before it has painted.
    opened.wait_for_function("performance.getEntriesByType('paint').length > 0")
    yield opened
    context.close()
    assert heard.outside == [], "the page asked for something outside the service"
    assert heard.errors == []


def _run_live(api: httpx.Client) -> None:
    """Whatever the test before left: end it, and acquire without recording."""
    status = api.get("/status").raise_for_status().json()
    if status["state"] == "fault":
        api.post("/run:reset").raise_for_status()
    if status["state"] == "acquiring":
        api.post("/run:stop").raise_for_status()
    api.post("/devices/heater:off").raise_for_status()
    api.post("/run", json={"record": False, "name": "watch"}).raise_for_status()
