"""A recipe on the page: tried on the simulated lab, run on this one, held up and aborted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page, expect

OXIDATION = Path(__file__).parents[2] / "deploy" / "oxidation.toml"


@pytest.mark.charts
def test_a_recipe_is_tried_then_runs_pauses_and_is_aborted(page: Page) -> None:
    now, message = page.get_by_label("Recipe now"), page.get_by_label("Recipe message")
    now.click()
    start = page.locator("#recipe-start")
    expect(start).to_be_disabled()
    page.get_by_label("Recipe file").set_input_files(OXIDATION)
    expect(message).to_have_text("oxidation.toml: try it before you start it")
    page.get_by_role("button", name="Try").click()
    expect(message).to_have_text(re.compile(r"dry run finished after 02:1\d min"))
    dry_run = page.get_by_role("img", name="Dry run of the recipe")
    expect(dry_run.locator(".scatterlayer .trace")).to_have_count(6)
    expect(dry_run).to_contain_text("W")
    start.click()
    expect(now).to_have_text(re.compile(r"running, step 2 of 15: wait"))
    page.get_by_role("button", name="Pause").click()
    expect(now).to_have_text(re.compile("paused, step 2 of 15"))
    page.get_by_role("button", name="Go on").click()
    expect(now).to_have_text(re.compile(r"running, step \d+ of 15"))
    page.locator("#recipe-abort").click()
    expect(message).to_have_text("aborted; the lab is at rest")
    expect(now).to_have_text(re.compile("aborted"))
    expect(page.get_by_label("Heater now")).to_contain_text("off")


def test_a_recipe_that_is_none_is_refused_where_it_was_opened(page: Page) -> None:
    page.get_by_label("Recipe now").click()
    file: FilePayload = {
        "name": "soup.toml",
        "mimeType": "application/toml",
        "buffer": b'name = "soup"\n[[steps]]\nstir = 3\n',
    }
    page.get_by_label("Recipe file").set_input_files(file)
    page.get_by_role("button", name="Try").click()
    expect(page.get_by_label("Recipe message")).to_contain_text("step 1")
