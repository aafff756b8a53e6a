"""Model sets on the page: what their cards say, another one in use, back again, one beside another."""

from __future__ import annotations

import re
from typing import Any

import httpx
from playwright.sync_api import Page, Route, expect

CARD = {"version": "1", "description": "", "parts": {"slopes": {"figures": {}}, "rerender": {"figures": {}}}}
LEARNED = {"slopes": {"figures": {"error_deg": 2.04}}, "rerender": {"figures": {"rms_pct": 0.33}}}


class Choice:
    """A service that can change its model set, beside the real one."""

    def __init__(self, page: Page) -> None:
        self.active, self.before, self.asked = "classical", "", list[Any]()
        page.route("**/api/v1/models", lambda route: route.fulfill(json=self.sets()))
        page.route("**/models:use", self.use)
        page.route("**/models:rollback", self.use)
        page.reload()
        page.get_by_label("Model set in use").click()

    def sets(self) -> list[dict[str, Any]]:
        cards = [CARD | {"name": "classical"}, CARD | {"name": "unet", "parts": LEARNED}]
        return [card | {"in_use": card["name"] == self.active, "before": card["name"] == self.before} for card in cards]

    def use(self, route: Route) -> None:
        body = route.request.post_data_json or {}
        self.asked.append((route.request.url.rsplit("/", 1)[1], body))
        self.active, self.before = body.get("name", self.before), self.active
        route.fulfill(json={"active": self.active, "before": self.before})


def test_another_set_is_used_and_rolled_back(page: Page) -> None:
    choice, sets = Choice(page), page.get_by_label("Installed model sets").get_by_role("listitem")
    expect(sets.filter(has_text="unet")).to_contain_text("slopes ± 2.0° · re-renders to 0.33 % of flat")
    expect(page.get_by_role("button", name="Use classical")).to_have_attribute("title", "this set is in use")
    expect(page.get_by_role("button", name="Roll back")).to_be_disabled()
    page.get_by_role("button", name="Use unet").click()
    expect(page.get_by_label("Models message")).to_have_text("in use: unet")
    expect(sets.filter(has_text="unet")).to_contain_text("in use")
    expect(sets.filter(has_text="classical")).to_contain_text("before")
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_label("Models message")).to_have_text("in use: classical")
    assert choice.asked == [("models:use", {"name": "unet"}), ("models:rollback", {})]


def test_a_set_that_cannot_be_loaded_is_told_in_the_services_words(page: Page) -> None:
    Choice(page)
    refusal = {"status": 422, "detail": "unet: slopes.onnx is not what its card says; nothing was changed"}
    page.route("**/models:use", lambda route: route.fulfill(status=422, json=refusal))
    page.get_by_role("button", name="Use unet").click()
    expect(page.get_by_label("Models message")).to_have_text(str(refusal["detail"]))
    expect(page.get_by_role("button", name="Use unet")).to_be_enabled()


def test_sets_are_compared_on_the_recorded_frame_that_is_shown(page: Page) -> None:
    Choice(page)
    asked: list[Any] = []
    made = {"chi2": 0.45, "seconds": 0.02, "accuracy": {"slope_error_deg": 3.2, "height_error_m": 4e-9}}
    result = {"sets": {"classical": made, "unet": made | {"accuracy": None}}, "apart_m": {"classical unet": 2.5e-9}}
    task = {"id": "compare-5", "kind": "compare", "state": "running", "done": 1, "total": 2, "result": None}

    def begin(route: Route) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(status=202, json=task)

    page.route("**/models:compare", begin)
    page.route("**/tasks/compare-5", lambda route: route.fulfill(json=task | {"state": "done", "result": result}))
    expect(page.get_by_label("Frame age")).to_contain_text("LIVE")
    page.get_by_role("button", name="Compare").click()
    table = page.get_by_role("table", name="Sets compared")
    expect(table).to_contain_text("classical and unet 2.5 nm apart")
    expect(table.get_by_role("row").filter(has_text="20.0 ms").first).to_contain_text("3.2°")
    assert asked[0]["names"] == ["classical", "unet"]
    expect(page.get_by_label("Models message")).to_have_text(re.compile(f"of {asked[0]['run_id']}$"))


def test_a_service_that_cannot_change_sets_says_how_it_is_done(page: Page) -> None:
    page.route("**/api/v1/models", lambda route: route.fulfill(json=[CARD | {"name": "classical"}]))
    page.reload()
    page.get_by_label("Model set in use").click()
    expect(page.get_by_label("Why the model set cannot be changed")).to_contain_text("[inference] model")
    expect(page.get_by_role("button", name="Roll back")).to_be_hidden()


def test_the_page_reads_the_cards_as_the_service_tells_them(page: Page, api: httpx.Client) -> None:
    page.get_by_label("Model set in use").click()
    for card in api.get("/models").json():
        expect(page.get_by_label("Installed model sets")).to_contain_text(card["name"])
