"""The planner as people and programs ask it: the command, the route, and that both say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant
from programs import Program, eclips, write_settings
from service.commands.plan import metres, wanted_feature

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings that differ from the defaults: an instrument file of its own, a raster, a dwell time."""
    folder = tmp_path_factory.mktemp("plan")
    instrument = four_quadrant().with_scan(working_distance_m=6e-3, current_a=0.5e-9)
    (folder / "near.toml").write_text(instrument.to_toml(), encoding="utf-8")
    path = write_settings(folder, 96, scan="dwell_time_s = 2e-6\npixel_size_m = 4e-9")
    path.write_text('instrument = "near.toml"\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def client(config: Path) -> Iterator[httpx.Client]:
    """The service alone, no node beside it: the settings' instrument is the one in use."""
    program = Program("serve", "--config", str(config), runs=config.parent / "runs")
    with program.client() as made:
        yield made
    program.close()


def planned(*arguments: str) -> Any:
    done = eclips("plan", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_route_and_the_command_give_the_same_numbers(client: httpx.Client, config: Path) -> None:
    told = planned("--config", str(config), "--terrace", "200nm", "--step", "2 nm")
    asked = client.get("/plan", params={"terrace_m": 200e-9, "step_m": 2e-9}).json()
    assert asked == told
    assert told["shape"] == [96, 96]
    assert told["working_distance_m"] == 6e-3
    assert told["dwell_time_s"] == 2e-6


def test_the_route_plans_another_frame_when_asked_to(client: httpx.Client) -> None:
    whole = client.get("/plan").json()
    wide = client.get("/plan", params={"width_px": 1024, "height_px": 512}).json()
    assert wide["shape"] == [512, 1024]
    assert wide["frame_time_s"] == pytest.approx(512 * 1024 * 2e-6 + 512 * 50e-6)
    assert wide["noise"] == whole["noise"]
    assert whole["feature"] is None


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"terrace_m": 200e-9}, "belong together"),
        ({"terrace_m": 1e-9, "step_m": 1e-9}, "narrower than 3 pixels of 4 nm"),
        ({"terrace_m": 100e-9, "step_m": -1e-9}, "above 0"),
        ({"width_px": 3}, "width_px"),
        ({"dose": 0.0}, "dose 0 electrons"),
    ],
)
def test_what_cannot_be_planned_is_a_problem_with_a_reason(
    client: httpx.Client, query: dict[str, float], named: str
) -> None:
    answer = client.get("/plan", params=query)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_nothing_is_planned_without_the_key(client: httpx.Client) -> None:
    assert client.get("/plan", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_the_table_ends_in_plain_language() -> None:
    done = eclips("plan", "--instrument", str(DEPLOY / "four-quadrant.toml"), "--terrace", "200nm", "--step", "2nm")
    assert done.returncode == 0, done.stderr
    words = "A 2 nm step between 200 nm terraces shows at 3.1 sigma in one frame; 3 frames or a dwell time of 2.6 µs"
    assert words in done.stdout
    assert "Best to change: working distance 8 to 4.8 mm" in done.stdout


def test_a_dose_stands_in_for_current_and_dwell_time() -> None:
    made = planned("--dose", "5000", "--size", "1024")
    assert made["detected"] == pytest.approx(5000.0)
    assert made["shape"] == [1024, 1024]


def test_segments_without_radii_need_a_dose(tmp_path: Path) -> None:
    tree = four_quadrant().model_dump()
    for segment in tree["detector"]["segments"]:
        segment.update(inner_radius_m=None, outer_radius_m=None, modulation=1.4)
    path = tmp_path / "unknown.toml"
    path.write_text(Instrument.model_validate(tree).to_toml(), encoding="utf-8")
    refused = eclips("plan", "--instrument", str(path))
    assert refused.returncode == 2
    assert "give the dose" in refused.stderr
    assert planned("--instrument", str(path), "--dose", "600")["shadow_free_tilt_deg"] is None


@pytest.mark.parametrize(
    ("text", "expected_m"),
    [("200nm", 200e-9), (" 0.2 µm", 0.2e-6), ("0.2μm", 0.2e-6), ("3um", 3e-6), ("1e-3 mm", 1e-6), ("2e-9m", 2e-9)],
)
def test_lengths_are_read_with_their_unit(text: str, expected_m: float) -> None:
    assert metres(text, "--step") == pytest.approx(expected_m)


@pytest.mark.parametrize(
    "text", ["200", "nm", "-2nm", "0nm", "2 parsec", "1.2.3nm", "2,5nm", "nannm", "1e999m", "", "."]
)
def test_lengths_that_are_none_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match=r"--step .* is no length above 0 with a unit .* write it as 200nm"):
        metres(text, "--step")


def test_half_a_feature_is_refused() -> None:
    with pytest.raises(BadInput, match="belong together"):
        wanted_feature("200nm", None)
