"""A recorded run is tracked as a whole; what was found is kept with what it was computed from."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from acquisition.errors import BadInput
from acquisition.frames import Frame as RecordedImages
from acquisition.frames import FrameHeader, JoinedValue, Result, ResultHeader, checksum
from acquisition.instrument import four_quadrant
from acquisition.recording import RecordedRun, Recorder, verify
from inference.metrology.tracking import track_run
from inference.metrology.volume import Levelling, Region
from inference.pipeline import Pipeline
from inference.reprocess import reprocess
from recordings import OPTICS, finish, record, run_started
from service.cli import app
from service.track_store import stored_track, track_and_store
from surfaces_of_steps import PIXEL_M, STEP_M, TERRACE_M, as_map, spiral_m

SIZE_PX, FRAMES, INTERVAL_S, GROWN_M = 160, 4, 5.0, 45e-9
CORE_PX = (83.0, 74.0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Images of noise around a still pattern; heights of a growing spiral."""
    shape = (4, SIZE_PX, SIZE_PX)
    started = replace(run_started(), shape=shape)
    recorder = Recorder(tmp_path / "run", started, four_quadrant(), lambda _: None, simulated=True)
    pattern = np.random.default_rng(9).uniform(500.0, 2000.0, shape)
    for number in range(FRAMES):
        images = np.random.default_rng(number).poisson(pattern).astype(np.uint16)
        at = round(number * INTERVAL_S * 1e9)
        state = {"pyrometer.temperature_k": JoinedValue(1100.0, True, 0.0)}
        header = FrameHeader(
            "run", "test", number, at, at, at, at + 1, None, shape, "uint16", checksum(images), OPTICS, state
        )
        recorder.write_frame(RecordedImages(header, images), None)
        height = as_map(spiral_m(SIZE_PX, CORE_PX, 1.0, GROWN_M * number), 2500.0, number).height_m
        told = ResultHeader("run", "test", number, 0, 0, "classical", {}, "CPU", "c", PIXEL_M, {}, {})
        assert recorder.write_result(Result(told, {"height": height.astype(np.float32)})) == ""
    finish(recorder)
    return tmp_path / "run"


def test_a_run_is_tracked_to_its_velocity_pitch_sense_and_turning(run: Path) -> None:
    calls: list[tuple[int, int]] = []
    found = track_run(RecordedRun(run), progress=lambda done, total: calls.append((done, total)))
    (track,) = found.tracks
    assert calls == [(number + 1, FRAMES) for number in range(FRAMES)]
    assert track.sense == "counter-clockwise"
    assert track.pitch_m() == pytest.approx(STEP_M, rel=0.05)
    assert track.rotation_rad_per_s()[0] == pytest.approx(2 * math.pi * GROWN_M / TERRACE_M / INTERVAL_S, rel=0.05)
    assert found.velocity.values == pytest.approx(np.full(FRAMES - 1, GROWN_M / INTERVAL_S), rel=0.08)
    assert "vary the temperature" in found.no_law
    assert "--reference" in found.no_growth


def test_what_was_found_is_kept_and_grows_old_with_the_heights(run: Path) -> None:
    _, tree = track_and_store(run, Levelling((Region(4, 4, 24, 24),)), lambda done, total: None)
    kept = stored_track(run)
    assert kept == tree | {"current": True}
    assert json.loads((run / "track.json").read_text())["levelling"]["regions"] == [[4, 4, 24, 24]]
    assert len(kept["growth"]["volume_m3"]) == FRAMES - 1 and kept["growth"]["refused"] is None
    assert verify(run).ok
    reprocess(run, Pipeline("classical", "cpu", 1), lambda done, total: None)
    assert stored_track(run)["current"] is False


def test_a_run_without_a_track_or_with_a_broken_one_says_so(run: Path) -> None:
    with pytest.raises(BadInput, match="has not been tracked"):
        stored_track(run)
    (run / "track.json").write_text("{")
    with pytest.raises(BadInput, match="track the run again"):
        stored_track(run)


def test_one_height_is_too_few_for_motion(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 2, [0]))
    with pytest.raises(BadInput, match="has 1 heights: motion needs two"):
        track_run(RecordedRun(tmp_path / "run"))


def test_the_command_writes_figures_a_table_and_a_picture(run: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("t.json", "t.csv", "t.png")]
    options = [part for pair in zip(("--json", "--csv", "--picture"), map(str, files), strict=True) for part in pair]
    told = CliRunner().invoke(app, ["track", str(run), *options], catch_exceptions=False)
    assert told.exit_code == 0
    assert "counter-clockwise, pitch" in told.output
    assert json.loads(files[0].read_text())["format"] == 1
    rows = list(csv.DictReader(files[1].open()))
    assert [row["sequence"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[1]["step_velocity_value_m_per_s"]) == pytest.approx(9e-9, rel=0.1)
    assert files[2].read_bytes().startswith(b"\x89PNG")
