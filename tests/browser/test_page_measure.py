"""Measuring on the page: profile, colour map, range and lock, the relief's point of view."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from picture import drag, fingerprint, wait_for_change


def test_a_line_across_an_edge_shows_its_step_height(page: Page) -> None:
    drag(page, page.locator("#height .over"), (0.5, 0.2), (0.5, 0.45))
    expect(page.get_by_label("Step height")).to_have_text(re.compile(r"step [\d.]+ ± [\d.]+ (nm|µm)"))
    expect(page.get_by_label("Step height")).to_have_text(re.compile(r"facet -?[\d.]+ ± [\d.]+°"))


def test_the_profile_is_saved_as_metres(page: Page, tmp_path: Path) -> None:
    page.keyboard.press("p")
    with page.expect_download() as saving:
        page.get_by_role("button", name="save CSV").click()
    path = tmp_path / "profile.csv"
    saving.value.save_as(path)
    head, names, *rows = path.read_text().splitlines()
    assert head.startswith("# run ")
    assert names == "distance_m,height_m"
    distances_m = [float(row.split(",")[0]) for row in rows]
    assert distances_m[0] == 0.0
    assert distances_m == sorted(distances_m)
    assert 1e-8 < distances_m[-1] < 1e-4


def test_p_takes_the_profile_away_again(page: Page) -> None:
    page.keyboard.press("p")
    expect(page.get_by_label("Step height")).to_contain_text("step")
    page.keyboard.press("p")
    expect(page.get_by_label("Step height")).to_contain_text("drag on the height pane")


def test_another_colour_map_paints_the_same_map_anew(page: Page) -> None:
    page.keyboard.press("Space")
    height = page.get_by_role("img", name="Height map", exact=True)
    before = fingerprint(height)
    page.get_by_label("Colour map").select_option("gray")
    wait_for_change(page, height, before)


def test_stretch_widens_the_range_and_lock_holds_it(page: Page) -> None:
    page.keyboard.press("Space")
    high = page.get_by_label("Upper end of the colour range in nm")
    narrow = float(high.input_value())
    page.get_by_label("Stretch").select_option("min–max")
    wide = float(high.input_value())
    assert wide > narrow
    page.get_by_role("checkbox", name="lock").check()
    page.get_by_label("Stretch").select_option("2–98 %")
    assert float(high.input_value()) == wide


def test_a_locked_range_stays_while_the_frames_go_on(page: Page) -> None:
    high = page.get_by_label("Upper end of the colour range in nm")
    page.get_by_role("checkbox", name="lock").check()
    locked = high.input_value()
    for _ in range(2):
        note = page.locator("#segments-note").inner_text()
        expect(page.locator("#segments-note")).not_to_have_text(note)
        assert high.input_value() == locked


def test_a_logarithmic_stretch_paints_map_relief_and_colour_bar_anew(page: Page) -> None:
    page.keyboard.press("Space")
    painted = [page.locator(where) for where in ("#height canvas >> nth=0", "#relief", "#height-bar")]
    before = [fingerprint(one) for one in painted]
    page.get_by_label("Stretch").select_option("log")
    assert all(fingerprint(one) != was for one, was in zip(painted, before, strict=True))


def test_the_profile_follows_the_frames(page: Page) -> None:
    page.keyboard.press("p")
    for where in ("#profile", "#kymograph"):
        wait_for_change(page, page.locator(where), fingerprint(page.locator(where)))


def test_a_range_that_is_typed_stays(page: Page) -> None:
    page.get_by_label("Lower end of the colour range in nm").fill("-10")
    page.get_by_label("Lower end of the colour range in nm").press("Enter")
    expect(page.get_by_role("checkbox", name="lock")).to_be_checked()
    height = page.get_by_role("img", name="Height map", exact=True)
    page.get_by_label("Run state").click()
    wait_for_change(page, height, fingerprint(height))
    assert float(page.get_by_label("Lower end of the colour range in nm").input_value()) == -10


def test_dragging_turns_the_relief(page: Page) -> None:
    page.keyboard.press("Space")
    relief = page.get_by_role("img", name="Relief of the height map")
    before = fingerprint(relief)
    drag(page, relief, (0.4, 0.5), (0.7, 0.6))
    assert fingerprint(relief) != before


def test_the_exaggeration_is_always_told(page: Page) -> None:
    told = page.get_by_role("status", name="Exaggeration of height")
    before = told.inner_text()
    slider = page.get_by_role("slider", name="Exaggeration of height")
    slider.fill("90")
    expect(told).not_to_have_text(before)
    expect(told).to_have_text(re.compile(r"z × [\d.]+"))


def test_sigma_takes_the_place_of_the_residual(page: Page) -> None:
    trust = page.get_by_role("img", name="Residual, sigma or fusion")
    before = fingerprint(trust)
    page.get_by_role("radio", name="Sigma").check(force=True)
    wait_for_change(page, trust, before)
    expect(page.get_by_label("Share of pixels rejected")).to_contain_text("slope ±")
