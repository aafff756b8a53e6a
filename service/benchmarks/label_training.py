"""What labels are worth: a network trained on with them and without, judged on other places of the same surfaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.metrology.labels import Labels, label
from inference.networks.slopes import SlopeNet
from inference.networks.weights import read_slopes
from inference.registry import find_model_set
from inference.training.batches import examples
from inference.training.labelled import SURFACES, LabelledLesson
from inference.training.mismatched import mismatched
from inference.training.run import Lesson, Recipe, Run
from inference.training.slopes import SlopeLesson
from service.benchmarks.adaptation import errors_of
from service.benchmarks.labels import QUICK_SIZE, TIP_PX, Seen, seen
from service.benchmarks.measured import Measured, NotMeasured, tell_progress
from service.benchmarks.surfaces import Surface, made_surface

RECIPE = Recipe(samples=2_048, size_px=64, muon_rate=3e-4, adam_rate=1e-4, hard_every=0)
"""Rates a tenth of those of the shipped set: what it knows is to stay."""
TOLD_EVERY = 256

Half = list[tuple[Surface, Seen]]


class GoingOn(SlopeLesson):
    """The lesson of slopes for a network that has learned already."""

    def __init__(self, parent: SlopeNet) -> None:
        self.parent = parent

    def network(self, recipe: Recipe) -> SlopeNet:
        return deepcopy(self.parent)


def trained_rows(surfaces: Sequence[Surface], rng: np.random.Generator) -> dict[str, Measured | NotMeasured]:
    """Slope errors of the shipped network trained on with labels of the left half of each surface over those without
    labels, on frames of the right half: the median of the surfaces. Once for frames of the instrument as it is stated,
    and once for one with faults, which simulated frames know nothing of. All see the same stream, of which labels
    replace a quarter."""
    parent = read_slopes(find_model_set("unet").graph("slopes"))
    without = _trained(GoingOn(parent), "without labels")
    return {
        "trained_vs_without_labels": _row(parent, without, surfaces, None, rng),
        "trained_vs_without_labels_faulty": _row(parent, without, surfaces, mismatched().real, rng),
    }


def _row(
    parent: SlopeNet, without: SlopeNet, surfaces: Sequence[Surface], real: Instrument | None, rng: np.random.Generator
) -> Measured | NotMeasured:
    labels: list[Labels] = []
    held: dict[str, Half] = {}
    for surface in surfaces:
        left, right = _halves(surface, real, rng)
        own = list(_labelled(left))
        labels += own
        if own:
            held[surface.name] = right
    if not labels:
        return NotMeasured("no frame could be labelled")
    taught = _trained(LabelledLesson(GoingOn(parent), SURFACES["slopes"], labels), "with labels")
    ratios, told = [], []
    for name, half in held.items():
        before, plain, better = (_error_deg(net, half) for net in (parent, without, taught))
        ratios.append(better / plain)
        told.append(f"{name} {before:.2f}, {plain:.2f}, {better:.2f}°")
    conditions = (
        f"instrument {'as stated' if real is None else 'with faults'}, set unet trained on with {RECIPE.samples} "
        f"frames, with {len(labels)} labelled frames of {QUICK_SIZE} px or none; slope errors on other places before, "
        f"without and with labels: {'; '.join(told)}"
    )
    return Measured(float(np.median(ratios)), conditions)


def _halves(surface: Surface, real: Instrument | None, rng: np.random.Generator) -> tuple[Half, Half]:
    """Frames of the left and of the right half, which share no pixel; none where the surface is too small."""
    whole = surface if surface.is_real else made_surface(surface.name, 2 * QUICK_SIZE)
    rows, columns = (side // 2 for side in whole.heights_m.shape)
    if min(rows, columns) < QUICK_SIZE:
        return [], []
    left, right = (
        [replace(whole, heights_m=whole.heights_m[down : down + rows, along : along + columns]) for down in (0, rows)]
        for along in (0, columns)
    )
    own = None if real is None else real.with_scan(pixel_size_m=whole.pixel_size_m)
    first, second = ([(part, seen(part, QUICK_SIZE, rng, own)) for part in half] for half in (left, right))
    return first, second


def _labelled(half: Half) -> Iterator[Labels]:
    for surface, of in half:
        try:
            yield label(of.frame, of.surface, of.afm, surface.instrument, "simulated", TIP_PX * surface.pixel_size_m)
        except BadInput as error:
            tell_progress(f"{surface.name}: no labels, {error}")


def _trained(lesson: Lesson, what: str) -> SlopeNet:
    run = Run(lesson, RECIPE)
    for fresh in examples(RECIPE.seed, RECIPE.size_px, RECIPE.batch, 0, lesson.examples):
        run.learn(fresh)
        if run.samples % TOLD_EVERY == 0:
            tell_progress(f"{what}: {run.samples} of {RECIPE.samples} frames")
        if run.samples >= RECIPE.samples:
            break
    assert isinstance(run.average, SlopeNet)
    return run.average


def _error_deg(net: SlopeNet, half: Half) -> float:
    """Of the surface that the slopes integrate to, rms over the frames."""
    errors = [errors_of(net, of.frame, surface.instrument, of.height_m).slope_error_deg for surface, of in half]
    return float(np.sqrt(np.mean(np.square(errors))))
