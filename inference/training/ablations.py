"""The networks with one thing taken away, to see what it is good for: same frames, same number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from inference.networks.integrator import FEATURES as INTEGRATOR_FEATURES
from inference.networks.integrator import Integrated, IntegratorNet, features_of
from inference.networks.moments import FEATURES
from inference.networks.poisson import slopes_of
from inference.networks.slopes import MORE_FEATURES, SlopeNet, staggered
from inference.networks.unet import UNet
from inference.networks.wiener import Filtered
from inference.registry import MODELS
from inference.training.batches import Batch, Examples
from inference.training.integrator import IntegratorLesson
from inference.training.run import Lesson, Recipe
from inference.training.slopes import SlopeLesson

MOST_SEGMENTS = 8


@dataclass(frozen=True, slots=True)
class Variant:
    """`error` names the figure that is compared with that of the network as it is, the first of each kind."""

    lesson: Lesson
    recipe: Recipe
    error: str


class RawSlopeLesson(SlopeLesson):
    """Without the physics in the input: segments as shares of their sum and nothing that calibration knows, nothing
    classical to add to."""

    def examples(self, batch: Batch) -> Examples:
        usual = super().examples(batch)
        brightness = batch.images.mean(dim=1, keepdim=True).clamp_min(1.0)
        shares = batch.images / brightness
        empty = MOST_SEGMENTS - shares.shape[1]
        level = 0.2 * torch.log(brightness)
        raw = torch.cat([nn.functional.pad(shares, (0, 0, 0, 0, 0, empty)), level, torch.ones_like(level)], dim=1)
        assert raw.shape[1] == FEATURES
        nothing, unit = torch.zeros_like(usual["slopes"]), torch.full_like(usual["variances"], 0.01)
        return {**usual, "slopes": nothing, "variances": unit, "features": raw}


class AddingNet(nn.Module):
    """Without scales: a plain U-Net that only adds to what it starts from."""

    def __init__(self, width: int, depth: int, blocks: int) -> None:
        super().__init__()
        self.net = UNet(FEATURES + MORE_FEATURES, 4, width, depth, blocks)

    def forward(
        self, features: Sequence[Tensor], taken: Tensor, slopes: Tensor, variances: Tensor, lit: Tensor, unit: Tensor
    ) -> tuple[Tensor, ...]:
        found = self.net(*features)
        return torch.zeros_like(taken), unit * found[:, :2], found[:, 2:]


class UnfilteredNet(SlopeNet):
    """Starts from the classical slopes themselves."""

    def start(self, features: Tensor, slopes: Tensor, variances: Tensor, aspect: Tensor | float) -> Filtered:
        return Filtered(*staggered(slopes), torch.ones_like(slopes[:, 0, 0, 0]))


class AddingSlopeLesson(SlopeLesson):
    def network(self, recipe: Recipe) -> SlopeNet:
        return _adding(super().network(recipe), recipe)


class UnfilteredSlopeLesson(SlopeLesson):
    """The U-Net of the method as it is published."""

    def network(self, recipe: Recipe) -> SlopeNet:
        return _adding(UnfilteredNet(recipe.width, recipe.depth, recipe.blocks), recipe)


def _adding(net: SlopeNet, recipe: Recipe) -> SlopeNet:
    net.net = AddingNet(recipe.width, recipe.depth, recipe.blocks)
    return net


class PlainSlopeLesson(SlopeLesson):
    """Without the log-variance: no sigma is learned."""

    def losses(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        return {name: loss for name, loss in super().losses(net, examples).items() if name != "coverage"}


class PureNetwork(IntegratorNet):
    """Without the exact solver: the U-Net gives the height itself."""

    def __init__(self, width: int, depth: int, blocks: int) -> None:
        super().__init__(width, depth, blocks)
        self.net = UNet(INTEGRATOR_FEATURES, 1, width, depth, blocks)

    def forward(
        self,
        p: Tensor,
        q: Tensor,
        sigma_p: Tensor,
        sigma_q: Tensor,
        rejected: Tensor,
        residual: Tensor,
        aspect: Tensor | float = 1.0,
    ) -> Integrated:
        features = features_of(p, q, torch.zeros_like(p), torch.zeros_like(q), sigma_p, sigma_q, rejected, residual)
        height = self.net(features).squeeze(1)
        found_p, found_q = slopes_of(height - height.mean(dim=(1, 2), keepdim=True), aspect)
        return Integrated(height, found_p, found_q, (found_p - p).square().mean(dim=(1, 2)).sqrt())


class PureNetworkLesson(IntegratorLesson):
    def network(self, recipe: Recipe) -> PureNetwork:
        return PureNetwork(recipe.width, recipe.depth, recipe.blocks)


def variants(samples: int, seed: int = 1) -> dict[str, Variant]:
    """By name; "as it is" first of its kind, with two more seeds to tell what is chance. Classical slopes into the
    integrators."""
    slopes = Recipe(samples=samples, seed=seed)
    integrator = Recipe(samples=samples, seed=seed, width=16, depth=3, blocks=1)
    classical = MODELS / "classical"
    error, height = "error_deg", "height_vs_exact"
    return {
        "slopes as they are": Variant(SlopeLesson(), slopes, error),
        "slopes without physics input": Variant(RawSlopeLesson(), slopes, error),
        "slopes without scales": Variant(AddingSlopeLesson(), slopes, error),
        "slopes without scales and filter": Variant(UnfilteredSlopeLesson(), slopes, error),
        "slopes without log-variance": Variant(PlainSlopeLesson(), slopes, error),
        "slopes without hard examples": Variant(SlopeLesson(), replace(slopes, hard_every=0), error),
        "slopes with AdamW": Variant(SlopeLesson(), replace(slopes, muon=False), error),
        "slopes, seed 2": Variant(SlopeLesson(), replace(slopes, seed=seed + 1), error),
        "slopes, seed 3": Variant(SlopeLesson(), replace(slopes, seed=seed + 2), error),
        "integrator as it is": Variant(IntegratorLesson(classical), integrator, height),
        "integrator as a pure network": Variant(PureNetworkLesson(classical), integrator, height),
    }


def own_folder(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "-")
