"""Two browsers at one microscope: one drives, the other looks on and is told why; stopping belongs to both."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect


@pytest.fixture
def other(browser: Browser, page: Page, service_url: str) -> Iterator[Page]:
    """A second browser, which looks at the same microscope as `page`; nobody drives at first and at last."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    opened.goto(service_url)
    expect(drives(opened)).to_have_text("nobody drives")
    yield opened
    for one in (page, opened):
        if one.get_by_role("button", name="Let go").is_visible():
            one.get_by_role("button", name="Let go").click()
            expect(drives(one)).to_have_text("nobody drives")
    context.close()


def drives(page: Page) -> Locator:
    return page.get_by_role("status", name="Who drives")


def take_control(page: Page, name: str) -> None:
    page.get_by_role("button", name="Take control").click()
    page.get_by_label("Your name").fill(name)
    page.get_by_role("dialog", name="Take control").get_by_role("button", name=re.compile("^Take")).click()
    expect(drives(page)).to_have_text("you drive")


def test_one_drives_and_the_other_is_told_who(page: Page, other: Page) -> None:
    take_control(page, "Anna")
    expect(drives(other)).to_have_text("driven by Anna")
    for control in ("Stop", "Arm", "Move", "Set hydrogen"):
        button = other.get_by_role("button", name=control, exact=True).first
        expect(button).to_be_disabled()
        expect(button).to_have_attribute("title", "driven by Anna: take control first")
    expect(other.get_by_label("Why the heater is locked")).to_have_text("driven by Anna: take control first")
    expect(page.get_by_role("button", name="Move")).to_be_enabled()
    page.get_by_role("button", name="Let go").click()
    expect(drives(other)).to_have_text("nobody drives")
    expect(other.get_by_role("button", name="Move")).to_be_enabled()


def test_control_is_taken_over_only_after_it_is_confirmed_and_the_driver_is_told(page: Page, other: Page) -> None:
    take_control(page, "Anna")
    expect(drives(other)).to_have_text("driven by Anna")
    other.get_by_role("button", name="Take control").click()
    dialog = other.get_by_role("dialog", name="Take control")
    expect(dialog).to_contain_text("Anna has driven since")
    dialog.get_by_role("button", name="Cancel").click()
    expect(drives(page)).to_have_text("you drive")
    take_control(other, "Ben")
    expect(page.get_by_role("alert")).to_contain_text("Ben took control")
    expect(page.get_by_role("button", name="Move")).to_be_disabled()


def test_who_looks_on_can_stop_all_and_switch_off(page: Page, other: Page) -> None:
    take_control(page, "Anna")
    expect(drives(other)).to_have_text("driven by Anna")
    for control in ("OFF", "hydrogen off"):
        expect(other.get_by_role("button", name=control, exact=True)).to_be_enabled()
    other.get_by_role("button", name="STOP ALL").click()
    expect(other.get_by_role("alert")).to_contain_text("safe state verified")
    expect(page.get_by_label("Run state")).to_contain_text("idle")


def test_a_driver_is_known_again_after_reloading_the_page(page: Page, other: Page) -> None:
    take_control(page, "Anna")
    page.reload()
    expect(drives(page)).to_have_text("you drive")
    expect(drives(other)).to_have_text("driven by Anna")


def test_control_is_not_taken_without_a_name(page: Page, other: Page) -> None:
    other.get_by_role("button", name="Take control").click()
    other.get_by_role("dialog", name="Take control").get_by_role("button", name="Take control").click()
    expect(other.get_by_label("Control message")).to_contain_text("give your name")
    expect(drives(page)).to_have_text("nobody drives")
