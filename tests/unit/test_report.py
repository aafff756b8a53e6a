"""The report stands alone, tells what the run holds, and says so where there is nothing."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from acquisition.errors import BadInput
from acquisition.frames import Event, Frame, JoinedValue, Result, RunFinished, StateSample
from acquisition.instrument import four_quadrant
from acquisition.recording import Recorder
from inference.metrology.areal import areal
from inference.metrology.height_map import HeightMap
from recordings import SHAPE, finish, frame, record, result, run_started
from service.cli import app
from service.report import write_report
from service.report.numbers import digits, duration, named, told
from service.report.plots import Curve, plot, ticks
from service.report.printing import BROWSERS, print_pdf
from service.report.sections import neighbours

COUNT = 5
HOSTILE = "valve <script>alert(1)</script>"


def height_m(sequence: int) -> np.ndarray:
    return np.random.default_rng(sequence).normal(0.0, 2e-9, SHAPE[1:]).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "growth"
    recorder = Recorder(folder, run_started(), four_quadrant(), lambda _: None, simulated=True)
    for sequence in range(COUNT):
        at_ns = 5_000_000_000 * sequence
        joined = {"heater.current_a": JoinedValue(1.2, True, 0.0), "gauge.pressure_pa": JoinedValue(None, False, 1.0)}
        header = replace(frame(sequence).header, monotonic_ns=at_ns, state=joined)
        recorder.write_state(
            StateSample("run", "test", sequence, at_ns, at_ns, "pyrometer.temperature_k", 900.0 + sequence, True, "")
        )
        recorder.write_frame(Frame(header, frame(sequence).images), height_m(sequence))
        recorder.write_result(Result(result(sequence).header, {"height": height_m(sequence)}))
    recorder.write_event(Event("run", "test", 0, 7_000_000_000, 0, "trip", "alarm", HOSTILE))
    recorder.finish_frames(RunFinished("run", "test", 0, 0, 0, COUNT, COUNT - 1, "asked", recorder.digest))
    recorder.close("complete")
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    out = run.parent / "growth.html"
    write_report(run, out, lambda done, total: None)
    return out.read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(page: str) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page
    assert len(page) < 5e6


def test_the_page_tells_areal_parameters_with_their_scatter(page: str) -> None:
    sq_m = [areal(HeightMap(height_m(n).astype(float), 5e-9, 5e-9).level()).sq_m for n in range(COUNT)]
    scatter_m = np.sqrt(np.mean(np.diff(sq_m) ** 2) / 2)
    assert f"<td>{told(sq_m[-1], 'm', scatter_m)}</td>" in page


def test_the_page_tells_state_events_models_and_errors(page: str) -> None:
    assert "Pyrometer temperature" in page
    assert "heater current <b>1.2 A</b>" in page
    assert "valve &lt;script&gt;" in page and HOSTILE not in page
    assert "Against the simulation's truth" in page
    assert "classical" in page
    assert "Motion" not in page


def test_what_tracking_found_is_shown(run: Path) -> None:
    rows = [{"time_s": 5.0 * n, "drift": {"x_m": 1e-9 * n}} for n in range(COUNT)]
    tree = {"frames": rows, "kinetics": {"energy_ev": 1.25}, "computed_from": {"frames_xxh3": "secret"}}
    (run / "track.json").write_text(json.dumps(tree), encoding="utf-8")
    out = run.parent / "tracked.html"
    write_report(run, out, lambda done, total: None)
    (run / "track.json").unlink()
    page = out.read_text(encoding="utf-8")
    assert "<th>kinetics energy</th><td>1.25 eV</td>" in page
    assert "Drift x" in page
    assert "secret" not in page


def test_a_run_without_heights_has_no_report(tmp_path: Path) -> None:
    finish(record(tmp_path / "bare", 1, []))
    with pytest.raises(BadInput, match="no heights"):
        write_report(tmp_path / "bare", tmp_path / "a.html", lambda done, total: None)


def test_flat_heights_are_reported_without_texture(tmp_path: Path) -> None:
    finish(record(tmp_path / "flat", 2, [0, 1]))
    write_report(tmp_path / "flat", tmp_path / "flat.html", lambda done, total: None)
    assert "Areal texture" in (tmp_path / "flat.html").read_text(encoding="utf-8")


def test_numbers_have_units_and_the_digits_of_their_uncertainty() -> None:
    assert told(12.3456e-9, "m", 0.21e-9) == "12.35 ± 0.21 nm"
    assert told(-1.5e4, "eV") == "−15 keV"
    assert told(3600.0, "s") == "3600 s"
    assert told(22.5, "°") == "22.5°"
    assert told(None, "m") == told(float("nan"), "m") == "–"
    assert digits(1.5e-7) == "1.500 · 10<sup>−7</sup>"
    assert named("heater.current_a") == ("heater current", "A")
    assert (duration(12.0), duration(125.0), duration(7260.0)) == ("12 s", "2 min 05 s", "2 h 01 min")


def test_curves_break_where_nothing_is_known_and_keep_their_peaks() -> None:
    x = np.arange(5000.0)
    y = np.sin(x / 300.0)
    y[2500] = 9.0
    y[1000:1500] = np.nan
    drawn = plot("level", "m", [Curve("", x, y)], "time / s")
    path = re.search(r'<path d="([^"]+)"', drawn)
    assert path is not None and path[1].count("M") == 2
    heights = [float(point.split()[1]) for point in re.split("[ML]", path[1])[1:]]
    assert min(heights) < 40.0 and len(heights) < 1100
    assert plot("nothing", "m", [Curve("", x, np.full_like(x, np.nan))], "s") == ""
    assert ticks(0.0, 10.0) == [0.0, 5.0, 10.0]


def test_curves_of_a_long_run_join_no_neighbours_that_are_far_apart() -> None:
    assert [list(part) for part in neighbours([0, 1, 9, 10, 19])] == [[0, 1], [2, 3], [4]]
    assert [list(part) for part in neighbours([3, 4, 5])] == [[0], [1], [2]]


def test_the_report_prints_to_pdf(run: Path, tmp_path: Path) -> None:
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("no Chromium or Chrome is installed")
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "r.html"), "--pdf"])
    assert done.exit_code == 0
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")
    assert "eclips track" in done.output


def test_without_a_browser_printing_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match=r"open .* in any browser"):
        print_pdf(tmp_path / "r.html", tmp_path / "r.pdf")


def test_a_number_per_metre_is_no_length() -> None:
    assert named("step_density_per_m") == ("step density", "1/m")
