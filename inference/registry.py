"""The model sets that are installed: three slots each, a card that says where they come from, and checked hashes."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from acquisition.errors import BadInput, ComponentFailed

MODELS = Path(__file__).parent / "models"
CARD = "card.toml"
DEFAULT_MODEL = "classical"


TENSORS: Mapping[str, tuple[str, tuple[str | int, ...]]] = {
    "images": ("uint16", ("S", "H", "W")),  # counts
    "response": ("float", ("S", 3)),  # these down to beam_sigma_px: the fields of inference.calibration.Calibration
    "inversion": ("float", (3, "S")),
    "gain_counts_per_electron": ("float", ("S",)),
    "dark_counts": ("float", ("S",)),
    "flat_share": ("float", ()),
    "saturation_counts": ("float", ()),
    "pixel_size_m": ("float", ()),
    "pixel_size_y_m": ("float", ()),
    "beam_sigma_px": ("float", ()),
    "frames_held": ("float", ("H", "W")),  # of how many frames `images` is the mean; divides the variance of electrons
    "p": ("float", ("H", "V")),  # dz/dx between neighbours of a row, V = W - 1
    "q": ("float", ("U", "W")),  # dz/dy between neighbours of a column, U = H - 1
    "sigma_p": ("float", ("H", "V")),  # standard deviations of p and q; large where rejected, never infinite
    "sigma_q": ("float", ("U", "W")),
    "rejected": ("uint8", ("H", "W")),  # 1 where saturated, without signal, or beyond 75 degrees
    "predicted": ("float", ("S", "H", "W")),  # counts that the slopes explain
    "residual": ("float", ("H", "W")),  # rms over segments of measured minus predicted, in units of expected noise
    "height": ("float", ("H", "W")),  # metres, mean zero
    "misfit": ("float", ()),  # rms of the part of the slopes that no height has
}
"""The contract of the slots: element type (as ONNX names it) and axes of every tensor by name. Never NaN."""

CALIBRATION = tuple(TENSORS)[1:10]


@dataclass(frozen=True, slots=True)
class Slot:
    """A graph drops into the slot that takes any of `inputs` and gives all of `outputs`, in this order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


SLOTS: Mapping[str, Slot] = {
    "slopes": Slot(("images", *CALIBRATION, "frames_held"), ("p", "q", "sigma_p", "sigma_q", "rejected")),
    "rerender": Slot(
        ("images", *CALIBRATION, "frames_held", "p", "q", "sigma_p", "sigma_q", "rejected"), ("predicted", "residual")
    ),
    "integrate": Slot((*CALIBRATION, "p", "q", "sigma_p", "sigma_q", "rejected", "residual"), ("height", "misfit")),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Where the graph of one slot comes from: `command` rebuilds it from `data` and `seed` in about `hours`; `figures`
    are what it reached on what it was never trained on."""

    command: str
    data: str
    seed: int
    hours: float
    figures: Mapping[str, float]
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a set is, and what each of its graphs is, by slot."""

    name: str
    version: str
    description: str
    parts: Mapping[str, Part]
    folder: Path

    def tree(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "folder"}

    def graph(self, slot: str) -> Path:
        return self.folder / f"{slot}.onnx"

    @property
    def sha256(self) -> dict[str, str]:
        return {slot: part.sha256 for slot, part in self.parts.items()}


def list_model_sets(*folders: Path) -> list[ModelCard]:
    """Every set with a card, those that came with the program if no folder is named; of two of one name the first."""
    found: dict[str, ModelCard] = {}
    for folder in folders or (MODELS,):
        for path in sorted(folder.glob(f"*/{CARD}")):
            found.setdefault(path.parent.name, read_card(path.parent))
    return list(found.values())


def find_model_set(name: str, *folders: Path) -> ModelCard:
    """The set of that name, looked for as `list_model_sets` does, with every hash checked. Raises `BadInput` for an
    unknown name, `ComponentFailed` when a file is not the one its card names."""
    plain = Path(name).name == name
    places = [one / name for one in folders or (MODELS,) if plain and (one / name / CARD).is_file()]
    if not places:
        known = [card.name for card in list_model_sets(*folders)]
        raise BadInput(f"model set {name!r} is not installed; installed: {', '.join(known) or 'none'}")
    card = read_card(places[0])
    for slot in SLOTS:
        path = card.graph(slot)
        found = _sha256(path) if path.is_file() else "nothing"
        if found != card.parts[slot].sha256:
            expected = card.parts[slot].sha256 or "none"
            raise ComponentFailed(
                f"{path} is not what its card says (found {found[:12]}, expected {expected[:12]}): "
                f"install again, or rebuild it with `{card.parts[slot].command}`"
            )
    return card


def read_card(folder: Path) -> ModelCard:
    """Raises `ComponentFailed` when the card cannot be read."""
    try:
        tree = tomllib.loads((folder / CARD).read_text(encoding="utf-8"))
        return ModelCard(
            name=str(tree["name"]),
            version=str(tree["version"]),
            description=str(tree["description"]),
            parts={slot: _part(tree["parts"][slot]) for slot in SLOTS},
            folder=folder,
        )
    except KeyError as error:
        raise ComponentFailed(f"the model card in {folder} lacks {error}: install again, or rebuild the set") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ComponentFailed(f"the model card in {folder} cannot be read: {error}; install again") from error


def write_card(card: ModelCard) -> Path:
    """Write the card of the graphs that lie in its folder, with their hashes."""
    hashed = {slot: replace(part, sha256=_sha256(card.graph(slot))) for slot, part in card.parts.items()}
    path = card.folder / CARD
    path.write_text(tomli_w.dumps(replace(card, parts=hashed).tree()), encoding="utf-8")
    return path


def _part(tree: Mapping[str, Any]) -> Part:
    return Part(
        command=str(tree["command"]),
        data=str(tree["data"]),
        seed=int(tree["seed"]),
        hours=float(tree["hours"]),
        figures={str(name): float(value) for name, value in tree["figures"].items()},
        sha256=str(tree["sha256"]),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
