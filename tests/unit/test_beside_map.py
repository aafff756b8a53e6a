"""The row against MAP: what it is made of, and that every surface is asked at the doses it says."""

from __future__ import annotations

import pytest

from acquisition.errors import BadInput
from service.benchmarks import beside_map
from service.benchmarks.beside_map import Beside, measure, network_vs_map
from service.benchmarks.judged import CLASSICAL
from service.benchmarks.measured import Measured, NotMeasured, Request

CROPS = [
    Beside("hills 1, N = 600", "hills", 2.0, 2.5, 4.0),
    Beside("hills 1, N = 10000", "hills", 1.2, 1.0, 2.0),
    Beside("pits 8, N = 600", "pits", 3.0, 2.0, 5.0),
]
REQUEST = Request(False, None, (CLASSICAL,))


def test_the_row_is_the_worst_crop_over_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_map, "_crops", lambda request: iter(CROPS))
    report = measure(REQUEST)
    row = report.rows["network_vs_map"]
    assert isinstance(row, Measured) and row.value == pytest.approx(1.5) and row.peer == "MAP"
    assert "pits 8, N = 600" in row.conditions and "2 families" in row.conditions
    assert "median 1.20, 2 of 3 at most 1.3" in row.conditions
    assert report.table is not None and report.table.row_count == 3
    assert network_vs_map(REQUEST) == row


def test_without_torch_the_row_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_map, "find_spec", lambda name: None)
    assert "extra `train`" in measure(REQUEST).left_out
    found = network_vs_map(REQUEST)
    assert isinstance(found, NotMeasured) and "torch" in found.reason


def test_a_set_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadInput, match="nowhere"):
        measure(REQUEST._replace(models=("nowhere",)))


@pytest.mark.parametrize(("quick", "doses"), [(True, [10_000.0]), (False, [600.0, 10_000.0])])
def test_crops_are_taken_at_both_doses_or_with_quick_at_one(
    quick: bool, doses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_cases = beside_map.seen_cases
    monkeypatch.setattr(
        beside_map, "seen_cases", lambda *asked: seen_cases(*asked[:3], lambda scene: scene.family == "terraces")
    )
    monkeypatch.setattr(
        beside_map, "beside_map", lambda seen, model: Beside(model.name, "terraces", seen.case.sample.dose, 1.0, 1.0)
    )
    row = measure(REQUEST._replace(quick=quick)).rows["network_vs_map"]
    assert isinstance(row, Measured) and f"worst of {len(doses)} crops" in row.conditions and row.value == max(doses)
