"""Report and tracking from the list of recordings: with progress, and what they give."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect


@pytest.fixture
def recording(page: Page, api: httpx.Client) -> str:
    """The id of a recorded run of three frames with their heights, with nothing going on any more."""
    api.post("/run:stop").raise_for_status()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    run_id: str = api.post("/run", json={"frames": 3, "name": "report"}).raise_for_status().json()["run_id"]
    row = page.get_by_label("Recorded runs").get_by_role("listitem").filter(has=page.get_by_label(f"Replay {run_id}"))
    expect(row).to_contain_text("complete · 3 frames")
    return run_id


def test_the_report_is_one_html_page_that_names_its_run(page: Page, recording: str, tmp_path: Path) -> None:
    with page.expect_download() as saving:
        page.get_by_role("button", name=f"Report {recording}").click()
    assert saving.value.suggested_filename == f"{recording}-report.html"
    saving.value.save_as(tmp_path / "report.html")
    assert f"<title>{recording}</title>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    expect(page.get_by_label(f"Report message of {recording}")).to_have_text(re.compile(r"^html · \d"))


def test_tracking_tells_drift_velocity_and_spirals_and_is_kept(page: Page, recording: str, api: httpx.Client) -> None:
    page.get_by_role("button", name=f"Track {recording}", exact=True).click()
    told = page.get_by_label(f"Track message of {recording}")
    found = re.compile(r"^drift [\d.]+ ± [\d.]+ nm over 3 frames · step velocity .* · (no spirals|\d+ spirals?: )")
    expect(told).to_have_text(found)
    page.reload()
    tracked = len([task for task in api.get("/tasks").json() if task["kind"] == "track"])
    page.get_by_role("button", name=f"Track {recording}", exact=True).click()
    expect(told).to_have_text(found)
    assert len([task for task in api.get("/tasks").json() if task["kind"] == "track"]) == tracked
    page.get_by_role("button", name=f"Track {recording} again").click()
    expect(told).to_have_text(found)
    expect(page.get_by_role("button", name=f"Track {recording} again")).to_be_visible()


def test_a_run_that_cannot_be_tracked_says_why(page: Page, recording: str) -> None:
    task = {"id": "track-66", "kind": "track", "state": "failed", "reason": "2 frames are too few", "result": None}
    page.route("**/runs/*:track", lambda route: route.fulfill(status=202, json=task))
    page.get_by_role("button", name=f"Track {recording}", exact=True).click()
    expect(page.get_by_label(f"Track message of {recording}")).to_have_text("2 frames are too few")
