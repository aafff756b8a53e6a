"""What the service measures on the frame that is shown: along the profile's line, with its uncertainty and reasons."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Response, Route, expect

from picture import drag, fingerprint, wait_for_change

SETTLED_MS = 2_000
"""While a line is drawn it is measured over and over; after this the last answer is that of the line as it lies."""


@pytest.fixture
def recorded(page: Page, api: httpx.Client) -> str:
    """The id of a recorded run of two frames whose last is shown."""
    api.post("/run:stop").raise_for_status()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    run_id: str = api.post("/run", json={"frames": 2, "name": "measured"}).raise_for_status().json()["run_id"]
    row = page.get_by_label("Recorded runs").get_by_role("listitem").filter(has=page.get_by_label(f"Replay {run_id}"))
    expect(row).to_contain_text("complete · 2 frames")
    expect(page.locator("#segments-note")).to_contain_text("frame 1 ")
    return run_id


def test_on_a_recorded_frame_the_service_measures_step_and_angles(page: Page, recorded: str) -> None:
    """Where the steps of the growing surface are by now nobody knows: what the service finds on the line, or why it
    finds none, is what the page says."""
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer) if "/profile?" in answer.url else None)
    drag(page, page.locator("#height .over"), (0.5, 0.1), (0.5, 0.6))
    figures, why = page.get_by_label("Step height"), page.get_by_label("What could not be measured")
    expect(figures).to_have_text(re.compile(r" frame 1$"))
    page.wait_for_timeout(SETTLED_MS)
    found = answers[-1].json()
    if found["step"] is None:
        expect(why).to_contain_text(found["reasons"]["step"])
    else:
        expect(figures).to_have_text(re.compile(r"^step -?[\d.]+ ± [\d.]+ (nm|µm) "))
        expect(figures).to_have_attribute("title", re.compile("rule: " + re.escape(found["step"]["rule"])))
    if edges_on_the_line(found):
        angles = page.get_by_label("Angles at the edges")
        told = r"^angle from the (images|height profile): [\d.]+( ± [\d.]+)?° (convex|concave) at [\d.]+ (nm|µm)"
        expect(angles).to_have_text(re.compile(told))
    elif "facet" in found["reasons"]:
        expect(why).to_contain_text(found["reasons"]["facet"])


def edges_on_the_line(found: dict[str, Any]) -> list[float]:
    """Where the answer has edges, in metres; a fit may have pushed one that it has no use for beyond the line."""
    if not found["fit"]:
        return [edge["edge_m"] for edge in found["edges"]]
    edges_m = [at * found["pixel_size_m"] for at in found["fit"]["edges_px"]]
    return [at for at in edges_m if 0 <= at <= found["distances_m"][-1]]


def measures(sigma_m: float | None, fit: dict[str, Any] | None, reasons: dict[str, str]) -> dict[str, Any]:
    part = {"narrow": False}
    edge = {"edge_m": 2e-7, "external_deg": 151.2, "sigma_deg": 0.4, "convex": True, "before": part, "behind": part}
    return {
        "distances_m": [0.0, 2e-7, 4e-7],
        "heights_m": [0.0, 0.0, 2e-9],
        "sigma_m": [sigma_m] * 3,
        "pixel_size_m": 2e-8,
        "step": None,
        "edges": [edge],
        "fit": fit,
        "reasons": reasons,
    }


def test_angles_say_whether_images_or_the_profile_gave_them_and_reasons_stand_beside(page: Page, recorded: str) -> None:
    faces = {"external_deg": [217.0], "external_sigma_deg": [0.12], "edges_px": [10.0], "reduced_chi2": 1.04}
    answers = [
        measures(None, faces | {"shadowed": False}, {"step": "too little of a flank is left"}),
        measures(None, None, {"fit": "a face is 1.2 pixels wide"}),
    ]
    page.route("**/profile?*", lambda route: route.fulfill(json=answers[0]))
    page.keyboard.press("p")
    angles, why = page.get_by_label("Angles at the edges"), page.get_by_label("What could not be measured")
    expect(angles).to_have_text("angle from the images: 143.00 ± 0.12° convex at 200 nm · χ² 1.04")
    expect(why).to_have_text("step: too little of a flank is left")
    answers.pop(0)
    page.get_by_label("Width of the profile in pixels").select_option("15")
    expect(angles).to_have_text("angle from the height profile: 151.20 ± 0.40° convex at 200 nm")
    expect(why).to_have_text("angle in the images: a face is 1.2 pixels wide")


def test_the_uncertainty_is_a_band_about_the_profile(page: Page, recorded: str) -> None:
    sigma_m: list[float | None] = [None]
    page.route("**/profile?*", lambda route: route.fulfill(json=measures(sigma_m[0], None, {})))
    page.keyboard.press("p")
    expect(page.get_by_label("Angles at the edges")).to_contain_text("angle")
    chart = page.locator("#profile")
    bare, sigma_m[0] = fingerprint(chart), 5e-9
    page.keyboard.press("p")
    page.keyboard.press("p")
    expect(page.get_by_label("Angles at the edges")).to_contain_text("angle")
    wait_for_change(page, chart, bare)


def test_an_unrecorded_run_is_measured_by_the_page_which_says_so(page: Page) -> None:
    page.keyboard.press("p")
    expect(page.get_by_label("Step height")).to_contain_text("this page's own fit")
    expect(page.get_by_label("What could not be measured")).to_contain_text("this run is not recorded")


def test_while_a_run_is_recorded_the_measurement_follows_its_frames(page: Page, api: httpx.Client) -> None:
    asked: list[str] = []

    def hear(route: Route) -> None:
        asked.append(route.request.url.split("/heights/")[1].split("/")[0])
        route.continue_()

    page.route("**/profile?*", hear)
    api.post("/run:stop").raise_for_status()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    api.post("/run", json={"name": "followed"}).raise_for_status()
    page.keyboard.press("p")
    told = page.get_by_label("Step height")
    expect(told).to_have_text(re.compile(r"frame \d+$"))
    first = told.inner_text().rsplit("frame ")[1]
    expect(told).not_to_have_text(re.compile(rf"frame {first}$"))
    expect(told).to_have_text(re.compile(r"frame \d+$"))
    assert len(set(asked)) > 1


def test_facets_of_the_shown_frame_are_told_and_numbered_on_the_height(page: Page, recorded: str) -> None:
    over = page.locator("#height .over")
    page.mouse.move(2, 2)
    bare = fingerprint(over)
    page.locator("#facets summary").click()
    expect(page.get_by_label("Facets found")).to_have_text(re.compile(r"^\d+ on frame 1$"))
    rows = page.get_by_role("table", name="Facets of the frame").get_by_role("row")
    expect(rows.nth(1)).to_have_text(re.compile(r"^1[\d.]+ ± [\d.]+°[\d.]+ ± [\d.]+°[\d.]+\{100\} top$"))
    wait_for_change(page, over, bare)
    page.get_by_label("Crystal").fill("cheese")
    page.get_by_label("Crystal").press("Enter")
    expect(page.get_by_label("What facets could not tell")).to_contain_text("cheese")
    expect(rows).to_have_count(0)
