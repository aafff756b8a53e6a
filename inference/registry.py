"""The model sets that are installed: three slots each, a card that says where they come from, and checked hashes."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from acquisition.errors import BadInput, ComponentFailed

MODELS = Path(__file__).parent / "models"
CARD = "card.toml"
DEFAULT_MODEL = "classical"


@dataclass(frozen=True, slots=True)
class Slot:
    """Names of a graph's inputs and outputs: whatever keeps them drops into the slot."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


SLOTS: Mapping[str, Slot] = {
    "slopes": Slot(
        ("images", "inversion", "gain_counts_per_electron", "dark_counts", "flat_share", "saturation_counts"),
        ("p", "q", "sigma_p", "sigma_q", "rejected", "kappa"),
    ),
    "rerender": Slot(
        ("images", "p", "q", "kappa", "response", "gain_counts_per_electron", "dark_counts", "flat_share"),
        ("predicted", "residual"),
    ),
    "integrate": Slot(
        ("p", "q", "sigma_p", "sigma_q", "residual", "pixel_size_m", "pixel_size_y_m"),
        ("height", "misfit"),
    ),
}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a set is. `sha256` by slot; `figures` are what it reached on the fixed test set."""

    name: str
    description: str
    command: str
    sha256: Mapping[str, str]
    figures: Mapping[str, float]
    folder: Path

    def tree(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "folder"}

    def graph(self, slot: str) -> Path:
        return self.folder / f"{slot}.onnx"


def list_model_sets(models: Path = MODELS) -> list[ModelCard]:
    """Every set with a card."""
    return [read_card(path.parent) for path in sorted(models.glob(f"*/{CARD}"))]


def find_model_set(name: str, models: Path = MODELS) -> ModelCard:
    """The set of that name with every hash checked. Raises `BadInput` for an unknown name, `ComponentFailed` when a
    file is not the one its card names."""
    if not (models / name / CARD).is_file():
        known = [card.name for card in list_model_sets(models)]
        raise BadInput(f"model set {name!r} is not installed; installed: {', '.join(known) or 'none'}")
    card = read_card(models / name)
    for slot in SLOTS:
        path = card.graph(slot)
        found = _sha256(path) if path.is_file() else "nothing"
        if found != card.sha256.get(slot):
            expected = card.sha256.get(slot, "none")
            raise ComponentFailed(
                f"{path} is not what its card says (found {found[:12]}, expected {expected[:12]}): "
                f"install again, or rebuild it with `{card.command}`"
            )
    return card


def read_card(folder: Path) -> ModelCard:
    """Raises `ComponentFailed` when the card cannot be read."""
    try:
        tree = tomllib.loads((folder / CARD).read_text(encoding="utf-8"))
        return ModelCard(
            tree["name"], tree["description"], tree["command"], tree["sha256"], tree.get("figures", {}), folder
        )
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ComponentFailed(f"the model card in {folder} cannot be read: {error}") from error


def write_card(folder: Path, name: str, description: str, command: str, figures: Mapping[str, float]) -> Path:
    """Hash the graphs in `folder` and write its card."""
    tree = {
        "name": name,
        "description": description,
        "command": command,
        "sha256": {slot: _sha256(folder / f"{slot}.onnx") for slot in SLOTS},
        "figures": dict(figures),
    }
    path = folder / CARD
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
