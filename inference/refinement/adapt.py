"""The self-supervised loop: a slope network fitted to some frames of an instrument and session, judged on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acquisition.errors import BadInput
from acquisition.frames import Frame
from acquisition.instrument import Instrument
from inference.networks.finetune import FinetuneNet
from inference.networks.slopes import SlopeNet
from inference.pipeline import with_optics
from inference.refinement.candidate_score import (
    BORDER_PX,
    LEAST_SEGMENTS,
    Scores,
    Verdict,
    judge,
    missed_by_others,
    of_total,
    score,
    thinned,
)
from inference.refinement.explaining import Explainer, View, slopes_of, view_of

CROP_PX = 64
KEPT_FOR_INPUT = 0.75
MOST_OFF_SIGMA = 2.0
"""So far the parent's slopes may be off for faults of the instrument, in their sigmas, which are of noise alone."""
LEFT_OUT_SHARE = 0.5
RATE = 2e-3
AVERAGED = 0.98
HELD_OUT_EVERY = 4
LEAST_STEPS, MOST_STEPS = 25, 3_000
LEARNING = ("net.heads", "net.leave")


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What came of it. `net` is the candidate, whatever the verdict. `before`, `after`, `flat`: scores on the frames
    that were held out. `moved_sigma`: rms change of the slopes there, in the parent's standard deviations."""

    net: SlopeNet
    verdict: Verdict
    before: Scores
    after: Scores
    flat: Scores
    moved_sigma: float
    steps: int
    seconds: float
    adapted_on: tuple[int, ...]
    held_out: tuple[int, ...]
    left_out_frames: tuple[str, ...]

    def tree(self) -> dict[str, object]:
        """For programs."""
        return {
            "accepted": self.verdict.accepted,
            "reason": self.verdict.reason,
            "before": self.before.tree(),
            "after": self.after.tree(),
            "flat": self.flat.tree(),
            "gain": self.verdict.gain,
            "scatter": self.verdict.scatter,
            "moved_sigma": self.moved_sigma,
            "steps": self.steps,
            "seconds": self.seconds,
            "adapted_on": list(self.adapted_on),
            "held_out": list(self.held_out),
            "left_out_frames": list(self.left_out_frames),
        }


def adapt(
    parent: SlopeNet,
    frames: Sequence[Frame],
    instrument: Instrument,
    progress: Callable[[int, int], None],
    finetune: FinetuneNet | None = None,
    steps: int = MOST_STEPS,
    until_s: float = float("inf"),
    seed: int = 1,
) -> Adaptation:
    """Fit a copy of `parent` to three of every four frames and score it on the fourth.

    Of each crop three quarters of the electrons go in, and what the slopes found there say of the segments' shares is
    compared with the last quarter; every other time all segments but one go in, and that one is predicted, as the score
    does. Noise can't be learned, for it isn't the same in both. Only the outermost layers learn (5 000 of 1.7 million
    numbers in the shipped set): what a scale gives back and adds can bend, stretch and turn slopes as a wrong emission
    law or a wrong gain does, while what the network knows of surfaces stays; a pull towards the parent's slopes weighs
    as much as it is likely beside all these frames, and keeps what they say nothing of. `finetune` is frozen, and so
    can't take in errors of slopes. Ends after `steps`, or `until_s` seconds of them and at least 25. Raises `BadInput`
    where fewer than two frames can be used.
    """
    began = time.monotonic()
    views, unusable = _usable(frames, instrument)
    numbers = list(views)
    held_out = tuple(numbers[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] or numbers[-1:])
    adapted_on = tuple(number for number in numbers if number not in held_out)
    explainer = Explainer(with_optics(instrument, frames[0].header.optics), finetune)
    judged = [views[number] for number in held_out]
    before, flat = score(parent, judged, explainer), score(None, judged, explainer)
    progress(0, steps)
    net, done = _fitted(parent, [views[number] for number in adapted_on], explainer, progress, steps, until_s, seed)
    after = score(net, judged, explainer)
    names = [segment.name for segment in instrument.detector.segments]
    return Adaptation(
        net=net,
        verdict=judge(before, after, flat, names),
        before=before,
        after=after,
        flat=flat,
        moved_sigma=moved_sigma(parent, net, judged),
        steps=done,
        seconds=time.monotonic() - began,
        adapted_on=adapted_on,
        held_out=held_out,
        left_out_frames=tuple(unusable),
    )


def moved_sigma(parent: SlopeNet, net: SlopeNet, views: Sequence[View]) -> float:
    """Rms change of the slopes, in the parent's standard deviations."""
    squares = []
    with torch.no_grad():
        for view in views:
            p, q, sigma_p, sigma_q = slopes_of(parent, view)
            new_p, new_q, _, _ = slopes_of(net, view)
            squares += [((new_p - p) / sigma_p).square().mean(), ((new_q - q) / sigma_q).square().mean()]
    return float(torch.stack(squares).mean().sqrt())


def _usable(frames: Sequence[Frame], instrument: Instrument) -> tuple[dict[int, View], list[str]]:
    views, unusable = {}, []
    for frame in frames:
        try:
            views[frame.header.sequence] = view_of(frame, instrument)
        except BadInput as error:
            unusable.append(str(error))
    if len(views) < 2:
        why = f": {unusable[0]}" if unusable else ""
        raise BadInput(
            f"{len(views)} of {len(frames)} frames can be adapted on, at least 2 are needed, one to judge by{why}"
        )
    return views, unusable


def _fitted(
    parent: SlopeNet,
    views: Sequence[View],
    explainer: Explainer,
    progress: Callable[[int, int], None],
    steps: int,
    until_s: float,
    seed: int,
) -> tuple[SlopeNet, int]:
    """The average of the weights along the way, and the number of steps."""
    net = deepcopy(parent).requires_grad_(False)
    learning = [weights for name, weights in net.named_parameters() if name.startswith(LEARNING)]
    for weights in learning:
        weights.requires_grad_(True)
    average = deepcopy(net).requires_grad_(False)
    averaged = [weights for name, weights in average.named_parameters() if name.startswith(LEARNING)]
    optimiser = torch.optim.Adam(learning, lr=RATE)
    rng = np.random.default_rng(seed)
    # The misfit is a mean over segments, of a part of the electrons of one frame of them all.
    pull = (1.0 - KEPT_FOR_INPUT) / (MOST_OFF_SIGMA**2 * len(views) * len(views[0].electrons))
    done = 0
    began = time.monotonic()
    while done < steps and (done < LEAST_STEPS or time.monotonic() - began < until_s):
        view = _crop(views[int(rng.integers(len(views)))], rng)
        given, misfit_of = _lesson(view, rng)
        with torch.no_grad():
            old_p, old_q, sigma_p, sigma_q = slopes_of(parent, given)
        p, q, _, _ = slopes_of(net, given)
        kept = (~view.rejected)[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
        misfit = misfit_of(explainer.shares(p, q, view))[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX][:, kept].mean()
        moved = ((p - old_p) / sigma_p).square().mean() + ((q - old_q) / sigma_q).square().mean()
        optimiser.zero_grad()
        torch.autograd.backward(misfit + pull * moved)
        optimiser.step()
        done += 1
        keep = min(AVERAGED, done / (done + 9.0))
        with torch.no_grad():
            for mean, weights in zip(averaged, learning, strict=True):
                mean.lerp_(weights, 1.0 - keep)
        progress(done, steps)
    return average.eval(), done


def _lesson(view: View, rng: np.random.Generator) -> tuple[View, Callable[[Tensor], Tensor]]:
    """What of a frame a network is given, and by how much shares (S, H, W) that follow from it miss what it isn't: its
    squares over their variance (1 or S, H, W), for as many electrons as are kept from the input."""
    count = len(view.electrons)
    if count < LEAST_SEGMENTS or rng.random() >= LEFT_OUT_SHARE:
        given, asked = thinned(view, KEPT_FOR_INPUT, rng)

        def missed(shares: Tensor) -> Tensor:
            expected = of_total(shares, asked.electrons)
            return (asked.electrons - expected) ** 2 / expected.detach().clamp_min(1.0)

        return given, missed
    segment = int(rng.integers(count))
    others = [place for place in range(count) if place != segment]

    def missed_segment(shares: Tensor) -> Tensor:
        return (1.0 - KEPT_FOR_INPUT) * missed_by_others(shares, view, segment, others)[None]

    return view.of(others), missed_segment


def _crop(view: View, rng: np.random.Generator) -> View:
    rows, columns = view.rejected.shape
    side = min(CROP_PX, rows, columns)
    return view.cut(int(rng.integers(rows - side + 1)), int(rng.integers(columns - side + 1)), side)
