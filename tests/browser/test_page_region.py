"""From the overview to a place in it, and back: drawn on an image, confirmed, and the old place is kept."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from picture import drag
from programs import wait_until

PIXELS = 128


def stage_m(api: httpx.Client) -> tuple[float, float]:
    readings = api.get("/devices/stage").json()["readings"]
    return readings["x_m"]["value"], readings["y_m"]["value"]


def field_m(api: httpx.Client) -> float:
    pixel_size_m: float = api.get("/calibration").json()["instrument"]["scan"]["pixel_size_m"]
    return PIXELS * pixel_size_m


def test_a_rectangle_becomes_the_centre_once_it_is_confirmed_and_back_returns(page: Page, api: httpx.Client) -> None:
    before, field = stage_m(api), field_m(api)
    page.get_by_role("button", name="Centre a place").click()
    drag(page, page.locator("#normals .over"), (0.55, 0.45), (0.65, 0.55))
    question = page.get_by_role("alertdialog", name="Confirm the move of the stage")
    expect(question).to_contain_text("a pixel would fill the frame")
    assert stage_m(api) == before
    question.get_by_role("button", name="Move there").click()
    message = page.get_by_label("Stage message")
    expect(message).to_have_text(re.compile("^reached "))
    box = page.locator("#normals .over").bounding_box()
    assert box is not None
    share = 0.1 * box["width"] / box["height"]  # the image is as high as its pane
    there = pytest.approx([before[0] + share * field, before[1]], abs=0.06 * field)
    wait_until(lambda: stage_m(api) == there, lambda: f"the stage stands at {stage_m(api)}, not {there}")
    page.get_by_role("button", name="Back", exact=True).click()
    expect(message).to_contain_text("reached")
    expect(page.get_by_role("button", name="Back", exact=True)).to_have_attribute("title", "no place was left yet")
    wait_until(lambda: stage_m(api) == pytest.approx(before, abs=0.06 * field), lambda: "the stage is not back")


def test_a_region_is_scanned_at_finer_pixels_and_back_restores_them(page: Page, api: httpx.Client) -> None:
    before, overview_m = stage_m(api), field_m(api) / PIXELS
    page.get_by_role("button", name="Centre a place").click()
    drag(page, page.locator("#normals .over"), (0.45, 0.45), (0.55, 0.65))
    page.get_by_role("alertdialog", name="Confirm the move of the stage").get_by_role("button", name="Scan it").click()
    message = page.get_by_label("Stage message")
    expect(message).to_have_text(re.compile("^reached .* a pixel$"))
    finer = pytest.approx(0.2 * overview_m, rel=0.1)
    wait_until(lambda: field_m(api) / PIXELS == finer, lambda: f"pixels of {field_m(api) / PIXELS} m")
    page.get_by_role("button", name="Back", exact=True).click()
    expect(page.get_by_role("button", name="Back", exact=True)).to_have_attribute("title", "no place was left yet")
    wait_until(lambda: field_m(api) / PIXELS == overview_m, lambda: f"pixels of {field_m(api) / PIXELS} m")
    back = pytest.approx(before, abs=0.06 * PIXELS * overview_m)
    wait_until(lambda: stage_m(api) == back, lambda: "the stage is not back")


def test_a_click_on_a_segment_centres_it_and_does_not_zoom(page: Page, api: httpx.Client) -> None:
    before = stage_m(api)
    page.get_by_role("button", name="Centre a place").click()
    page.locator("#segments .over").first.click(position={"x": 20, "y": 20})
    question = page.get_by_role("alertdialog", name="Confirm the move of the stage")
    expect(question).to_contain_text("Move the stage by -")
    expect(page.get_by_role("button", name="Segment B")).to_be_visible()
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_be_hidden()
    assert stage_m(api) == before


def test_no_place_is_chosen_on_a_held_picture(page: Page) -> None:
    page.keyboard.press("Space")
    button = page.get_by_role("button", name="Centre a place")
    expect(button).to_be_disabled()
    expect(button).to_have_attribute("title", re.compile("lift the freeze first"))
