"""Labelled frames beside simulated ones: any lesson with a share of its examples from measured maps of the surface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from acquisition.errors import BadInput
from inference.metrology.labels import Labels, load_labels
from inference.networks.integrator import IntegratorNet
from inference.networks.poisson import integrate, slopes_of
from inference.networks.slopes import SlopeNet
from inference.training.batches import NUMBERS, TURNS, Batch, Examples, turned, turned_maps
from inference.training.exact import drawn_from
from inference.training.integrator import TAKEN
from inference.training.run import Lesson, Recipe
from inference.training.slopes import GIVEN, left_of
from inference.training.surface_errors import normals

SHARE = 0.25
ENOUGH_KNOWN, LEAST_KNOWN = 0.3, 0.1
TRIES = 50
KNOWN, LABELLED = "known", "labelled"

Surface = Callable[[nn.Module, Examples], Tensor]
"""The surface (B, H, W) in pixels that a network finds in examples of its lesson."""


class LabelledLesson:
    """`lesson`, with `share` of each batch cut out of labelled frames instead of simulated ones.

    Of those the angle between normals counts, as a part of what classical slopes leave, where the label is known. What
    is drawn depends on the batch alone, so that a run can go on where it stopped. Figures are the lesson's own, of
    simulated frames. Raises `BadInput` for labels of oblong pixels, which the lessons don't know, and for labels of
    which no patch is known well enough.
    """

    def __init__(self, lesson: Lesson, surface: Surface, labels: Sequence[Labels], share: float = SHARE) -> None:
        if not 0.0 < share < 1.0:
            raise BadInput(f"a share of {share:g} labelled frames: it must lie between 0 and 1 (--labels-share)")
        for one in labels:
            if abs(one.pixel_size_y_m / one.pixel_size_m - 1.0) > 1e-3:
                raise BadInput("labels of pixels that aren't square cannot be trained on: scan with square ones")
        self.lesson, self.surface, self.labels, self.share = lesson, surface, tuple(labels), share

    def network(self, recipe: Recipe) -> nn.Module:
        return self.lesson.network(recipe)

    def examples(self, batch: Batch) -> Examples:
        count = len(batch.images)
        few = min(max(1, round(self.share * count)), count - 1)
        patches, known = self._patches(few, batch)
        rest = batch._replace(
            images=batch.images[few:],
            numbers={name: values[few:] for name, values in batch.numbers.items()},
            height=batch.height[few:],
        )
        simulated, labelled = self.lesson.examples(rest), self.lesson.examples(patches)
        found = {name: torch.cat([labelled[name], values]) for name, values in simulated.items()}
        found[KNOWN] = torch.cat([known, torch.ones_like(batch.height[few:])])
        found[LABELLED] = torch.cat([torch.ones(few), torch.zeros(count - few)])
        return found

    def losses(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        labelled = examples[LABELLED] > 0
        simulated = {name: values[~labelled] for name, values in examples.items()}
        found: dict[str, Tensor] = {}
        if not bool(labelled.all()):
            for name, values in self.lesson.losses(net, simulated).items():
                found[name] = torch.zeros(len(labelled)).masked_scatter(~labelled, values)
        if bool(labelled.any()):
            own = {name: values[labelled] for name, values in examples.items()}
            angle, before = label_errors(self.surface, net, own)
            found["labels"] = torch.zeros(len(labelled)).masked_scatter(labelled, left_of(angle, before))
            hard = torch.zeros(len(labelled)).masked_scatter(labelled, (angle / before).detach())
            found["hardness"] = found.get("hardness", 0.0) + hard
        return found

    def figures(self, net: nn.Module, held: list[Examples]) -> dict[str, float]:
        simulated = [{name: values[batch[LABELLED] == 0] for name, values in batch.items()} for batch in held]
        return self.lesson.figures(net, simulated)

    def _patches(self, count: int, batch: Batch) -> tuple[Batch, Tensor]:
        """Of one labelled frame, and where their heights are known, turned like a batch of the stream."""
        side, rng = batch.height.shape[-1], drawn_from(batch)
        labels = self.labels[int(rng.integers(len(self.labels)))]
        turn = int(rng.integers(TURNS))
        places = [_place(labels, side, rng) for _ in range(count)]
        images = torch.from_numpy(np.stack([labels.images[:, *place] for place in places]).astype(np.float32))
        height_px = (labels.height_m / labels.pixel_size_m).astype(np.float32)
        height = torch.from_numpy(np.stack([height_px[place] for place in places]))
        known = torch.from_numpy(np.stack([labels.mask[place] for place in places]).astype(np.float32))
        numbers = {name: torch.from_numpy(np.stack([labels.numbers[name]] * count)) for name in NUMBERS}
        numbers["frames_held"] = torch.ones(count, side, side)
        # The detector of the stream stands in: what labels can teach asks for numbers alone.
        return turned(Batch(images, numbers, height, batch.geometry), turn), turned_maps(known, turn)


def with_labels(name: str, lesson: Lesson, files: Sequence[Path], share: float) -> LabelledLesson:
    """The lesson of network `name` beside the labels in `files`. Raises `BadInput` for networks that labels can't teach
    and as `load_labels` does."""
    if name not in SURFACES:
        raise BadInput(f"{name} learns from no labels: leave out --labels, or train {', '.join(SURFACES)}")
    return LabelledLesson(lesson, SURFACES[name], [load_labels(file) for file in files], share)


def label_errors(surface: Surface, net: nn.Module, examples: Examples) -> tuple[Tensor, Tensor]:
    """(B,) rms angles in radians to the labels where they are known: of the network's surface, and of that which the
    slopes integrate to that it was given."""
    truth, known = examples["height"], examples[KNOWN]
    given = integrate(*_staggered(examples))
    return _angle(surface(net, examples), truth, known), _angle(given, truth, known)


def _angle(height: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    off = normals(*slopes_of(height)) - normals(*slopes_of(truth))
    corners = known[:, :-1, :-1] * known[:, 1:, :-1] * known[:, :-1, 1:]
    mean = ((off**2).sum(dim=1) * corners).sum(dim=(1, 2)) / corners.sum(dim=(1, 2)).clamp_min(1.0)
    return (mean + 1e-12).sqrt()


def _staggered(examples: Examples) -> tuple[Tensor, Tensor]:
    if "p" in examples:
        return examples["p"], examples["q"]
    p, q = examples["slopes"].unbind(1)
    return 0.5 * (p[:, :, :-1] + p[:, :, 1:]), 0.5 * (q[:, :-1] + q[:, 1:])


def _place(labels: Labels, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    rows, columns = labels.mask.shape
    if min(rows, columns) < side:
        raise BadInput(f"a labelled frame of {columns} x {rows} pixels is smaller than the patches of {side}")
    best, most = None, LEAST_KNOWN
    for _ in range(TRIES):
        top, left = int(rng.integers(rows - side + 1)), int(rng.integers(columns - side + 1))
        place = (slice(top, top + side), slice(left, left + side))
        known = float(labels.mask[place].mean())
        if known >= most:
            best, most = place, known
        if known >= ENOUGH_KNOWN:
            break
    if best is not None:
        return best
    raise BadInput(
        f"no patch of {side} pixels has {100 * LEAST_KNOWN:.0f} % of its labels known: label more of a frame"
    )


def _of_slopes(net: nn.Module, examples: Examples) -> Tensor:
    assert isinstance(net, SlopeNet)
    p, q, _, _ = net.correct(*(examples[name] for name in GIVEN))
    return integrate(p, q)


def _of_integrator(net: nn.Module, examples: Examples) -> Tensor:
    assert isinstance(net, IntegratorNet)
    height: Tensor = net(*(examples[name] for name in TAKEN)).height
    return height


SURFACES: Mapping[str, Surface] = {"slopes": _of_slopes, "pinn": _of_integrator}
