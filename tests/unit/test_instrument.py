"""The instrument file: read strictly, written back the same, impossible geometry refused with the value."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant, load_instrument, parse_instrument


def test_an_instrument_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "instrument.toml"
    path.write_text(four_quadrant().to_toml())
    assert load_instrument(path) == four_quadrant()


def test_any_changed_number_changes_the_hash() -> None:
    assert four_quadrant().calibration_hash == four_quadrant().calibration_hash
    assert four_quadrant().with_scan(working_distance_m=8.01e-3).calibration_hash != four_quadrant().calibration_hash


def test_pixels_that_are_not_square_keep_their_shape_at_another_size() -> None:
    oblong = parse_instrument(changed(("scan", "pixel_size_y_m"), 10e-9), "test")
    assert oblong.with_scan(pixel_size_m=1e-9).scan.pixel_size_y_m == pytest.approx(2e-9)
    assert four_quadrant().with_scan(pixel_size_m=1e-9).scan.pixel_size_y_m is None


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    tree: Any = copy.deepcopy(tomllib.loads(four_quadrant().to_toml()))
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return dict(tree)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("detector", "segments", 0, "inner_radius_m"), 7e-3, "inner radius 0.007 m must be below outer radius"),
        (("detector", "segments", 1, "azimuth_from_deg"), 20.0, "segments A and B overlap"),
        (("detector", "working_distance_m"), 0.0, "detector.working_distance_m"),
        (("detector", "segments", 2, "name"), "A", "not distinct"),
        (("detector", "segments", 3, "azimuth_to_deg"), 200.0, "spans"),
        (("scan", "pixel_size_m"), float("nan"), "scan.pixel_size_m"),
        (("beam", "energy_ev"), -1.0, "beam.energy_ev"),
        (("beam", "colour"), "red", "beam.colour"),
        (("detector", "segments"), [], "detector.segments"),
    ],
)
def test_what_cannot_be_is_refused(path: tuple[str | int, ...], value: Any, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        parse_instrument(changed(path, value), "test")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.toml does not exist"):
        load_instrument(tmp_path / "nowhere.toml")
