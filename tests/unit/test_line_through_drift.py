"""The same line through a drifting run: what stands still on the specimen has no velocity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from acquisition.frames import Frame, Result, ResultHeader
from acquisition.instrument import Instrument
from acquisition.recording import RecordedRun, Recorder
from inference.metrology.tracking import run_drift
from recordings import finish, run_started
from service.benchmarks.fusion import PIXEL_M, Scene, film
from service.cli import app

SIZE_PX, FRAMES, SECOND_NS = 128, 6, 1_000_000_000
DRIFT_PX = (0.8, -1.1)
ACROSS_A_SIDE = "72,73,108,66"


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Islands that have stopped growing, a frame a second; heights are the truth with noise."""
    folder = tmp_path_factory.mktemp("drifting") / "islands"
    shots = list(film(Scene("drift", "oxide-islands", DRIFT_PX), SIZE_PX, 10_000.0, FRAMES))
    recorder = _recorder(folder, shots[0][0], shots[0][1])
    for number, (shot, _, _) in enumerate(shots):
        at = number * SECOND_NS
        times = {"monotonic_ns": at, "utc_ns": at, "exposure_start_ns": at, "exposure_end_ns": at + 1}
        recorder.write_frame(Frame(replace(shot.header, run_id="run", sequence=number, **times), shot.images), None)
    for number, (_, _, truth_m) in enumerate(shots):
        height_m = truth_m + np.random.default_rng(number).normal(0.0, 0.3e-9, truth_m.shape)
        header = ResultHeader("run", "test", number, 0, 0, "classical", {}, "CPU", "c", PIXEL_M, {}, {})
        assert recorder.write_result(Result(header, {"height": height_m.astype(np.float32)})) == ""
    finish(recorder)
    return folder


def test_a_line_through_time_goes_with_the_specimen(drifting: Path, tmp_path: Path) -> None:
    motion, tree = _motion(drifting, tmp_path)
    assert abs(motion["velocity_m_per_s"]) < 0.05 * PIXEL_M
    last = tree["kymograph"]["drift"][-1]
    assert last["drift_px"] == pytest.approx(5 * np.array(DRIFT_PX), abs=0.1)


def test_a_line_that_lies_still_takes_drift_for_growth(drifting: Path, tmp_path: Path) -> None:
    motion, tree = _motion(drifting, tmp_path, "--no-drift")
    along = np.array([36.0, -7.0]) / np.hypot(36.0, 7.0)
    across_the_view = float(along @ np.array(DRIFT_PX[::-1])) * PIXEL_M
    assert motion["velocity_m_per_s"] == pytest.approx(across_the_view, rel=0.1)
    assert tree["kymograph"]["drift"] is None


def test_a_declared_region_alone_tells_the_drift_and_the_command_says_so(drifting: Path, tmp_path: Path) -> None:
    motion, tree = _motion(drifting, tmp_path, "--reference", "36,50,60,60")
    assert abs(motion["velocity_m_per_s"]) < 0.05 * PIXEL_M
    assert {one["source"] for one in tree["kymograph"]["drift"][1:]} == {"images"}
    output = _run(drifting, tmp_path).output
    assert "drift taken out: -55" in output and "nm/s more" in output


def test_a_line_drawn_in_a_later_frame_lies_where_it_was_drawn_there(drifting: Path, tmp_path: Path) -> None:
    drifted = [5 * step for step in reversed(DRIFT_PX)]
    x0, y0, x1, y1 = (float(part) for part in ACROSS_A_SIDE.split(","))
    moved = f"{x0 + drifted[0]:g},{y0 + drifted[1]:g},{x1 + drifted[0]:g},{y1 + drifted[1]:g}"
    first, _ = _motion(drifting, tmp_path)
    last, _ = _motion(drifting, tmp_path, "--frame", "5", line=moved)
    assert last["position_m"] == pytest.approx(first["position_m"], abs=0.2 * PIXEL_M)


def test_progress_of_the_drift_is_told_frame_by_frame(drifting: Path) -> None:
    told: list[tuple[int, int]] = []
    assert len(run_drift(RecordedRun(drifting), progress=lambda done, total: told.append((done, total)))) == FRAMES
    assert told == [(number + 1, FRAMES) for number in range(FRAMES)]


def _motion(run: Path, folder: Path, *options: str, line: str = ACROSS_A_SIDE) -> tuple[dict, dict]:
    _run(run, folder, *options, line=line)
    tree = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return tree["kymograph"]["motion"], tree


def _run(run: Path, folder: Path, *options: str, line: str = ACROSS_A_SIDE):
    given = ["--profile", line, "--through-time", "--json", str(folder / "out.json"), *options]
    done = CliRunner().invoke(app, ["measure", str(run), *given], catch_exceptions=False)
    assert done.exit_code == 0
    return done


def _recorder(folder: Path, shot: Frame, instrument: Instrument) -> Recorder:
    started = replace(
        run_started(),
        shape=shot.header.shape,
        optics=shot.header.optics,
        instrument=instrument.model_dump(mode="json"),
    )
    return Recorder(folder, started, instrument, lambda _: None, simulated=True)
