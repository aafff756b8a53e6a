"""The lesson of the slope network: simulated frames in, slopes and their uncertainty out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from inference.networks.moments import moments
from inference.networks.poisson import integrate, slopes_of
from inference.networks.slopes import SlopeNet, staggered
from inference.training.batches import Batch, Examples
from inference.training.run import Recipe
from inference.training.surface_errors import surface_errors

LITTLE = 0.25
HEIGHT_WEIGHT = 0.25
LEAST_ERROR = 1e-6
WITHIN = 0.6827
GIVEN = ("features", "slopes", "variances")


class SlopeLesson:
    """The angle and height by which the integrated surface is off, against what classical slopes leave, and how many
    errors lie within the stated sigmas.

    Errors are taken of the integrated surface, because that is what is judged (models.md, "Figures to reach"), and of a
    frame as a whole, as a part of the classical ones: so every dose and steepness counts. Frames that the filter nearly
    solves must not count by the part of their error that is left: their gradients, a hundred times as steep, would
    drown those of frames with edges, and nothing would be learned but silence.
    """

    def network(self, recipe: Recipe) -> SlopeNet:
        return SlopeNet(recipe.width, recipe.depth, recipe.blocks)

    def examples(self, batch: Batch) -> Examples:
        found = moments(batch.images, **batch.numbers)
        given = {name: getattr(found, name) for name in GIVEN}
        return {**given, "height": batch.height}

    def losses(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        assert isinstance(net, SlopeNet)
        p, q, sigma_p, sigma_q = net.correct(*(examples[name] for name in GIVEN))
        truth = examples["height"]
        true_p, true_q = slopes_of(truth)
        height, angle = surface_errors(integrate(p, q), truth)
        with torch.no_grad():
            height_before, angle_before = surface_errors(integrate(*staggered(examples["slopes"])), truth)
        return {
            "coverage": coverage(p - true_p, sigma_p) + coverage(q - true_q, sigma_q),
            "angle": left_of(angle, angle_before),
            "height": HEIGHT_WEIGHT * left_of(height, height_before),
            "hardness": angle.detach() / angle_before,
        }

    def figures(self, net: nn.Module, held: list[Examples]) -> dict[str, float]:
        """Rms angle of the integrated surface in degrees, that of classical slopes, their ratio, and the share of
        errors of p within one sigma."""
        assert isinstance(net, SlopeNet)
        errors: dict[str, list[Tensor]] = {"net": [], "classical": [], "within": []}
        with torch.no_grad():
            for examples in held:
                p, q, sigma_p, _ = net.correct(*(examples[name] for name in GIVEN))
                truth = examples["height"]
                errors["net"].append(surface_errors(integrate(p, q), truth)[1])
                errors["classical"].append(surface_errors(integrate(*staggered(examples["slopes"])), truth)[1])
                errors["within"].append(((p - slopes_of(truth)[0]).abs() < sigma_p).float().mean(dim=(1, 2)))
        ours, theirs = torch.cat(errors["net"]), torch.cat(errors["classical"])
        ratio = ours / theirs.clamp_min(1e-6)
        return {
            "error_deg": float(torch.rad2deg(ours.median())),
            "classical_deg": float(torch.rad2deg(theirs.median())),
            "error_vs_classical": float(ratio.median()),
            "worst_vs_classical": float(ratio.max()),
            "within_sigma": float(torch.cat(errors["within"]).mean()),
        }


def left_of(error: Tensor, before: Tensor) -> Tensor:
    """(B,) logarithm of the part of a squared error that is left, 0 for all of it; little left counts as some."""
    return torch.log(((error / before) ** 2 + LITTLE) / (1.0 + LITTLE))


def coverage(off: Tensor, sigma: Tensor) -> Tensor:
    """(B,) pinball loss whose minimum is the sigma that covers 68.27 % of the errors, whatever their distribution;
    a likelihood would fit the tails and cover too much in between."""
    beyond = torch.log(off.detach().abs() + LEAST_ERROR) - torch.log(sigma)
    return torch.maximum(WITHIN * beyond, (WITHIN - 1.0) * beyond).mean(dim=(1, 2))
