"""Measuring a recorded run over REST: profile with step and angles, facets, kymograph at once and as a task."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image

from acquisition.frames import Result, ResultHeader
from programs import wait_until, write_settings
from recordings import finish, frame, new_recorder
from service_here import served

LINE = {"x0_px": 1, "y0_px": 12, "x1_px": 30, "y1_px": 12, "width_px": 7}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("measuring")
    recorder = new_recorder(folder / "runs" / "stepped")
    for sequence in range(5):
        recorder.write_frame(frame(sequence), None)
    for sequence in range(5):
        height_m = np.tile(2e-9 * (np.arange(32) > 14), (24, 1)).astype(np.float32)
        header = ResultHeader("run", "test", sequence, 0, 0, "classical", {}, "CPU", "c", 5e-9, {}, {})
        recorder.write_result(Result(header, {"height": height_m}))
    finish(recorder)
    with served(write_settings(folder, 32)) as here:
        base_url = f"{here.base_url}/api/v1/runs/stepped"
        with httpx.Client(base_url=base_url, headers=here.headers, timeout=60) as made:
            yield made


def test_a_profile_comes_with_its_uncertainty_its_step_and_its_angles(client: httpx.Client) -> None:
    told = client.get("/heights/2/profile", params=LINE).json()
    assert told["step"]["height_m"] == pytest.approx(2e-9, rel=0.01) and told["step"]["rule"] == "single edge"
    assert len(told["sigma_m"]) == len(told["heights_m"]) == 30
    assert told["facet"] is None and "parallel" in told["reasons"]["facet"]  # a cliff between two terraces
    narrow = client.get("/heights/2/profile", params={**LINE, "width_px": 1}).json()
    assert set(narrow["sigma_m"]) == {None}


def test_a_line_may_have_more_corners_and_wrong_ones_are_told(client: httpx.Client) -> None:
    bent = client.get("/heights/2/profile", params={**LINE, "then_px": "30,20,10,20"}).json()
    assert bent["corners_m"] == pytest.approx([0.0, 29 * 5e-9, 37 * 5e-9, 57 * 5e-9])
    wrong = client.get("/heights/2/profile", params={**LINE, "then_px": "30"})
    assert wrong.status_code == 422 and "pairs" in wrong.json()["detail"]


def test_the_label_image_counts_the_pixels_of_each_facet(client: httpx.Client) -> None:
    told = client.get("/heights/2/facets").json()["facets"]
    answers = {
        kind: client.get("/heights/2/facets/labels", headers={"Accept": kind}).raise_for_status().content
        for kind in ("application/octet-stream", "image/tiff", "image/png")
    }
    labels = np.load(io.BytesIO(answers["application/octet-stream"]))
    counted = np.bincount(labels.ravel(), minlength=len(told) + 1)
    assert [int(counted[facet["number"]]) for facet in told] == [facet["pixels"] for facet in told] != []
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(answers["image/tiff"])), labels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answers["image/png"]))), labels)


def test_facets_come_with_their_crystal(client: httpx.Client) -> None:
    told = client.get("/heights/2/facets", params={"smoothing_px": 1.0}).json()
    assert told["crystal"] == "Cu2O" and told["facets"] and "orientation" in told["reasons"]
    unknown = client.get("/heights/2/facets", params={"crystal": "kryptonite"})
    assert unknown.status_code == 422 and "cu2o" in unknown.json()["detail"]


def test_a_kymograph_comes_at_once_or_as_a_task_with_the_same_content(client: httpx.Client) -> None:
    at_once = client.get("/kymograph", params=LINE)
    assert np.array(at_once.json()["height_m"]).shape == (5, 30)
    begun = client.get("/kymograph", params=LINE, headers={"Prefer": "respond-async"})
    assert begun.status_code == 202
    place = str(client.base_url.copy_with(path=begun.headers["Location"]))
    wait_until(lambda: client.get(place).json()["state"] == "done", lambda: str(client.get(place).json()))
    assert client.get(f"{place}/file").json() == at_once.json()
