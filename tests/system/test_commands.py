"""Commands run to their end: simulate, reprocess, replay, import, verify, repair."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from acquisition.recording import RecordedRun, verify
from programs import Program, eclips, write_settings


@pytest.fixture(scope="module")
def spiral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated run of five small frames, with heights."""
    run = tmp_path_factory.mktemp("runs") / "spiral"
    made = eclips("simulate", "--scene", "cu2o-spiral", "--frames", "5", "--size", "128", "--out", str(run))
    assert made.returncode == 0, made.stderr
    assert eclips("reprocess", str(run)).returncode == 0
    return run


def test_simulated_runs_carry_truth_and_reprocess_prints_errors_against_it(spiral: Path) -> None:
    done = eclips("reprocess", str(spiral), "--json")
    errors = json.loads(done.stdout)["mean_errors"]
    assert 0 < errors["slope_error_deg"] < 10
    assert 0 < errors["height_error_over_std"] < 0.2
    truth = tifffile.imread(spiral / "truth-0000.tif")
    assert truth.shape == (5, 128, 128)
    assert truth.std() > 1e-9
    assert RecordedRun(spiral).manifest.status == "complete"


def test_map_replaces_the_heights_with_better_ones_and_says_why_it_stopped(tmp_path: Path) -> None:
    run = tmp_path / "small"
    assert eclips("simulate", "--frames", "1", "--size", "32", "--dose", "600", "--out", str(run)).returncode == 0
    errors = {}
    for method in ("classical", "map"):
        done = eclips("reprocess", str(run), "--method", method, "--json")
        assert done.returncode == 0, done.stderr
        errors[method] = json.loads(done.stdout)["mean_errors"]["slope_error_deg"]
    assert errors["map"] < errors["classical"]
    assert RecordedRun(run).manifest.model == "map"
    assert "iterations" in eclips("reprocess", str(run), "--method", "map").stdout
    refused = eclips("reprocess", str(run), "--method", "classical", "--model", "other")
    assert refused.returncode != 0 and "leave one of the two out" in refused.stderr


def test_the_simulated_surface_grows_from_frame_to_frame(spiral: Path) -> None:
    truth = tifffile.imread(spiral / "truth-0000.tif")
    assert np.abs(truth[4] - truth[0]).max() > 1e-9


def test_a_recorded_replay_has_the_same_pixels_and_the_same_heights(spiral: Path, tmp_path: Path) -> None:
    config = write_settings(tmp_path)
    replay = Program("replay", str(spiral), "--speed", "max", "--record", "--config", str(config), runs=tmp_path)
    assert replay.process.wait(60) == 0, replay.lines
    again = RecordedRun(replay.run_folder())
    source = RecordedRun(spiral)
    assert again.sequences == source.sequences
    for sequence in source.sequences:
        np.testing.assert_array_equal(again.read_frame(sequence).images, source.read_frame(sequence).images)
        np.testing.assert_array_equal(again.read_height(sequence), source.read_height(sequence))
        header = again.frames[sequence].header
        assert "replayed" in header.flags
        assert header.xxh3 == source.frames[sequence].header.xxh3
        assert header.state == source.frames[sequence].header.state
    assert verify(again.path).ok


def test_import_takes_one_file_per_segment(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(200, 4000, (4, 40, 48), dtype=np.uint16)
    for name, image in zip("ABCD", images, strict=True):
        tifffile.imwrite(tmp_path / f"scan_{name}.tif", image)
    files = [str(tmp_path / f"scan_{name}.tif") for name in "DBAC"]
    done = eclips("import", *files, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(RecordedRun(tmp_path / "run").read_frame(0).images, images)
    again = eclips("import", *files, "--out", str(tmp_path / "run"))
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_import_without_a_segment_says_so(tmp_path: Path) -> None:
    for name in "ABC":
        tifffile.imwrite(tmp_path / f"scan_{name}.tif", np.zeros((32, 32), np.uint16))
    done = eclips("import", *[str(tmp_path / f"scan_{n}.tif") for n in "ABC"], "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "is a segment missing?" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_verify_tells_damage_and_ends_with_status_one(spiral: Path, tmp_path: Path) -> None:
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(spiral, damaged)
    offset = RecordedRun(damaged).frames[2].place.offsets[1]
    with (damaged / "frames-0000.tif").open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff\xff")
    assert eclips("verify", str(spiral)).returncode == 0
    found = eclips("verify", str(damaged))
    assert found.returncode == 1
    assert "frame 2" in found.stdout


def test_unknown_scene_names_the_nearest(tmp_path: Path) -> None:
    done = eclips("simulate", "--scene", "cu2o-spirl", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "cu2o-spiral" in done.stderr
