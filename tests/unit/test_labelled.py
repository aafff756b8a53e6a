"""Labelled frames beside simulated ones: only what is known counts, and a surface's labels teach its surface."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.errors import BadInput
from adapted_frames import STATED, electrons, frames_of, rough_m
from inference.calibration import calibrate
from inference.metrology.alignment import Placement
from inference.metrology.labels import Labels, save_labels
from inference.registry import CALIBRATION
from inference.training.batches import Batch, batch_of
from inference.training.frames import sample_stream
from inference.training.labelled import (
    KNOWN,
    LABELLED,
    LEAST_KNOWN,
    SURFACES,
    LabelledLesson,
    label_errors,
    with_labels,
)
from inference.training.nets import NETS
from inference.training.run import Recipe, Run
from inference.training.slopes import SlopeLesson

RECIPE = Recipe(samples=128, size_px=32, batch=4, width=8, depth=2, blocks=1, hard_every=0)


@pytest.fixture(scope="module")
def labels() -> Labels:
    """Of a surface whose right half is kept from training."""
    (frame,) = frames_of(electrons(rough_m(0.8), 600.0), 1)
    numbers = calibrate(STATED, frame.images)
    pixel_m = STATED.scan.pixel_size_m
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    here = Placement(np.eye(2), np.zeros(2), np.zeros(2), np.zeros((2, 2)), 1.0, 1.0)
    own = {name: np.asarray(getattr(numbers, name), np.float32) for name in CALIBRATION}
    height_m = np.where(mask, rough_m(0.8), 0.0)
    return Labels(frame.images, own, height_m, mask, pixel_m, pixel_m, 1e-8, True, here, {})


@pytest.fixture(scope="module")
def batch() -> Batch:
    return batch_of(list(islice(sample_stream(1, 32), 4)))


def test_a_share_of_each_batch_is_labelled_and_the_rest_is_the_stream(labels: Labels, batch: Batch) -> None:
    lesson = LabelledLesson(SlopeLesson(), SURFACES["slopes"], [labels], 0.25)
    examples, again = lesson.examples(batch), lesson.examples(batch)
    assert examples[LABELLED].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert all(torch.equal(values, again[name]) for name, values in examples.items())
    torch.testing.assert_close(examples["height"][1:], batch.height[1:])
    losses = lesson.losses(lesson.network(RECIPE), examples)
    assert losses["labels"][1:].abs().sum() == 0.0
    assert losses["angle"][0] == 0.0 and losses["hardness"][0] > 0.0


def test_what_is_not_known_changes_nothing(labels: Labels, batch: Batch) -> None:
    strange = replace(labels, height_m=np.where(labels.mask, labels.height_m, 1e-6))
    lessons = [LabelledLesson(SlopeLesson(), SURFACES["slopes"], [one]) for one in (labels, strange)]
    net = lessons[0].network(RECIPE)
    one, other = (lesson.losses(net, lesson.examples(batch))["labels"] for lesson in lessons)
    torch.testing.assert_close(one, other)


def test_labels_of_a_surface_teach_its_other_half(labels: Labels, batch: Batch) -> None:
    whole = replace(labels, height_m=rough_m(0.8), mask=~labels.mask)
    judge = LabelledLesson(SlopeLesson(), SURFACES["slopes"], [whole])
    held = {name: values[:1] for name, values in judge.examples(batch).items()}
    left = {}
    for share in (0.0, 0.75):
        lesson = LabelledLesson(SlopeLesson(), SURFACES["slopes"], [labels], share) if share else SlopeLesson()
        run, examples = Run(lesson, replace(RECIPE, samples=512)), lesson.examples(batch)
        for _ in range(60):
            run.learn(examples)
        run.net.eval()
        left[share] = float(label_errors(SURFACES["slopes"], run.net, held)[0].mean().detach())
    assert left[0.75] < 0.99 * left[0.0]


def test_known_places_alone_are_compared(labels: Labels, batch: Batch) -> None:
    lesson = LabelledLesson(SlopeLesson(), SURFACES["slopes"], [labels])
    known = lesson.examples(batch)[KNOWN]
    assert LEAST_KNOWN <= float(known[0].mean()) <= 1.0 and float(known[1:].min()) == 1.0


def test_networks_that_labels_cannot_teach_and_bad_shares_are_refused(labels: Labels, tmp_path: Path) -> None:
    save_labels(labels, tmp_path / "labels.npz")
    with pytest.raises(BadInput, match="dsm learns from no labels"):
        with_labels("dsm", NETS["dsm"].lesson(tmp_path), [tmp_path / "labels.npz"], 0.25)
    with pytest.raises(BadInput, match="between 0 and 1"):
        with_labels("slopes", SlopeLesson(), [tmp_path / "labels.npz"], 1.0)
