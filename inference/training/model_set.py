"""Trained networks as installed model sets: a new graph in one slot, what was there before in the others."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tomli_w

from inference.registry import CARD, MODELS, SLOTS, ModelCard, Part, find_model_set, read_card, write_card

VERSION = "1"


def like_classical(folder: Path) -> Path:
    """The set in `folder`; where there is none, one of that name with the classical graphs."""
    if not (folder / CARD).is_file():
        classical = find_model_set("classical", MODELS)
        folder.mkdir(parents=True, exist_ok=True)
        for slot in SLOTS:
            shutil.copy(classical.graph(slot), folder)
        write_card(ModelCard(folder.name, VERSION, classical.description, classical.parts, folder))
    return folder


def install_part(folder: Path, slot: str, write: Callable[[Path], None], part: Part) -> ModelCard:
    """Let `write` put a graph into `slot` of the set in `folder`; returns the new card."""
    card = read_card(folder)
    write(card.graph(slot))
    learned = [name for name in SLOTS if name == slot or card.parts[name].hours > 0]
    exact = [name for name in SLOTS if name not in learned]
    description = f"learned: {', '.join(learned)}; as in classical: {', '.join(exact) or 'nothing'}"
    write_card(replace(card, description=description, parts={**card.parts, slot: part}))
    return read_card(folder)


def install_alone(folder: Path, write: Callable[[Path], None], part: Part) -> ModelCard:
    """Let `write` put the graph of a net that fits no slot into `folder`, under the folder's name and with a card of
    that name beside it, so that nobody takes the folder for a set."""
    folder.mkdir(parents=True, exist_ok=True)
    name = folder.name
    write(folder / f"{name}.onnx")
    found = replace(part, sha256=hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest())
    card = ModelCard(name, VERSION, f"learned: {name}, which fits no slot of a model set", {name: found}, folder)
    (folder / f"{name}.toml").write_text(tomli_w.dumps(card.tree()), encoding="utf-8")
    return card
