"""One way to train every network: Muon and AdamW, hard examples twice, an averaged network, resumable at any time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from acquisition.errors import BadInput
from inference.training.batches import Batch, Examples, examples
from inference.training.frames import GROUP
from inference.training.plot import draw_log
from inference.training.rehearsal import Rehearsal

STATE = "state.pt"
LOG = "log.jsonl"
PLOT = "progress.png"
VALIDATION_SEED = 7
SAVE_EVERY_S = 120.0
WARM_UP = 0.02
KEPT_OF_AVERAGE = 0.998
REHEARSED_OF = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is; `samples` in all. The learning rate rises, stays, and falls along a cosine to zero.

    `hard_every`: after so many fresh batches the hardest samples of late make one more; 0 never. With `muon` off AdamW
    takes the hidden matrices too, at its own rate.
    """

    samples: int = 120_000
    size_px: int = 96
    batch: int = 16
    width: int = 32
    depth: int = 5
    blocks: int = 2
    muon: bool = True
    muon_rate: float = 3e-3
    adam_rate: float = 1e-3
    decay: float = 1e-3
    hard_every: int = 4
    seed: int = 1
    validation_batches: int = 12


class Lesson(Protocol):
    """What a network is to learn, and how well it does."""

    def network(self, recipe: Recipe) -> nn.Module:
        """A new one."""

    def examples(self, batch: Batch) -> Examples:
        """What the network takes and should give, made where frames are made."""

    def losses(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        """By name, each (B,): their sum is learned from, "hardness" chooses what is rehearsed and isn't summed."""

    def figures(self, net: nn.Module, held: list[Examples]) -> dict[str, float]:
        """On examples that are never trained on."""


def train(
    lesson: Lesson,
    folder: Path,
    recipe: Recipe,
    processes: int,
    progress: Callable[[int, int], None],
    until_s: float = float("inf"),
) -> nn.Module:
    """Train, or go on training, in `folder`; returns the averaged network.

    Stops after `until_s` seconds and can be called again: weights, optimisers and place in the stream are kept. The
    log has one line for each save: samples, the mean of every loss since the last line, and the lesson's figures;
    `progress.png` beside it is drawn anew each time. Raises `BadInput` when `folder` holds a run of another recipe;
    a run may be made longer or shorter, though.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(lesson, recipe)
    if (folder / STATE).is_file():
        run.load(folder / STATE)
    hours_before = run.hours
    size = recipe.size_px, recipe.batch
    held = list(islice(examples(VALIDATION_SEED, *size, 0, lesson.examples), recipe.validation_batches))
    # Each process its own cores: threads that wait for a core in use spin. Not before, as numba sets the number too.
    torch.set_num_threads(max((os.cpu_count() or 1) - processes, 1))
    began = saved = time.monotonic()
    for fresh in examples(recipe.seed, *size, processes, lesson.examples, run.samples // GROUP):
        run.learn(fresh)
        progress(run.samples, recipe.samples)
        now = time.monotonic()
        done = run.samples >= recipe.samples or now - began > until_s
        if done or now - saved > SAVE_EVERY_S:
            saved = now
            run.hours = hours_before + (now - began) / 3600.0
            told = {"samples": run.samples, "hours": run.hours, **run.mean_losses()}
            told |= lesson.figures(run.average, held)
            run.save(folder / STATE)
            with (folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(told) + "\n")
            draw_log(logged(folder), folder / PLOT)
        if done:
            break
    return run.average


def logged(folder: Path) -> list[dict[str, float]]:
    """All lines of a run's log."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return [{name: float(value) for name, value in json.loads(line).items()} for line in lines]


class Run:
    """Network, its running average, optimisers and place in the stream."""

    def __init__(self, lesson: Lesson, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.lesson, self.recipe = lesson, recipe
        # Depthwise convolutions learn three times as fast on a CPU with channels last.
        self.net = lesson.network(recipe)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: nn.Module = deepcopy(self.net).requires_grad_(False).eval()
        self.samples = 0
        self.hours = 0.0
        matrices = [weights for weights in self.net.parameters() if weights.ndim == 2 and recipe.muon]
        others = [weights for weights in self.net.parameters() if weights.ndim != 2 or not recipe.muon]
        self.optimisers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(others, lr=recipe.adam_rate, weight_decay=recipe.decay), recipe.adam_rate)
        ]
        if matrices:
            muon = torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=recipe.decay)
            self.optimisers.append((muon, recipe.muon_rate))
        self._batches = 0
        self._rehearsal = Rehearsal(REHEARSED_OF)
        self._sums: dict[str, float] = {}

    def learn(self, fresh: Examples) -> None:
        """One step on what is new, and now and then one on the hardest of late."""
        count = len(next(iter(fresh.values())))
        hardness = self._step(fresh)
        self.samples += count
        self._batches += 1
        if self.recipe.hard_every:
            self._rehearsal.offer(fresh, hardness)
            if self._batches % self.recipe.hard_every == 0 and len(self._rehearsal) >= count:
                self._step(self._rehearsal.take(count))

    def mean_losses(self) -> dict[str, float]:
        """Of the fresh and rehearsed examples since the last call."""
        count = max(self._sums.pop("steps", 0.0), 1.0)
        means = {name: value / count for name, value in self._sums.items()}
        self._sums = {}
        return means

    def _step(self, given: Examples) -> Tensor:
        self.net.train()
        part = min(self.samples / self.recipe.samples, 1.0)
        rate = min(part / WARM_UP, 1.0) * 0.5 * (1.0 + float(torch.cos(torch.tensor(torch.pi * part))))
        losses = dict(self.lesson.losses(self.net, given))
        hardness = losses.pop("hardness").detach()
        for optimiser, full in self.optimisers:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = full * max(rate, 1e-3)
        torch.autograd.backward(torch.stack(list(losses.values())).sum(dim=0).mean())
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for optimiser, _ in self.optimisers:
            optimiser.step()
        # At first the average follows closely, so that short runs don't end with weights that they started from.
        kept_part = min(KEPT_OF_AVERAGE, (1.0 + self._batches) / (10.0 + self._batches))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(new, 1.0 - kept_part)
        for name, values in {**losses, "hardness": hardness}.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values.detach().mean())
        self._sums["steps"] = self._sums.get("steps", 0.0) + 1.0
        return hardness

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "recipe": asdict(self.recipe),
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser, _ in self.optimisers],
            "samples": self.samples,
            "hours": self.hours,
        }
        beside = path.with_suffix(".new")
        torch.save(state, beside)
        beside.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        mine = asdict(self.recipe)
        other = {name: value for name, value in state["recipe"].items() if name != "samples" and value != mine[name]}
        if other:
            told = ", ".join(f"{name} = {value}" for name, value in other.items())
            raise BadInput(f"{path} is a run of another recipe ({told}): go on with that one, or name a new folder")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        for (optimiser, _), kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.samples, self.hours = state["samples"], state["hours"]
        self._batches = self.samples // self.recipe.batch
