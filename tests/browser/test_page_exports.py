"""A run is fetched as one file from the list: made with progress, saved, called off."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect


@pytest.fixture
def recording(page: Page, api: httpx.Client) -> str:
    """The id of a recorded run of two frames with their heights, with nothing going on any more."""
    api.post("/run:stop").raise_for_status()
    expect(page.get_by_label("Run state")).to_contain_text("idle")
    run_id: str = api.post("/run", json={"frames": 2, "name": "export"}).raise_for_status().json()["run_id"]
    row = page.get_by_label("Recorded runs").get_by_role("listitem").filter(has=page.get_by_label(f"Replay {run_id}"))
    expect(row).to_contain_text("complete · 2 frames")
    page.get_by_role("button", name=f"Export {run_id}").click()
    return run_id


def test_a_run_is_saved_as_arrays_and_as_its_folder(page: Page, recording: str, tmp_path: Path) -> None:
    for kind in ("npz", "zip"):
        page.get_by_label(f"Format of {recording}").select_option(kind)
        with page.expect_download() as saving:
            page.get_by_role("button", name=f"Make the file of {recording}").click()
        assert saving.value.suggested_filename == f"{recording}.{kind}"
        saving.value.save_as(tmp_path / f"run.{kind}")
        expect(page.get_by_label(f"Export message of {recording}")).to_have_text(re.compile(rf"^{kind} · \d"))
    assert np.load(tmp_path / "run.npz")["heights_m"].shape == (2, 128, 128)
    assert f"{recording}/run.json" in zipfile.ZipFile(tmp_path / "run.zip").namelist()


def test_an_export_tells_how_far_it_is_and_is_called_off(page: Page, recording: str) -> None:
    task = {"id": "export-77", "kind": "export", "run_id": recording, "state": "running", "done": 3, "total": 10}
    told = {"result": None, "reason": "", "started_utc_ns": 0}

    def between(route: Route) -> None:
        """A run so long that there is time to call its export off."""
        if route.request.method == "DELETE":
            task["state"] = "cancelled"
        route.fulfill(json=task | told)

    page.route("**/runs/*/export", between)
    page.route("**/tasks/export-77", between)
    page.get_by_role("button", name=f"Make the file of {recording}").click()
    message = page.get_by_label(f"Export message of {recording}")
    expect(message).to_have_text("30.0 %")
    assert page.get_by_role("progressbar", name=f"Export of {recording}").evaluate("bar => bar.value") == 0.3
    page.get_by_role("button", name=f"Call off the export of {recording}").click()
    expect(message).to_have_text("called off; nothing is kept")
    expect(page.get_by_role("button", name=f"Make the file of {recording}")).to_be_visible()
