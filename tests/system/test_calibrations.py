"""From recorded runs to an instrument file: the command, its history, and the same over REST."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from acquisition.clock import SystemClock
from acquisition.errors import BadInput, RequestRefused
from acquisition.frames import Exposure
from acquisition.instrument import Effects, Instrument, four_quadrant, load_instrument, parse_instrument
from acquisition.recording.offline import record_offline
from acquisition.stamping import optics_of, start_run
from inference.forward_model import render
from programs import wait_until, write_settings
from service.calibration_book import CalibrationBook
from service.cli import app
from service.commands.calibrate import HISTORY
from service_here import served

SIZE = 32
GAINS = np.array([9.0, 7.0, 8.5, 8.0])
DARKS = np.array([230.0, 180.0, 215.0, 190.0])
RUNNER = CliRunner()


def _instrument() -> Instrument:
    tree = four_quadrant().model_dump()
    for segment, gain, dark in zip(tree["detector"]["segments"], GAINS, DARKS, strict=True):
        segment.update(gain_counts_per_electron=float(gain), dark_counts=float(dark))
    made = parse_instrument(tree, "the test's instrument")
    return made.model_copy(update={"effects": Effects(read_noise_counts=4.0)})


def _record(folder: Path, images: list[NDArray[np.uint16]]) -> Path:
    stated, at = four_quadrant(), SystemClock().now()
    run = start_run(at, folder.name, "import", stated, (SIZE, SIZE), len(images), "")

    async def exposures() -> AsyncIterator[Exposure]:
        for one in images:
            yield Exposure(one, at, at, optics_of(stated))

    asyncio.run(record_offline(folder, run, stated, exposures(), lambda _: None, simulated=False))
    return folder


def _still(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, :SIZE]
    heights = 5e-9 * (np.sin(x / 4.0) + np.cos(y / 5.0 + x / 9.0))
    return _record(folder, [render(heights, _instrument(), rng, 4000.0) for _ in range(4)])


def _blanked(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    noise = [rng.normal(0.0, 4.0, (4, SIZE, SIZE)) for _ in range(3)]
    return _record(folder, [np.rint(DARKS[:, None, None] + one).astype(np.uint16) for one in noise])


def test_gain_and_dark_level_go_into_a_new_instrument_file_with_their_errors(tmp_path: Path) -> None:
    still, blanked, out = _still(tmp_path / "still"), _blanked(tmp_path / "blanked"), tmp_path / "mine.toml"
    done = RUNNER.invoke(app, ["calibrate", "--pairs", str(still), "--dark", str(blanked), "--out", str(out)])
    assert done.exit_code == 0, done.output
    made = load_instrument(out)
    assert made.calibration is not None
    for number, segment in enumerate(made.detector.segments):
        gain = made.calibration.parameters[f"gain_counts_per_electron[{number}]"]
        assert segment.gain_counts_per_electron == gain.value
        assert abs(gain.value - GAINS[number]) < 4.0 * gain.sigma
        assert segment.dark_counts == pytest.approx(DARKS[number], abs=0.5)
    assert set(made.calibration.runs) == {"still", "blanked"}
    assert made.calibration.based_on == four_quadrant().calibration_hash
    (kept,) = CalibrationBook(tmp_path / HISTORY).all()
    assert kept.id == made.calibration_hash != four_quadrant().calibration_hash


def test_a_joint_fit_streams_its_steps_and_draws_its_picture(tmp_path: Path) -> None:
    still, out, drawn = _still(tmp_path / "still"), tmp_path / "mine.toml", tmp_path / "how.png"
    held = ["--prior", "second_scattering=0", "--prior", "tilt_yield_exponent=0", "--prior", "working_distance_m=0"]
    arguments = ["calibrate", str(still), "--out", str(out), "--picture", str(drawn), "--json", *held]
    done = RUNNER.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    *steps, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [tree["step"] for tree in steps] == list(range(len(steps)))
    assert "rotation_deg" in steps[0]["values"] and "rotation_deg" in last["result"]["calibration"]["parameters"]
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_check_prints_a_score_for_every_segment(tmp_path: Path) -> None:
    run = _still(tmp_path / "still")
    done = RUNNER.invoke(app, ["check", str(run), "--json"])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["reduced_chi2"]) == set("ABCD")


def test_an_accepted_calibration_takes_the_files_place_and_is_decided_on_once(tmp_path: Path) -> None:
    out, file = tmp_path / "mine.toml", tmp_path / "in-use.toml"
    RUNNER.invoke(app, ["calibrate", "--dark", str(_blanked(tmp_path / "blanked")), "--out", str(out)])
    file.write_text(four_quadrant().to_toml())
    book = CalibrationBook(tmp_path / HISTORY)
    (entry,) = book.all()
    book.accept(entry.id, file)
    assert load_instrument(file).calibration_hash == entry.id
    assert load_instrument(tmp_path / "in-use.toml.before") == four_quadrant()
    with pytest.raises(RequestRefused, match="was accepted already"):
        book.discard(entry.id)
    with pytest.raises(BadInput, match="there is no calibration"):
        book.discard("0" * 16)


def test_files_that_no_calibration_wrote_keep_their_hash() -> None:
    tree = four_quadrant().model_dump(exclude={"calibration"})
    assert "calibration" not in four_quadrant().to_toml()
    assert parse_instrument(tree, "a tree").calibration_hash == four_quadrant().calibration_hash


def test_rest_calibrates_as_a_task_and_discards(tmp_path: Path) -> None:
    config = write_settings(tmp_path)
    with served(config) as service, httpx.Client(base_url=service.base_url, headers=service.headers) as client:
        runs = service.laboratory.settings.runs_folder
        runs.mkdir(parents=True, exist_ok=True)
        _blanked(runs / "blanked")
        refused = client.post("/api/v1/calibrations", json={"runs": ["nowhere"]})
        assert refused.status_code == 422 and "no recorded run" in refused.json()["detail"]
        begun = client.post("/api/v1/calibrations", json={"dark": "blanked"})
        assert begun.status_code == 202
        place = begun.headers["Location"]
        over = ("done", "failed")
        wait_until(lambda: client.get(place).json()["state"] in over, lambda: client.get(place).text, 200.0)
        result = client.get(place).json()["result"]
        assert result is not None, client.get(place).text
        (listed,) = client.get("/api/v1/calibrations").json()
        assert listed["id"] == result["id"] and listed["state"] == "candidate"
        assert listed["calibration"]["parameters"]["dark_counts[1]"]["value"] == pytest.approx(180.0, abs=1.0)
        accepted = client.post(f"/api/v1/calibrations/{listed['id']}:accept")
        assert accepted.status_code == 409 and "name no instrument file" in accepted.json()["detail"]
        discarded = client.post(f"/api/v1/calibrations/{listed['id']}:discard")
        assert discarded.json()["state"] == "discarded"
