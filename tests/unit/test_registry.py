"""A model set is what its card says, a graph fits its slot, and what really runs it is said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import tomli_w

from acquisition.errors import BadInput, ComponentFailed
from inference.registry import (
    CALIBRATION,
    CARD,
    DEFAULT_MODEL,
    MODELS,
    SLOTS,
    TENSORS,
    find_model_set,
    list_model_sets,
    read_card,
    write_card,
)
from inference.session import OnnxSession

CLASSICAL = MODELS / "classical"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder of model sets with a copy of the classical one."""
    shutil.copytree(CLASSICAL, tmp_path / "classical")
    return tmp_path


def test_the_default_model_is_installed_and_sound() -> None:
    assert find_model_set(DEFAULT_MODEL).name == DEFAULT_MODEL


def test_every_card_is_named_after_its_folder_and_can_be_rebuilt() -> None:
    for card in list_model_sets():
        assert card.name == card.folder.name
        assert set(card.parts) == set(SLOTS)
        assert all(part.command.startswith("eclips train ") for part in card.parts.values())


def test_a_card_comes_back_as_it_was_written(copied: Path) -> None:
    card = read_card(copied / "classical")
    learned = replace(card.parts["slopes"], figures={"error_deg": 1.5}, seed=7, hours=2.5)
    card = replace(card, parts={**card.parts, "slopes": learned})
    write_card(card)
    assert read_card(copied / "classical") == card


def test_a_set_without_one_of_its_graphs_is_refused(copied: Path) -> None:
    (copied / "classical" / "rerender.onnx").unlink()
    with pytest.raises(ComponentFailed, match=r"rerender\.onnx .*install again"):
        find_model_set("classical", copied)


@pytest.mark.parametrize("key", ["version", "parts", "command", "sha256"])
def test_a_card_that_lacks_a_key_is_refused_with_its_name(copied: Path, key: str) -> None:
    tree = read_card(copied / "classical").tree()
    del (tree if key in tree else tree["parts"]["rerender"])[key]
    (copied / "classical" / CARD).write_text(tomli_w.dumps(tree), encoding="utf-8")
    with pytest.raises(ComponentFailed, match=key):
        find_model_set("classical", copied)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name = ", b"[sha256"])
def test_a_damaged_card_is_refused(copied: Path, content: bytes) -> None:
    (copied / "classical" / CARD).write_bytes(content)
    with pytest.raises(ComponentFailed, match="cannot be read"):
        find_model_set("classical", copied)


def test_what_a_slot_takes_is_known_before_it_runs() -> None:
    known = {"images", "frames_held", *CALIBRATION}
    for slot in SLOTS.values():
        assert set(slot.inputs) <= known
        assert set(slot.outputs) <= set(TENSORS)
        known |= set(slot.outputs)


def test_a_graph_of_another_slot_is_refused() -> None:
    with pytest.raises(ComponentFailed, match="does not fit its slot"):
        OnnxSession(CLASSICAL / "integrate.onnx", SLOTS["slopes"], "cpu")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slopes.onnx").write_bytes(b"no graph")
    with pytest.raises(ComponentFailed, match="cannot be loaded"):
        OnnxSession(tmp_path / "slopes.onnx", SLOTS["slopes"], "cpu")


def test_a_missing_input_and_a_wrong_shape_are_said() -> None:
    session = OnnxSession(CLASSICAL / "integrate.onnx", SLOTS["integrate"], "cpu")
    with pytest.raises(ComponentFailed, match="needs the input"):
        session.run({})
    values = {name: np.zeros((4, 4), np.float32) for name in SLOTS["integrate"].inputs}
    with pytest.raises(ComponentFailed, match=r"integrate\.onnx failed on CPU"):
        session.run({**values, "pixel_size_m": np.float32(1), "pixel_size_y_m": np.float32(1)})


def test_settings_that_cannot_be_are_refused_with_their_name() -> None:
    with pytest.raises(BadInput, match=r"inference\.provider.*auto, cuda, cpu"):
        OnnxSession(CLASSICAL / "integrate.onnx", SLOTS["integrate"], "gpu")
    with pytest.raises(BadInput, match=r"inference\.threads"):
        OnnxSession(CLASSICAL / "integrate.onnx", SLOTS["integrate"], "cpu", -1)


def test_without_cuda_auto_says_cpu_and_cuda_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert OnnxSession(CLASSICAL / "integrate.onnx", SLOTS["integrate"], "auto").provider == "CPU"
    with pytest.raises(ComponentFailed, match=r"inference\.provider"):
        OnnxSession(CLASSICAL / "integrate.onnx", SLOTS["integrate"], "cuda")
