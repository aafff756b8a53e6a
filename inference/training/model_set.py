"""A trained slope network as an installed model set: its graph beside the exact ones of the other slots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inference.networks.export import export_slopes
from inference.networks.slopes import SlopeNet
from inference.registry import ModelCard, write_card
from inference.training.classical import export_classical
from inference.training.slopes import Recipe

DATA = "simulated frames of inference.training.frames: fourteen families of surfaces, 64 detector geometries"


def write_slope_set(net: SlopeNet, folder: Path, recipe: Recipe, command: str, figures: Mapping[str, float]) -> Path:
    """Write the three graphs and their card to `folder`, whose name becomes the set's; returns the card."""
    export_classical(folder)
    export_slopes(net, folder / "slopes.onnx")
    card = ModelCard(
        name=folder.name,
        version="1",
        description="U-Net slopes with learned uncertainty; re-rendering and integration as in classical",
        command=command,
        data=DATA,
        seed=recipe.seed,
        sha256={},
        figures=figures,
        folder=folder,
    )
    return write_card(card)
