"""Runs and recordings: start, stop, list, verify, replay."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from picture import fingerprint, wait_for_change


@pytest.fixture
def recording(page: Page, api: httpx.Client) -> str:
    """The id of a run of four frames, recorded with its heights, with nothing going on any more."""
    return record(page, api, f"kept-{len(api.get('/runs').json())}")


def record(page: Page, api: httpx.Client, name: str) -> str:
    page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    page.get_by_label("Name of the run").fill(name)
    page.get_by_label("Number of frames").fill("4")
    page.get_by_role("button", name="Start").click()
    row = page.get_by_label("Recorded runs").get_by_role("listitem").filter(has_text=name).first
    expect(row).to_contain_text("complete · 4 frames")
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    run_id: str = api.get("/runs").json()[0]["run_id"]
    return run_id


def test_a_recorded_run_appears_in_the_list_and_verifies(page: Page, recording: str) -> None:
    assert "kept" in recording
    page.get_by_role("button", name=f"Verify {recording}").click()
    expect(page.get_by_label("Recorded runs")).to_contain_text("verified: 4 frames and 4 heights are whole")


def test_r_begins_a_recording_and_ends_it(page: Page) -> None:
    page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    page.keyboard.press("r")
    expect(page.get_by_label("Recording", exact=True)).to_have_text(re.compile(r"REC \d\d:\d\d .*run"))
    page.keyboard.press("r")
    expect(page.get_by_label("Recording", exact=True)).to_have_text("not recording")


def test_start_says_why_it_is_not_possible_now(page: Page) -> None:
    start = page.get_by_role("button", name="Start")
    expect(start).to_be_disabled()
    expect(start).to_have_attribute("title", re.compile("not possible while acquiring; possible now: stop, abort"))


def test_a_number_of_frames_that_is_none_is_refused_in_words(page: Page) -> None:
    page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    page.get_by_label("Number of frames").fill("some")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_label("Acquire message")).to_contain_text('"some" is not a number of frames')


def test_a_replay_wears_a_frame_and_drives_no_device(page: Page, recording: str) -> None:
    page.get_by_role("button", name=f"Replay {recording}").click()
    expect(page.locator("body")).to_have_class(re.compile("replay"))
    expect(page.get_by_label("Frame age")).to_contain_text("REPLAY")
    for control in ("Arm", "Move", "Set hydrogen"):
        expect(page.get_by_role("button", name=control, exact=True)).to_be_disabled()
    expect(page.get_by_label("Why the heater is locked")).to_contain_text("leave the replay")
    expect(page.get_by_role("button", name="OFF", exact=True)).to_be_enabled()
    page.get_by_role("button", name="Leave replay").click()
    expect(page.get_by_role("button", name="Move")).to_be_enabled()


def test_the_frame_stays_until_a_live_picture_replaces_the_replayed_one(
    page: Page, api: httpx.Client, recording: str
) -> None:
    page.get_by_role("button", name=f"Replay {recording}").click()
    expect(page.locator("body")).to_have_class(re.compile("replay"))
    page.get_by_role("button", name="Leave replay").click()
    expect(page.get_by_label("Frame age")).to_contain_text("IDLE")
    expect(page.locator("body")).to_have_class(re.compile("replay"))
    api.post("/run", json={"record": False}).raise_for_status()
    expect(page.locator("body")).not_to_have_class(re.compile("replay"))


def test_arrows_step_through_a_replay_by_hand(page: Page, recording: str) -> None:
    page.get_by_label("Replay speed").select_option("step")
    page.get_by_role("button", name=f"Replay {recording}").click()
    count = page.locator("#replay-count")
    expect(count).to_have_text("1 / 4")
    segment = page.get_by_role("img", name="Segment A", exact=True)
    before = fingerprint(segment)
    page.get_by_label("Run state").click()
    page.keyboard.press("ArrowRight")
    expect(count).to_have_text("2 / 4")
    wait_for_change(page, segment, before)
    page.keyboard.press("ArrowLeft")
    expect(count).to_have_text("1 / 4")
    page.get_by_label("Position in the recording").fill("3")
    expect(count).to_have_text("4 / 4")
