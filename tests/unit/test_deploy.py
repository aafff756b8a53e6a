"""Every example configuration is loaded, and says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from acquisition.clock import SystemClock
from acquisition.endpoints import check_reachable_only_by_friends
from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant, load_instrument
from hardware_drivers.sharksem.segments import SEGMENT_PATTERN, find_segments
from inference.forward_model import render
from service import wiring
from service.settings import RUNS_VARIABLE, Settings, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLES = ["workstation.toml", "node.toml", "gpu-box.toml", "emulated-lab.toml"]


@pytest.fixture(autouse=True)
def _no_runs_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNS_VARIABLE, raising=False)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_settings_load(name: str) -> None:
    settings = load_settings(DEPLOY / name)
    assert settings.runs_folder == Path("~/eclips-runs").expanduser()


@pytest.mark.parametrize("name", ["workstation.toml", "emulated-lab.toml"])
def test_example_builds_its_lab(name: str) -> None:
    wiring.check(load_settings(DEPLOY / name))


def test_emulated_lab_example_names_every_role_and_turns_real_by_one_word() -> None:
    settings = load_settings(DEPLOY / "emulated-lab.toml")
    lab = wiring.lab(settings, SystemClock())
    assert lab.simulated and set(lab.devices) == {
        *("detector", "stage", "heater", "pyrometer", "gauge", "hydrogen", "oxygen"),
    }
    emulators = wiring.emulated_instruments(settings, SystemClock())
    assert {"microscope", *lab.devices} == {*emulators.addresses, "detector", "stage"}
    real = load_settings(DEPLOY / "emulated-lab.toml", {"microscope": {"kind": "real"}})
    assert not wiring.lab(real, SystemClock()).simulated


def test_tescan_example_is_the_default_instrument_with_the_names_that_the_microscope_has() -> None:
    shown, plain = load_instrument(DEPLOY / "tescan-4q.toml"), four_quadrant()
    names = [segment.name for segment in shown.detector.segments]
    assert names == ["Q1", "Q2", "Q3", "Q4"]
    listing = "".join(f"det.{n}.name=BSE {name}\ndet.{n}.detector={n + 4}\n" for n, name in enumerate(names))
    assert find_segments(names, listing, re.compile(SEGMENT_PATTERN)) == [4, 5, 6, 7]
    unnamed = [segment.model_copy(update={"name": ""}) for segment in shown.detector.segments]
    assert unnamed == [segment.model_copy(update={"name": ""}) for segment in plain.detector.segments]
    assert (shown.beam, shown.specimen, shown.scan) == (plain.beam, plain.specimen, plain.scan)


def test_two_machine_examples_carry_keys_for_an_address_beyond_loopback() -> None:
    for name in ("node.toml", "gpu-box.toml"):
        stream = load_settings(DEPLOY / name).stream
        with pytest.raises(BadInput, match="eclips keys"):
            check_reachable_only_by_friends(stream.endpoints.data, None)
        check_reachable_only_by_friends(stream.endpoints.data, stream.keys)


def test_the_shipped_instrument_is_the_default_one() -> None:
    assert load_instrument(DEPLOY / "four-quadrant.toml") == four_quadrant()


def test_the_example_with_effects_is_the_default_instrument_with_every_kind_of_them() -> None:
    shown, plain = load_instrument(DEPLOY / "copper-in-gas.toml"), four_quadrant()
    assert shown.detector == plain.detector
    assert {gas.formula for gas in shown.effects.gases} == {"H2", "O2"}
    rendered = render(np.zeros((16, 16)), shown, np.random.default_rng(0))
    assert (rendered > 0).all()


def test_workstation_example_states_the_defaults() -> None:
    shown = load_settings(DEPLOY / "workstation.toml")
    default = Settings()
    for part in ("microscope", "scan", "limits", "interlocks", "inference", "serve"):
        assert getattr(shown, part) == getattr(default, part)


def test_unknown_keys_are_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[limits]\nheater_curent_a = 2.0\n")
    with pytest.raises(BadInput, match=r"limits\.heater_curent_a is unknown; did you mean heater_current_a\?"):
        load_settings(path)


def test_runs_folder_comes_from_the_environment_where_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path))
    assert load_settings(DEPLOY / "workstation.toml").runs_folder == tmp_path
