"""The live panes: they draw, they change, they can be held, and each image says what lies under the pointer."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from picture import colours, fingerprint, wait_for_change

IMAGES = ["Height map", "Normals", "Residual, sigma or fusion", "Segment A", "Segment D"]


@pytest.mark.parametrize("label", IMAGES)
def test_every_image_is_drawn_and_follows_the_frames(page: Page, label: str) -> None:
    image = page.get_by_role("img", name=label, exact=True)
    before = fingerprint(image)
    wait_for_change(page, image, before)
    assert colours(image) > 16


def test_relief_follows_the_frames(page: Page) -> None:
    relief = page.get_by_role("img", name="Relief of the height map")
    assert colours(relief) > 16
    wait_for_change(page, relief, fingerprint(relief))


def test_freeze_holds_the_pictures_until_it_is_lifted(page: Page) -> None:
    segment = page.get_by_role("img", name="Segment A", exact=True)
    page.keyboard.press("Space")
    expect(page.get_by_label("Frame age")).to_contain_text("FROZEN")
    held = fingerprint(segment)
    frames = page.get_by_label("Run state").inner_text()
    expect(page.get_by_label("Run state")).not_to_have_text(frames)
    assert fingerprint(segment) == held
    page.keyboard.press("Space")
    wait_for_change(page, segment, held)


def test_segments_say_their_electrons_and_saturation(page: Page) -> None:
    caption = page.get_by_role("button", name="Segment A")
    expect(caption).to_contain_text("e⁻")
    expect(caption).to_contain_text("sat 0.00 %")
    expect(page.locator("#segments-note")).to_have_text(re.compile(r"histograms to [\d.]+ %"))
    assert colours(page.locator("#segments .over").first) > 2


def test_click_on_a_segment_makes_it_fill_the_pane(page: Page) -> None:
    page.get_by_role("button", name="Segment B").click()
    expect(page.get_by_role("button", name="Segment A")).to_be_hidden()
    page.get_by_role("button", name="Segment B").click()
    expect(page.get_by_role("button", name="Segment A")).to_be_visible()


def test_probe_tells_height_slope_normal_and_counts(page: Page) -> None:
    page.locator("#height .over").hover()
    probe = page.get_by_label("Probe")
    for quantity in ("height", "slope", "normal", "residual", "sigma", "counts"):
        expect(probe).to_contain_text(quantity)
    expect(probe).to_contain_text("nm")


def test_cursor_is_linked_across_images_relief_and_profile(page: Page) -> None:
    page.keyboard.press("p")
    page.keyboard.press("Space")
    marks = [page.locator(where) for where in ("#normals .over", "#trust .over", "#segments .over >> nth=0")]
    marks += [page.locator("#relief-over"), page.locator("#profile")]
    without = [fingerprint(mark) for mark in marks]
    page.locator("#height .over").hover()
    assert all(fingerprint(mark) != before for mark, before in zip(marks, without, strict=True))
    page.locator("#trends").hover()
    assert [fingerprint(mark) for mark in marks] == without


@pytest.mark.parametrize("pane", ["#profile", "#relief"])
def test_the_pointer_on_profile_and_relief_is_a_place_in_the_images(page: Page, pane: str) -> None:
    page.keyboard.press("p")
    page.keyboard.press("Space")
    image = page.locator("#normals .over")
    without = fingerprint(image)
    page.locator(pane).hover()
    expect(page.get_by_label("Probe")).to_contain_text("height")
    assert fingerprint(image) != without


def test_bar_tells_dose_temperature_pressure_and_provider(page: Page) -> None:
    dose = page.get_by_label("Dose")
    expect(dose).to_contain_text("e/nm²")
    before = dose.inner_text()
    expect(dose).not_to_have_text(before)
    expect(page.get_by_label("Temperature", exact=True)).to_contain_text("°C")
    expect(page.get_by_label("Pressure", exact=True)).to_contain_text("Pa")
    expect(page.get_by_label("Inference provider")).to_have_text("CPU")
    expect(page.get_by_label("Share of pixels rejected")).to_contain_text("% rejected")


def test_without_charts_the_rest_of_the_page_goes_on_and_says_so(page: Page) -> None:
    expect(page.locator("#trends")).to_have_text("the charts could not be loaded: reload the page")
    expect(page.get_by_label("Frame age")).to_contain_text("LIVE")


@pytest.mark.charts
def test_trends_are_drawn_on_one_time_axis(page: Page) -> None:
    expect(page.locator("#trends .js-plotly-plot, #trends.js-plotly-plot")).to_be_visible()
    for quantity in ("temperature", "pressure", "flow", "laser", "residual"):
        expect(page.locator("#trends")).to_contain_text(quantity)
