"""Training of the slope network: simulated frames in, slopes and their uncertainty out, resumable at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.networks.slopes import SlopeNet, Slopes
from inference.training.batches import Batch, batches
from inference.training.frames import GROUP

STATE = "state.pt"
LOG = "log.jsonl"
VALIDATION_SEED = 7
SAVE_EVERY_S = 120.0
WARM_UP = 0.02
KEPT_OF_AVERAGE = 0.998
OUTLIER_SIGMAS = 3.0
ACCURACY_WEIGHT = 4.0
SMOOTHING = 1e-3


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is; `samples` in all. The learning rate rises, stays, and falls along a cosine to zero."""

    samples: int = 400_000
    size_px: int = 96
    batch: int = 16
    width: int = 32
    depth: int = 3
    blocks: int = 2
    muon_rate: float = 4e-3
    adam_rate: float = 1.5e-3
    decay: float = 1e-3
    seed: int = 1
    validation_batches: int = 12


def train_slopes(
    folder: Path,
    recipe: Recipe,
    processes: int,
    progress: Callable[[int, int], None],
    until_s: float = float("inf"),
) -> SlopeNet:
    """Train, or go on training, in `folder`; returns the averaged network.

    Stops after `until_s` seconds and can be called again: weights, optimisers and place in the stream are kept. The
    log has one line for each save: samples, loss, rms slope error and how it compares with classical on frames that
    are never trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(recipe)
    if (folder / STATE).is_file():
        run.load(folder / STATE)
    held = list(islice(batches(VALIDATION_SEED, recipe.size_px, recipe.batch, 0), recipe.validation_batches))
    began = saved = time.monotonic()
    for batch in batches(recipe.seed, recipe.size_px, recipe.batch, processes, run.samples // GROUP):
        loss = run.step(batch)
        progress(run.samples, recipe.samples)
        now = time.monotonic()
        done = run.samples >= recipe.samples or now - began > until_s
        if done or now - saved > SAVE_EVERY_S:
            saved = now
            figures = {"samples": run.samples, "loss": loss, **validate(run.average, held)}
            run.save(folder / STATE)
            with (folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(figures) + "\n")
        if done:
            break
    return run.average


def last_figures(folder: Path) -> dict[str, float]:
    """The last line of a run's log."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return {name: float(value) for name, value in json.loads(lines[-1]).items()}


def validate(net: SlopeNet, held: list[Batch]) -> dict[str, float]:
    """Rms angle error in degrees over the pixels in use, that of the untrained (classical) network, and the share of
    errors within one sigma."""
    classical = SlopeNet(net.width, net.depth, net.blocks)
    net.eval()
    errors: dict[str, list[Tensor]] = {"net": [], "classical": [], "within": []}
    with torch.no_grad():
        for batch in held:
            for name, used in (("net", net), ("classical", classical)):
                found = used(batch.images, **batch.numbers)
                p, q = true_slopes(batch.height)
                off_p = torch.atan(found.p) - torch.atan(p)
                off_q = torch.atan(found.q) - torch.atan(q)
                errors[name].append((off_p**2).mean(dim=(1, 2)) + (off_q**2).mean(dim=(1, 2)))
                if name == "net":
                    errors["within"].append(((found.p - p).abs() < found.sigma_p).float().mean(dim=(1, 2)))
    ratio = (torch.cat(errors["net"]) / torch.cat(errors["classical"])).sqrt()
    return {
        "error_deg": float(torch.rad2deg(torch.cat(errors["net"]).sqrt().median())),
        "classical_deg": float(torch.rad2deg(torch.cat(errors["classical"]).sqrt().median())),
        "error_vs_classical": float(ratio.median()),
        "worst_vs_classical": float(ratio.max()),
        "within_sigma": float(torch.cat(errors["within"]).mean()),
    }


def true_slopes(height: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences of heights (B, H, W) in pixels, on the staggered grid."""
    return torch.diff(height, dim=2), torch.diff(height, dim=1)


def slope_loss(found: Slopes, height: Tensor) -> Tensor:
    """Likelihood of the errors under the stated sigmas, outliers bounded, and the angle error itself.

    The likelihood alone would let the network neglect what it calls uncertain.
    """
    p, q = true_slopes(height)
    parts = []
    for guess, truth, sigma in ((found.p, p, found.sigma_p), (found.q, q, found.sigma_q)):
        upright = 1.0 / (1.0 + truth**2)
        off = guess - truth
        scaled = nn.functional.huber_loss(off / sigma, torch.zeros_like(off), delta=OUTLIER_SIGMAS)
        angle = ((off * upright) ** 2 + SMOOTHING**2).sqrt().mean()
        parts.append(scaled + torch.log(sigma).mean() + ACCURACY_WEIGHT * angle)
    return parts[0] + parts[1]


class _Run:
    """Network, its running average, optimisers and place in the stream."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.net = SlopeNet(recipe.width, recipe.depth, recipe.blocks)
        self.average = deepcopy(self.net).requires_grad_(False)
        self.samples = 0
        matrices = [weights for weights in self.net.parameters() if weights.ndim == 2]
        others = [weights for weights in self.net.parameters() if weights.ndim != 2]
        self.optimisers = (
            torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=recipe.decay),
            torch.optim.AdamW(others, lr=recipe.adam_rate, weight_decay=recipe.decay),
        )
        self.rates = (recipe.muon_rate, recipe.adam_rate)

    def step(self, batch: Batch) -> float:
        self.net.train()
        part = self.samples / self.recipe.samples
        rate = min(part / WARM_UP, 1.0) * 0.5 * (1.0 + float(torch.cos(torch.tensor(torch.pi * min(part, 1.0)))))
        loss = slope_loss(self.net(batch.images, **batch.numbers), batch.height)
        for optimiser, full in zip(self.optimisers, self.rates, strict=True):
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = full * max(rate, 1e-3)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(new, 1.0 - KEPT_OF_AVERAGE)
        self.samples += len(batch.images)
        return float(loss.detach())

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "recipe": asdict(self.recipe),
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "samples": self.samples,
        }
        beside = path.with_suffix(".new")
        torch.save(state, beside)
        beside.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.samples = state["samples"]
