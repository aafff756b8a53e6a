"""The lesson of the PINN integrator: slopes as the live chain gives them, heights out, physics in the losses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inference.networks.integrator import Integrated, IntegratorNet
from inference.networks.poisson import integrate, slopes_of
from inference.registry import MODELS, SLOTS, find_model_set
from inference.session import OnnxSession
from inference.training.batches import Batch, Examples
from inference.training.run import Recipe
from inference.training.surface_errors import surface_errors

TAKEN = ("p", "q", "sigma_p", "sigma_q", "rejected", "residual")
SQUARE_PIXELS = {"pixel_size_m": np.float32(1.0), "pixel_size_y_m": np.float32(1.0)}
LEAST_HEIGHT_PX = 1e-3
LEAST_ANGLE = 1e-3
PHYSICS_WEIGHT = 0.1


class IntegratorLesson:
    """Height, consistency with the true normals, and physics: corrected slopes without curl, and at the border the
    height's outward derivative equal to the slope there (Neumann).

    Learns from the slopes of `graphs` and from classical ones, batch by batch in turn, so that it neither leans on one
    slope network nor on none. Logarithms make a frame's relative improvement count, at any scale.
    """

    def __init__(self, graphs: Path) -> None:
        self._folders = tuple(dict.fromkeys((MODELS / "classical", graphs)))
        self._turn = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_folders": self._folders, "_turn": self._turn}

    @cached_property
    def _chains(self) -> list[list[OnnxSession]]:
        cards = [find_model_set(folder.name, folder.parent) for folder in self._folders]
        return [
            [OnnxSession(card.graph(name), SLOTS[name], "cpu", 1) for name in ("slopes", "rerender")] for card in cards
        ]

    def network(self, recipe: Recipe) -> IntegratorNet:
        return IntegratorNet(recipe.width, recipe.depth, recipe.blocks)

    def examples(self, batch: Batch) -> Examples:
        self._turn += 1
        slopes, rerender = self._chains[self._turn % len(self._chains)]
        seen = []
        for place, images in enumerate(batch.images):
            values: dict[str, Any] = {name: numbers[place].numpy() for name, numbers in batch.numbers.items()}
            values["images"] = images.numpy().astype(np.uint16)
            values |= SQUARE_PIXELS
            values |= slopes.run(values)
            seen.append(values | rerender.run(values))
        given = {name: torch.from_numpy(np.stack([values[name] for values in seen])) for name in TAKEN}
        return {**given, "rejected": given["rejected"].to(torch.float32), "height": batch.height}

    def losses(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        found = net(*(examples[name] for name in TAKEN))
        truth = examples["height"]
        height, angle = surface_errors(found.height, truth)
        with torch.no_grad():
            height_before, angle_before = surface_errors(integrate(examples["p"], examples["q"]), truth)
        curl, border = physics(found)
        return {
            "height": torch.log(height + LEAST_HEIGHT_PX),
            "normals": torch.log(angle + LEAST_ANGLE),
            "curl": PHYSICS_WEIGHT * torch.log(curl + LEAST_ANGLE),
            "neumann": PHYSICS_WEIGHT * torch.log(border + LEAST_ANGLE),
            "hardness": torch.log(
                (height.detach() + LEAST_HEIGHT_PX)
                * (angle.detach() + LEAST_ANGLE)
                / ((height_before + LEAST_HEIGHT_PX) * (angle_before + LEAST_ANGLE))
            ),
        }

    def figures(self, net: nn.Module, held: list[Examples]) -> dict[str, float]:
        """Height and angle errors against those of the exact solver on the same slopes, and how large the correction
        is against the slopes' own errors: a correction that dies shows there."""
        heights, angles, corrections = [], [], []
        with torch.no_grad():
            for examples in held:
                found = net(*(examples[name] for name in TAKEN))
                before = surface_errors(integrate(examples["p"], examples["q"]), examples["height"])
                after = surface_errors(found.height, examples["height"])
                heights.append(after[0] / before[0].clamp_min(1e-6))
                angles.append(after[1] / before[1].clamp_min(1e-6))
                off = (slopes_of(examples["height"])[0] - examples["p"]).abs().mean(dim=(1, 2))
                corrections.append((found.p - examples["p"]).abs().mean(dim=(1, 2)) / off.clamp_min(1e-6))
        ratio, turned = torch.cat(heights), torch.cat(angles)
        return {
            "height_vs_exact": float(ratio.median()),
            "worst_height_vs_exact": float(ratio.max()),
            "angle_vs_exact": float(turned.median()),
            "worst_angle_vs_exact": float(turned.max()),
            "correction_vs_error": float(torch.cat(corrections).median()),
        }


def physics(found: Integrated) -> tuple[Tensor, Tensor]:
    """(B,) rms curl of the corrected slopes, and rms difference at the border between them and the height's outward
    derivative."""
    curl = torch.diff(found.p, dim=1) - torch.diff(found.q, dim=2)
    off_p, off_q = (fit - slope for fit, slope in zip(slopes_of(found.height), (found.p, found.q), strict=True))
    border = torch.cat([off_p[:, :, 0], off_p[:, :, -1], off_q[:, 0], off_q[:, -1]], dim=1)
    return ((curl**2).mean(dim=(1, 2)) + 1e-12).sqrt(), ((border**2).mean(dim=1) + 1e-12).sqrt()
