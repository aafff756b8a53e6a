"""The lesson of the DSM: true slopes in, what BSESM shows of the surface out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from acquisition.errors import BadInput
from inference.networks.dsm import Dsm, blurred, linear_shares, of_sum
from inference.networks.poisson import slopes_of
from inference.training.batches import Batch, Examples
from inference.training.exact import drawn_from, exact_images, steepened
from inference.training.run import Recipe

MOST_SEGMENTS = 8
UNSURE_SHARE = 0.4
UNSURE_SIGMAS = (0.003, 0.15)
LEAST_ERROR = 5e-3


class DsmLesson:
    """How far each segment's share is off, in units of its flat signal, once the segments' sum is right.

    Some slopes are given with errors as a network's have. The shares that these slopes have without shadows are known,
    so only what is hidden is asked as if they had none: a network that guessed the true slopes would hide from the
    residual that they are wrong. Segments are filled up with empty ones, so that any detectors' examples go together.
    """

    def network(self, recipe: Recipe) -> Dsm:
        return Dsm(recipe.width, recipe.depth, recipe.blocks)

    def examples(self, batch: Batch) -> Examples:
        heights = steepened(batch)
        images = exact_images(batch, heights)
        p, q = slopes_of(heights)
        given_p, given_q = (unsure(slopes, batch) for slopes in (p, q))
        response, flat_share, sigma_px = (batch.numbers[n] for n in ("response", "flat_share", "beam_sigma_px"))
        known = (response, flat_share, sigma_px)
        shares = images + linear_shares(given_p, given_q, *known) - linear_shares(p, q, *known)
        missing = MOST_SEGMENTS - shares.shape[1]
        if missing < 0:
            raise BadInput(f"a detector of {shares.shape[1]} segments: the lesson has room for {MOST_SEGMENTS}")
        return {
            "p": given_p,
            "q": given_q,
            "response": functional.pad(response, (0, 0, 0, missing)),
            "flat_share": flat_share,
            "beam_sigma_px": sigma_px,
            "shares": functional.pad(shares, (0, 0, 0, 0, 0, missing)),
        }

    def losses(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        """Relative to what classical re-rendering leaves: squared, so that frames where nothing is hidden don't hold
        back the others."""
        found, true = found_and_true(net, examples)
        with torch.no_grad():
            linear = of_sum(linear_shares(**given(examples)), true.sum(dim=1, keepdim=True))
            before = share_errors(linear, true, examples["response"]) ** 2 + LEAST_ERROR**2
        left = share_errors(found, true, examples["response"]) ** 2 / before
        return {"shares": left, "hardness": left.detach() * before.sqrt()}

    def figures(self, net: nn.Module, held: list[Examples]) -> dict[str, float]:
        """In % of a segment's flat signal: rms over all, the classical re-rendering's, the worst frame's; and the rms
        in % of what a flat picture would leave, over all and of the worst tenth of frames."""
        errors: dict[str, list[Tensor]] = {"net": [], "classical": [], "flat": []}
        with torch.no_grad():
            for examples in held:
                response, (found, true) = examples["response"], found_and_true(net, examples)
                linear = linear_shares(**given(examples))
                level = response[:, :, 2, None, None].expand_as(true)
                for name, shares in (("net", found), ("classical", linear), ("flat", level)):
                    images = of_sum(shares, true.sum(dim=1, keepdim=True))
                    errors[name].append(share_errors(images, true, response))
        ours, theirs, flat = (100.0 * torch.cat(errors[name]) for name in ("net", "classical", "flat"))
        seen_at_all = flat > 0.1
        relative = 100.0 * (ours / flat)[seen_at_all]
        return {
            "rms_pct": float(ours.square().mean().sqrt()),
            "classical_rms_pct": float(theirs.square().mean().sqrt()),
            "worst_rms_pct": float(ours.max()),
            "contrast_error_pct": float(100.0 * (ours.square().mean() / flat.square().mean()).sqrt()),
            "worst_tenth_contrast_error_pct": float(torch.quantile(relative, 0.9)),
        }


def found_and_true(net: nn.Module, examples: Examples) -> tuple[Tensor, Tensor]:
    """What the net makes of the slopes and what is true, (B, S, H, W), with the same sum at each pixel."""
    assert isinstance(net, Dsm)
    true = examples["shares"]
    return of_sum(net.shares(**given(examples)), true.sum(dim=1, keepdim=True)), true


def given(examples: Examples) -> Examples:
    return {name: values for name, values in examples.items() if name != "shares"}


def share_errors(found: Tensor, true: Tensor, response: Tensor) -> Tensor:
    """(B,) rms over pixels and segments, in units of each segment's flat signal; empty segments don't count."""
    flat = response[:, :, 2]
    there = (flat > 0).to(found.dtype)
    off = (found - true) / torch.where(flat > 0, flat, 1.0)[..., None, None]
    return ((off**2).mean(dim=(2, 3)) * there).sum(dim=1).div(there.sum(dim=1)).add(1e-10).sqrt()


def unsure(slopes: Tensor, batch: Batch) -> Tensor:
    """(B, H, W) slopes, some of them with errors: white ones and smooth ones, of drawn size."""
    rng = drawn_from(batch)
    count = len(slopes)
    low, high = (math.log(sigma) for sigma in UNSURE_SIGMAS)
    sigma = np.exp(rng.uniform(low, high, count)) * (rng.random(count) < UNSURE_SHARE)
    white = torch.from_numpy(rng.normal(size=slopes.shape).astype(np.float32))
    smooth = blurred(white[:, None], torch.full((count,), 1.5))[:, 0] * 4.0
    errors = torch.where(torch.from_numpy(rng.random(count) < 0.5)[:, None, None], white, smooth)
    return slopes + errors * torch.from_numpy(sigma.astype(np.float32))[:, None, None]
