"""The plan on the page: what the settings of the frame that is shown can do, and for which step."""

from __future__ import annotations

import re

from playwright.sync_api import Page, Route, expect


def test_the_plan_answers_for_the_step_and_terrace_that_are_typed(page: Page) -> None:
    page.get_by_label("Plan in short").click()
    told = page.get_by_label("What a frame will show")
    expect(told).to_have_text(re.compile(r"A 2 nm step between 200 nm terraces shows at [\d.]+ sigma in one frame"))
    page.get_by_label("Planned step in nm").fill("5")
    page.get_by_label("Planned step in nm").press("Enter")
    expect(told).to_have_text(re.compile(r"A 5 nm step between 200 nm terraces"))
    expect(page.get_by_label("Plan in short")).to_have_text(re.compile(r"[\d.]+° a pixel"))
    expect(page.locator("#plan-figures")).to_contain_text("128 × 128 px")
    expect(page.get_by_label("What would be best to change")).to_contain_text("working distance 8 to 4.8 mm")


def test_a_length_that_is_none_is_refused_where_it_was_typed(page: Page) -> None:
    page.get_by_label("Plan in short").click()
    page.get_by_label("Width of the terraces in nm").fill("wide")
    page.get_by_label("Width of the terraces in nm").press("Enter")
    expect(page.get_by_label("Plan message")).to_have_text('terrace "wide" is no length in nm above 0')
    page.get_by_label("Width of the terraces in nm").fill("1")
    page.get_by_label("Width of the terraces in nm").press("Enter")
    expect(page.get_by_label("Plan message")).to_contain_text("narrower than 3 pixels")


def test_a_late_plan_does_not_wipe_a_refusal_away(page: Page) -> None:
    held: list[Route] = []
    page.route(re.compile(r"/api/v1/plan\?"), lambda route: held.append(route))
    with page.expect_request(re.compile(r"/api/v1/plan\?")):
        page.get_by_label("Plan in short").click()
    page.get_by_label("Width of the terraces in nm").fill("wide")
    page.get_by_label("Width of the terraces in nm").press("Enter")
    expect(page.get_by_label("Plan message")).to_have_text('terrace "wide" is no length in nm above 0')
    with page.expect_response(re.compile(r"/api/v1/plan\?")) as late:
        held[0].continue_()
    late.value.finished()
    expect(page.locator("#plan")).to_have_class(re.compile("old"))
    expect(page.get_by_label("Plan message")).to_have_text('terrace "wide" is no length in nm above 0')
