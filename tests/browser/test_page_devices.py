"""Devices: what is asked for is confirmed, what is refused says why, and rest is always one press away."""

from __future__ import annotations

import httpx
from playwright.sync_api import Page, expect


def ask_for_current(page: Page, amperes: str) -> None:
    page.get_by_label("Heater current in A").fill(amperes)
    page.get_by_label("Heater", exact=True).get_by_role("button", name="Set").click()


def test_a_current_is_set_only_after_it_is_confirmed(page: Page, api: httpx.Client) -> None:
    ask_for_current(page, "0.4")
    expect(page.get_by_role("alertdialog")).to_contain_text("Set the laser to 0.4 A")
    page.get_by_role("button", name="Cancel").click()
    assert api.get("/devices/heater").json()["readings"]["current_target_a"]["value"] == 0.0
    ask_for_current(page, "0.4")
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_label("Heater now")).to_contain_text("of 0.400 A")


def test_a_current_beyond_the_limit_is_refused_with_value_and_limit(page: Page, api: httpx.Client) -> None:
    limit = api.get("/devices/heater").json()["limits"]["current_a"]["high"]
    ask_for_current(page, "9")
    page.get_by_role("button", name="Confirm").click()
    refusal = page.get_by_label("Heater message")
    expect(refusal).to_contain_text("9")
    expect(refusal).to_contain_text(f"{limit:g}")
    expect(page.get_by_label("Heater now")).not_to_contain_text("of 9")


def test_the_heated_specimen_shows_on_the_thermometer_and_off_ends_it(page: Page) -> None:
    ask_for_current(page, "0.9")
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("button", name="Arm", exact=True).click()
    expect(page.get_by_label("Heater now")).to_contain_text("emitting · 0.900 of 0.900 A")
    page.get_by_role("button", name="OFF", exact=True).click()
    expect(page.get_by_label("Heater now")).to_contain_text("off · 0 of 0 A")


def test_constant_power_is_set_where_the_heater_lists_it(page: Page, api: httpx.Client) -> None:
    limit = api.get("/devices/heater").json()["limits"]["power_w"]["high"]
    page.get_by_label("What the heater is set by").select_option("W")
    expect(page.get_by_label("Heater now")).to_contain_text(f"limit {limit:g} W")
    page.get_by_label("Heater power in W").fill("2")
    page.get_by_label("Heater", exact=True).get_by_role("button", name="Set").click()
    expect(page.get_by_role("alertdialog")).to_contain_text("Set the laser to 2 W (now 0 W)?")
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("button", name="Arm", exact=True).click()
    expect(page.get_by_label("Heater now")).to_contain_text("A · 2.00 W")
    page.get_by_role("button", name="OFF", exact=True).click()
    expect(page.get_by_label("Heater now")).to_contain_text("off · 0 of 0 A")


def test_a_ramp_is_a_recipe_that_is_confirmed_and_off_ends_it(page: Page, api: httpx.Client) -> None:
    page.get_by_label("Heater current in A").fill("0.6")
    page.get_by_label("Rate of the ramp per second").fill("0")
    page.get_by_role("button", name="Ramp", exact=True).click()
    expect(page.get_by_label("Heater message")).to_have_text('"0" is not a rate above 0')
    page.get_by_label("Rate of the ramp per second").fill("2")
    page.get_by_role("button", name="Ramp", exact=True).click()
    expect(page.get_by_role("alertdialog")).to_contain_text("Arm and ramp the laser to 0.6 A at 2 A/s")
    expect(page.get_by_role("alertdialog")).to_contain_text("hold 30 min? Then laser and gas go to rest.")
    assert api.get("/recipe").json()["state"] != "running"
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_label("Heater now")).to_contain_text("emitting · 0.600 of 0.600 A")
    expect(page.get_by_label("Recipe now")).to_contain_text("running, step 3 of 3: wait")
    expect(page.get_by_role("button", name="Ramp", exact=True)).to_have_attribute("title", "a recipe is under way")
    page.get_by_role("button", name="OFF", exact=True).click()
    expect(page.get_by_label("Heater now")).to_contain_text("off · 0 of 0 A")
    expect(page.get_by_label("Recipe now")).not_to_contain_text("running")


def test_a_flow_is_given_in_sccm_and_composition_is_told(page: Page) -> None:
    page.get_by_label("Flow of hydrogen in sccm").fill("3")
    page.get_by_role("button", name="Set hydrogen").click()
    page.get_by_label("Flow of oxygen in sccm").fill("1")
    page.get_by_role("button", name="Set oxygen").click()
    expect(page.get_by_label("Total flow and composition")).to_contain_text("H₂ 75")
    for gas in ("hydrogen", "oxygen"):
        page.get_by_role("button", name=f"{gas} off").click()
    expect(page.get_by_label("Total flow and composition")).to_have_text("no flow")


def test_the_stage_goes_where_it_is_sent_and_refuses_beyond_its_travel(page: Page) -> None:
    page.get_by_label("Stage x in µm").fill("2")
    page.get_by_role("button", name="Move").click()
    expect(page.get_by_label("Stage message")).to_contain_text("reached 2.0")
    page.get_by_label("Stage x in µm").fill("90000")
    page.get_by_role("button", name="Move").click()
    expect(page.get_by_label("Stage message")).to_contain_text("limits.stage_travel_m")


def test_stop_all_brings_laser_gas_and_scan_to_rest(page: Page, api: httpx.Client) -> None:
    page.get_by_label("Flow of hydrogen in sccm").fill("3")
    page.get_by_role("button", name="Set hydrogen").click()
    expect(page.get_by_label("Total flow and composition")).to_contain_text("sccm")
    page.get_by_role("button", name="STOP ALL").click()
    expect(page.get_by_role("alert")).to_contain_text("safe state verified")
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    devices = api.get("/devices").json()
    assert devices["heater"]["readings"]["emission"]["value"] == 0
    assert devices["hydrogen"]["readings"]["flow_setpoint_mol_per_s"]["value"] == 0
