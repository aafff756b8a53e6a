"""What benchmarks say: rows, peers, targets, surfaces."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

from acquisition.errors import BadInput, ComponentFailed
from service.benchmarks import runner
from service.benchmarks.answers import answer_table, status_times_s
from service.benchmarks.measured import Measured, Report
from service.benchmarks.runner import BENCHMARKS, JUDGES, ROWS_FILE, run_benchmark, table_row
from service.benchmarks.surfaces import made_surfaces, real_surfaces, tiled

LOWER = {"unit": "s", "better": "lower", "target": 2.0, "quick": True}
HIGHER = {"unit": "x", "better": "higher", "target": 300}


def test_every_benchmark_has_rows_with_unit_direction_and_target() -> None:
    rows = tomllib.loads(ROWS_FILE.read_text(encoding="utf-8"))
    assert {*BENCHMARKS, *JUDGES} <= set(rows)
    for target in (target for group in rows.values() for target in group.values()):
        assert {"unit", "better", "target"} <= set(target) <= {"unit", "better", "target", "quick"}
        assert target["better"] in ("lower", "higher")


@pytest.mark.parametrize(
    ("target", "value", "holds"), [(LOWER, 2.0, True), (LOWER, 2.1, False), (HIGHER, 300, True), (HIGHER, 299, False)]
)
def test_a_row_holds_when_its_value_reaches_the_target(target: dict[str, object], value: float, holds: bool) -> None:
    assert table_row("some_row", target, Measured(value, "here"), quick=False)["holds"] is holds


def test_a_peer_is_told_with_its_value_and_ratio() -> None:
    row = table_row("some_row", LOWER, Measured(0.5, "here", peer="rays", peer_value=50.0), quick=False)
    assert row == {
        "name": "some_row",
        "value": 0.5,
        "unit": "s",
        "target": 2.0,
        "peer": "rays",
        "peer_value": 50.0,
        "ratio": 0.01,
        "holds": True,
        "conditions": "here",
    }


def test_without_a_peer_there_is_no_ratio() -> None:
    row = table_row("some_row", LOWER, Measured(0.5, "here"), quick=False)
    assert (row["peer"], row["peer_value"], row["ratio"]) == ("", None, None)
    assert Measured(0.5, "here", peer="idle", peer_value=0.0).ratio is None


def test_a_row_that_was_not_measured_does_not_hold() -> None:
    missed, left_out = table_row("a", LOWER, None, quick=True), table_row("b", HIGHER, None, quick=True)
    assert not missed["holds"] and missed["conditions"] == "not measured"
    assert not left_out["holds"] and left_out["conditions"] == "not measured with --quick"
    assert list(missed) == list(table_row("a", LOWER, Measured(1.0, ""), quick=True))


def test_measured_rows_are_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"fps_1024": Measured(3.0, "as told", peer="another", peer_value=1.5)}
    monkeypatch.setattr(runner, "JUDGES", {"live": lambda request: Report(found)})
    run_benchmark("live", True, tmp_path / "rows.json", None)
    printed = capsys.readouterr().out
    assert "fps_1024: as told" in printed and "another: 1.5" in printed and "start_to_first_height_s" in printed
    assert '"ratio": 2.0' in (tmp_path / "rows.json").read_text(encoding="utf-8")


def test_unknown_benchmarks_and_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'speed' is unknown"):
        run_benchmark("speed", True, None, None)
    with pytest.raises(BadInput, match="'live' has no pictures"):
        run_benchmark("live", True, None, None, tmp_path)


def test_surfaces_come_from_their_seed() -> None:
    first, again, other = made_surfaces(64), made_surfaces(64), made_surfaces(64, seed=2)
    assert [surface.name for surface in first] == [surface.name for surface in other]
    for one, same, different in zip(first, again, other, strict=True):
        assert one.heights_m.shape == (64, 64) and np.isfinite(one.heights_m).all() and np.ptp(one.heights_m) > 0
        np.testing.assert_array_equal(one.heights_m, same.heights_m)
        assert not np.array_equal(one.heights_m, different.heights_m)


def test_roughness_and_grains_have_the_slope_in_their_name() -> None:
    for surface in made_surfaces(128):
        kind, _, rest = surface.name.partition(", ")
        if kind in ("roughness", "nanograins"):
            slopes = np.gradient(surface.heights_m, surface.pixel_size_m)
            rms_deg = np.degrees(np.arctan(np.sqrt(np.mean(slopes[0] ** 2 + slopes[1] ** 2))))
            assert rms_deg == pytest.approx(float(rest.removesuffix(" deg")), abs=1e-6)


def test_walls_are_one_pixel_wide() -> None:
    terraces = next(surface for surface in made_surfaces(64) if surface.name.startswith("terraces"))
    steps = np.diff(terraces.heights_m / terraces.pixel_size_m)
    assert set(np.unique(np.round(np.abs(steps), 6)) % 12.0) == {0.0}


def test_mirroring_keeps_the_patch_and_makes_no_edge() -> None:
    row, column = np.mgrid[:6, :6]
    patch = 1.0 * row + 2.0 * column
    grown = tiled(patch, 20, 20)
    np.testing.assert_array_equal(grown[:6, :6], patch)
    np.testing.assert_array_equal(np.abs(np.diff(grown, axis=1)), 2.0)
    np.testing.assert_array_equal(tiled(patch, 4, 3), patch[:4, :3])


def test_real_maps_are_levelled_and_get_square_pixels(tmp_path: Path) -> None:
    """Pixels of 20 nm by 10 nm, lines thrown up and down by noise."""
    (tmp_path / "afm").mkdir()
    rng = np.random.default_rng(1)
    relief = 50e-9 * np.sin(np.arange(40) / 3.0)
    heights = relief + rng.normal(0.0, 200e-9, (20, 1))
    np.savez(tmp_path / "afm" / "waves.npz", height_m=heights.astype(np.float32), pixel_m=np.array([20e-9, 10e-9]))
    (surface,) = real_surfaces(tmp_path)
    assert (surface.name, surface.is_real, surface.heights_m.shape) == ("waves", True, (39, 40))
    assert surface.pixel_size_m == pytest.approx(10e-9)
    assert surface.instrument.scan.pixel_size_m == pytest.approx(10e-9)
    assert np.ptp(surface.heights_m, axis=0).max() < 5e-9 < np.ptp(surface.heights_m)
    assert real_surfaces(None) == []


def test_how_soon_the_service_answers_is_told_beside_the_rows() -> None:
    for slow_s, verdict in ((0.001, "yes"), (0.1, "no")):
        table = answer_table(np.array([0.001] * 190 + [slow_s] * 10), "here")
        told = {row: cells for row, *cells in zip(*(column.cells for column in table.columns), strict=True)}
        assert told["status_p99"] == [f"{1e3 * slow_s:.3g}", "ms", "20", verdict]
        assert told["status_p50"][0] == "1"


def test_programs_that_end_before_they_give_a_height_are_told(tmp_path: Path) -> None:
    with pytest.raises(ComponentFailed, match="before they gave a height"):
        status_times_s(["replay", str(tmp_path / "nowhere")], "http://127.0.0.1:1", tmp_path / "key", os.environ, 1)
