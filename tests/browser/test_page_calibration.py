"""The calibration wizard: runs chosen, errors watched as they shrink, what was found, accepted or discarded."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect


@pytest.fixture
def recording(page: Page, api: httpx.Client) -> str:
    """The id of a recorded run of three frames, chosen in the open wizard."""
    api.post("/run:stop").raise_for_status()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    run_id: str = api.post("/run", json={"frames": 3, "name": "still"}).raise_for_status().json()["run_id"]
    row = page.get_by_label("Recorded runs").get_by_role("listitem").filter(has=page.get_by_label(f"Replay {run_id}"))
    expect(row).to_contain_text("complete · 3 frames")
    page.locator("#calibration summary").click()
    page.get_by_label("Run 1 to calibrate on").select_option(run_id)
    return run_id


def test_frames_that_are_not_dark_are_refused_in_words(page: Page, recording: str) -> None:
    page.get_by_label("What run 1 shows").select_option("dark")
    page.get_by_role("button", name="Calibrate").click()
    message = page.get_by_label("Calibration message")
    expect(message).to_have_text(re.compile(r"of the dark frames shows a structure of \d+ counts, .* blank the beam"))
    expect(page.get_by_role("button", name="Calibrate")).to_be_enabled()


def test_a_candidate_that_nobody_decided_on_is_shown_again_and_discarded(page: Page) -> None:
    number = {"value": 180.2, "sigma": 0.12, "prior": 200.0, "prior_sigma": 50.0, "identifiable": True}
    record = {"parameters": {"dark_counts[1]": number}, "reduced_chi2": {}, "notes": [], "date": "2026-11-22T02:00:00"}
    made = {"id": "cd34", "state": "candidate", "calibration": record}
    page.route("**/api/v1/calibrations", lambda route: route.fulfill(json=[made]))

    def discard(route: Route) -> None:
        made["state"] = "discarded"
        route.fulfill(json=made)

    page.route("**/calibrations/cd34:discard", discard)
    page.locator("#calibration summary").click()
    expect(page.get_by_label("What the calibration found")).to_have_text("1 of 1 numbers are pinned by these runs.")
    expect(page.get_by_role("table", name="Numbers and their errors")).to_contain_text("dark 1180.20 ± 0.12 counts")
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_label("Calibration message")).to_have_text("discarded; it stays in the history")
    expect(page.get_by_label("Calibrations made").get_by_role("listitem")).to_have_text("2026-11-22 02:00 · discarded")
    expect(page.get_by_role("button", name="Discard")).to_be_hidden()


def step(number: int, sigma_deg: float) -> dict[str, Any]:
    named = {"rotation_deg": sigma_deg, "working_distance_m": 2e-4}
    return {"step": number, "values": {"rotation_deg": 31.0, "working_distance_m": 8e-3}, "sigmas": named}


def test_errors_are_watched_as_they_shrink_and_the_result_is_accepted(page: Page, recording: str) -> None:
    task: dict[str, Any] = {"id": "calibration-9", "kind": "calibration", "state": "running", "reason": ""}
    task |= {"done": 1, "total": 25, "result": {"step": step(0, 4.0) | {"reduced_chi2": {"still": 3.2}}}}
    asked: list[Any] = []

    def begin(route: Route) -> None:
        if route.request.method == "GET":
            route.fulfill(json=[])
            return
        asked.append(route.request.post_data_json)
        route.fulfill(status=202, json=task)

    page.route("**/api/v1/calibrations", begin)
    page.route("**/tasks/calibration-9", lambda route: route.fulfill(json=task))
    page.get_by_label("What run 1 shows").select_option("sample")
    page.get_by_role("button", name="Calibrate").click()
    expect(page.get_by_label("Calibration message")).to_contain_text("say what the sample of")
    page.get_by_label("Sample of run 1").fill("flat:tilt_x=10deg")
    page.get_by_role("button", name="Calibrate").click()
    table, message = (
        page.get_by_role("table", name="Numbers and their errors"),
        page.get_by_label("Calibration message"),
    )
    turned = table.get_by_role("row").filter(has_text="rotation")
    expect(turned).to_contain_text("31.0 ± 4.0°")
    expect(message).to_have_text("step 0 · still: χ² 3.20")
    assert asked == [{"runs": [recording], "samples": {recording: "flat:tilt_x=10deg"}}]
    task["result"] = {"step": step(1, 0.4) | {"reduced_chi2": {"still": 1.1}}}
    expect(turned).to_contain_text("31.00 ± 0.40°")
    assert turned.locator(".left span").evaluate("bar => bar.style.width") == "10%"
    numbers = {
        "rotation_deg": {"value": 31.0, "sigma": 0.2, "prior": 30.0, "prior_sigma": 4.0, "identifiable": True},
        "working_distance_m": {"value": 8e-3, "sigma": 2e-4, "prior": 8e-3, "prior_sigma": 2e-4, "identifiable": False},
    }
    record = {
        "parameters": numbers,
        "reduced_chi2": {"still": 1.02},
        "notes": ["converged"],
        "date": "2026-11-22T02:00",
    }
    task |= {"state": "done", "result": {"id": "ab12", "state": "candidate", "calibration": record}}
    found = page.get_by_label("What the calibration found")
    expect(found).to_have_text(
        re.compile(r"1 of 2 numbers are pinned by these runs; not working distance, .* χ² 1\.02")
    )
    expect(page.get_by_role("group", name="Accept or discard")).to_contain_text("next start of acquisition")
    told = {"id": "ab12", "from": "the next start of the acquisition program"}
    page.route("**/calibrations/ab12:accept", lambda route: route.fulfill(json=told))
    page.get_by_role("button", name="Accept").click()
    expect(message).to_have_text("accepted: it counts from the next start of the acquisition program on")


def test_what_stops_a_calibration_is_told_in_the_services_words(page: Page, recording: str) -> None:
    reason = "torch is not installed: install eclips-live with the extra `train`"
    task = {"id": "calibration-8", "kind": "calibration", "state": "failed", "reason": reason, "result": None}
    page.route(
        "**/api/v1/calibrations",
        lambda route: route.fulfill(status=202, json=task if route.request.method == "POST" else []),
    )
    page.get_by_role("button", name="Calibrate").click()
    expect(page.get_by_label("Calibration message")).to_have_text(reason)
    expect(page.get_by_role("button", name="Calibrate")).to_be_enabled()
