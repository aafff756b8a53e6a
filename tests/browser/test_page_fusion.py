"""Fusion on the page: asked for with the run, shown beside the height of each frame."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from picture import colours


@pytest.fixture(scope="module")
def compiled() -> None:
    """Fusion's kernels, which a worker beside a microscope and a browser takes long to compile."""
    subprocess.run([sys.executable, "-m", "inference.fusion.preparation"], check=True)


@pytest.mark.usefixtures("compiled")
def test_the_page_starts_a_run_that_fuses_and_shows_what_it_holds(page: Page) -> None:
    note = page.get_by_label("Share of pixels rejected")
    page.get_by_role("radio", name="Fused height").check(force=True)
    expect(note).to_contain_text("not fused")
    page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    page.get_by_label("Frames to fuse").fill("8")
    page.get_by_role("switch", name="record").uncheck(force=True)
    page.get_by_role("button", name="Start").click()
    expect(note).to_have_text(re.compile(r"[\d.]+ frames held"))
    expect(page.get_by_label("Drift", exact=True)).to_have_text(re.compile(r"-?[\d.]+, -?[\d.]+ px · [\d.]+ held"))
    image = page.get_by_role("img", name="Residual, sigma or fusion", exact=True)
    assert colours(image) > 16
    page.get_by_role("radio", name="Frames held").check(force=True)
    page.locator("#trust .over").hover()
    expect(page.get_by_label("Probe")).to_contain_text(re.compile(r"frames held [\d.]+ frames"))
