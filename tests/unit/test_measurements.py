"""What the command line and REST measure, on a map whose steps, sides and speed are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_facets import mesa
from test_kymograph import flow
from typer.testing import CliRunner

from acquisition.errors import BadInput
from acquisition.frames import Result, ResultHeader
from acquisition.recording import RecordedRun
from inference.metrology.height_map import HeightMap
from inference.metrology.kymograph import kymograph
from recordings import finish, frame, new_recorder
from service.cli import app
from service.measurements import kymograph_tree, measure_facets, measure_line
from service.routes.profiles import corners

SQUARE = mesa(4, 45.0, 20.0, 0.02)


def test_a_line_tells_its_step_its_sharpest_edge_and_all_others() -> None:
    found = measure_line(SQUARE, [(80.0, 4.0), (80.0, 80.0)], 9)
    tree = json.loads(json.dumps(found.tree(), allow_nan=False))
    assert tree["step"]["height_m"] > 0 and tree["step"]["sigma_m"] > 0
    assert tree["facet"]["external_deg"] == min(edge["external_deg"] for edge in tree["edges"]) < 145
    assert len(tree["sigma_m"]) == len(tree["distances_m"]) == len(tree["heights_m"]) == 77


def test_what_is_not_there_is_null_with_a_reason() -> None:
    flat = HeightMap(np.zeros((40, 40)), 1e-9, 1e-9)
    tree = json.loads(json.dumps(measure_line(flat, [(5.0, 20.0), (35.0, 20.0)]).tree(), allow_nan=False))
    assert tree["step"] is None and tree["facet"] is None and set(tree["sigma_m"]) == {None}
    assert "no edge" in tree["reasons"]["step"] and "parallel" in tree["reasons"]["facet"]
    facets = json.loads(json.dumps(measure_facets(flat).tree(), allow_nan=False))
    assert facets["orientation"] is None and "at least 3" in facets["reasons"]["orientation"]


def test_a_mesa_of_45_degrees_is_a_cuprous_oxide_crystal() -> None:
    tree = json.loads(json.dumps(measure_facets(SQUARE).tree(), allow_nan=False))
    sides = [one for one in tree["names"] if one["angle_deg"] > 10]
    assert len(sides) == 4 and {one["family"] for one in sides} == {"{110}"}
    assert all(one["external_deg"] == pytest.approx(135.0, abs=0.5) for one in sides)
    assert tree["orientation"]["determined"] and tree["top"] is not None
    assert all(one["angle_deg"] == pytest.approx(90.0, abs=1.0) for one in tree["directions"]["meetings"])
    assert sum(tree["wulff"]["shares"].values()) == pytest.approx(1.0)
    with pytest.raises(BadInput, match="no facet 999"):
        measure_facets(SQUARE, top=999)


def test_a_kymograph_tells_its_velocity_or_why_there_is_none() -> None:
    line = [(5.0, 30.0), (135.0, 30.0)]
    tree = json.loads(json.dumps(kymograph_tree(kymograph(flow(0.1e-9), line, 9), 66.5 * 5e-9), allow_nan=False))
    assert tree["motion"]["velocity_m_per_s"] == pytest.approx(0.37 * 5e-9, rel=0.02)
    still = kymograph_tree(kymograph([next(flow(0.1e-9))], line, 9))
    assert still["motion"] is None and "takes 3" in still["reasons"]["motion"]


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "1,nan,", ",".join(["1"] * 66)])
def test_corners_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="pairs x,y"):
        corners(text)


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of small frames across which a step of 2 nm moves by half a pixel each."""
    folder = tmp_path_factory.mktemp("measured") / "stepped"
    recorder = new_recorder(folder)
    for sequence in range(6):
        recorder.write_frame(frame(sequence), None)
    for sequence in range(6):
        place = 12.0 + 0.5 * sequence
        height_m = np.tile(2e-9 * np.clip(np.arange(32) - place, 0, 1), (24, 1)).astype(np.float32)
        header = ResultHeader("run", "test", sequence, 0, 0, "classical", {}, "CPU", "c", 5e-9, {}, {})
        assert recorder.write_result(Result(header, {"height": height_m})) == ""
    finish(recorder)
    return folder


def test_the_command_prints_numbers_with_units_and_writes_them(stepped: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("json", "csv", "picture.png")}
    options = ["--json", str(files["json"]), "--csv", str(files["csv"]), "--picture", str(files["picture.png"])]
    line = ["--frame", "2", "--profile", "1,12,30,12", "--width", "7", "--facets"]
    done = CliRunner().invoke(app, ["measure", str(stepped), *line, *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "step 2 ± " in done.output and " nm at " in done.output
    tree = json.loads(files["json"].read_text(encoding="utf-8"))
    assert tree["line"]["step"]["height_m"] == pytest.approx(2e-9, rel=0.01)
    assert len(files["csv"].read_text(encoding="utf-8").splitlines()) == 31
    assert files["picture.png"].read_bytes().startswith(b"\x89PNG")


def test_the_command_needs_something_to_measure(stepped: Path) -> None:
    for options in ([], ["--facets", "--through-time"]):
        with pytest.raises(BadInput, match="--profile"):
            CliRunner().invoke(app, ["measure", str(stepped), *options], catch_exceptions=False)
    assert len(RecordedRun(stepped).heights) == 6
