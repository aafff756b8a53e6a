"""`eclips bench stream` and `eclips bench recorder` at tiny sizes: what they say, and that nothing is lost."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from acquisition.errors import BadInput, ComponentFailed
from service.benchmarks import recorder, runner, stream
from service.benchmarks.measured import Measured, NotMeasured, Report
from service.benchmarks.programs import Program
from service.benchmarks.recorder_peers import KEEPERS, stamped, write_all
from service.benchmarks.runner import run_benchmark
from service.benchmarks.stream_pair import Pair, Transfer
from service.benchmarks.stream_peers import LATEST, OURS, P4P, RAW, WAYS, Job

SHAPE = (4, 64, 64)
STREAM = stream.Plan(
    SHAPE, (4, 16, 16), (4, 16, 16), rounds=1, frames=40, small_frames=40, paced=6, paced_peers=4, soak=60, replayed=4
)
RECORDER = recorder.Plan(SHAPE, rounds=2, frames=6, kills=1)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


@pytest.fixture(scope="module")
def streamed(pair: Pair) -> Report:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream, "Pair", lambda: nullcontext(pair))
        return stream.measure(quick=True, plan=STREAM)


def printed(report: Report) -> str:
    console = Console(width=200, record=True)
    console.print(report.table)
    return console.export_text()


def test_the_stream_is_measured_against_all_that_are_installed(streamed: Report) -> None:
    rows, text = streamed.rows, printed(streamed)
    for name in (
        "throughput_vs_raw_pyzmq",
        "latency_p99_ms",
        "lost_frames",
        "memory_growth_pct",
        "replay_pacing_p99_ms",
    ):
        row = rows[name]
        assert isinstance(row, Measured) and row.conditions
    assert isinstance(rows["throughput_vs_p4p"], Measured if importlib.util.find_spec("p4p") else NotMeasured)
    assert all(way in text for way, how in WAYS.items() if importlib.util.find_spec(how.needs))


def test_no_frame_is_lost_doubled_or_changed_in_mode_every(streamed: Report) -> None:
    lost = streamed.rows["lost_frames"]
    assert isinstance(lost, Measured) and lost.value == 0
    assert f"of {40 + 40 + 60} frames" in lost.conditions


def test_a_peer_that_is_not_installed_is_left_out_with_the_way_out(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "Pair", lambda: nullcontext(pair))
    monkeypatch.setattr(stream, "missing", lambda way: "" if way in (OURS, LATEST, RAW) else WAYS[way].needs)
    report = stream.measure(quick=True, plan=stream.Plan(SHAPE, SHAPE, SHAPE, 1, 10, 10, 4, 4, 0, 2))
    row = report.rows["throughput_vs_p4p"]
    assert isinstance(row, NotMeasured) and "needs p4p: install eclips-live with the extra `bench`" in row.reason
    assert isinstance(report.rows["throughput_vs_raw_pyzmq"], Measured) and P4P not in printed(report)
    assert "memory_growth_pct" not in report.rows


def test_latest_skips_and_says_how_many(pair: Pair) -> None:
    transfer = pair.transfer(LATEST, SHAPE, 40, 4)
    assert transfer.lost == 40 - len(transfer.sequences) and transfer.wrong == 0
    assert transfer.sequences[-1] == 39


def test_losses_doubles_and_changes_are_counted() -> None:
    job = Job(OURS, SHAPE, 6, 4, (1, 2, 3))
    pictures = ("a", "b", "c", "d")
    sequences, verified = (0, 1, 1, 3, 5), ("a", "b", "b", "d", "c")
    transfer = Transfer(job, range(6), pictures, sequences, range(5), verified, 0.0, 0.0, (100,) * 10, (100,) * 10)
    assert (transfer.lost, transfer.wrong) == (2, 2)
    assert transfer.growth_pct == 0.0


def test_growth_is_of_the_second_half() -> None:
    job = Job(OURS, SHAPE, 6, 4, (1, 2, 3))
    grown = (10, 20, *(100,) * 10, *(110,) * 8)
    transfer = Transfer(job, range(6), "abcd", (0,), (1,), ("a",), 0.0, 0.0, (100,) * 20, grown)
    assert transfer.growth_pct == pytest.approx(10.0)


def test_what_fails_in_the_other_program_is_told_with_its_reason(pair: Pair) -> None:
    with pytest.raises(ComponentFailed, match="stream_pair: KeyError: 'smoke'"):
        pair.transfer("smoke", SHAPE, 4, 4)
    assert pair.transfer(RAW, SHAPE, 4, 4).lost == 0
    with Program("service.nowhere") as program, pytest.raises(ComponentFailed, match="nowhere has ended"):
        program.hear()


def test_no_acknowledged_frame_is_lost_by_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ECLIPS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(recorder, "QUICK", RECORDER)
    run_benchmark("recorder", True, tmp_path / "rows.json", None)
    text = capsys.readouterr().out
    assert "acknowledged by 1 recorders" in text and "not measured" not in text
    assert all(name in text for name in KEEPERS)
    assert '"name": "lost_acknowledged_frames",\n    "value": 0' in (tmp_path / "rows.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.json"]


def test_a_frame_that_is_not_as_it_was_recorded_counts_as_lost(tmp_path: Path) -> None:
    frames = stamped(SHAPE, 4)
    write_all("eclips recorder", tmp_path, frames)
    run = recorder.RecordedRun(tmp_path / "run")
    assert recorder._is_there(run, 1, frames[1])
    assert not recorder._is_there(run, 1, frames[2])
    assert not recorder._is_there(run, 4, frames[0])


def test_neither_judges_a_model_set() -> None:
    assert {"stream", "recorder"} <= set(runner.BENCHMARKS)
    with pytest.raises(BadInput, match="'stream' judges no model set"):
        run_benchmark("stream", True, None, None, models=("classical",))
