"""How much of the gap between simulated images and those of an instrument with faults finetune removes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.training.finetune import shown_by, stated_numbers, views_of
from inference.training.frames import pixel_means
from inference.training.held_out import SURFACES, held_out_scenes
from inference.training.mismatched import Mismatch, mismatched
from service.benchmarks.measured import Measured, tell_progress

SIZE_PX = 128
BARE_PCT = 0.1
PEER = "best gain and offset of each segment"

Images = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gaps:
    """Mean squares by family, in units of the segments' flat signal: of images as simulated, with the gains and offsets
    that fit the very frames best, and finetuned."""

    simulated: Mapping[str, float]
    linear: Mapping[str, float]
    finetuned: Mapping[str, float]

    def removed(self) -> float:
        return _removed(self.finetuned, self.simulated)

    def removed_by_peer(self) -> float:
        return _removed(self.linear, self.simulated)

    def worst(self) -> tuple[str, float]:
        """The family with the least part removed, among those with a gap at all."""
        removed = {
            name: 1.0 - (self.finetuned[name] / square) ** 0.5
            for name, square in self.simulated.items()
            if 100.0 * square**0.5 > BARE_PCT
        }
        name = min(removed, key=removed.__getitem__)
        return name, removed[name]

    def listed(self) -> str:
        return ", ".join(
            f"{name} {100.0 * gap**0.5:.2f} -> {100.0 * self.finetuned[name] ** 0.5:.2f} "
            f"({100.0 * self.linear[name] ** 0.5:.2f})"
            for name, gap in self.simulated.items()
        )


def finetune_gap_removed(quick: bool, weights: Path) -> Measured:
    """Rms over all held-out surfaces, without noise, the sum of the segments being right at each pixel."""
    gaps = finetune_gaps(quick, weights, mismatched())
    worst, share = gaps.worst()
    gap, left, linear = (_rms_pct(squares) for squares in (gaps.simulated, gaps.finetuned, gaps.linear))
    conditions = (
        f"the default instrument with faults against the model of it, {'one surface' if quick else 'four surfaces'} of "
        f"each of {len(SURFACES)} held-out families, {SIZE_PX} x {SIZE_PX}, no noise; gap {gap:.2f} % of flat, "
        f"left {left:.2f}, by the peer {linear:.2f}; worst family: {worst}, {share:.2f} removed. Gap -> left (peer) in "
        f"% of flat: {gaps.listed()}"
    )
    return Measured(gaps.removed(), conditions, PEER, gaps.removed_by_peer())


def finetune_gaps(quick: bool, weights: Path, mismatch: Mismatch) -> Gaps:
    """The network of `weights` on the held-out surfaces before `mismatch`. Raises `ComponentFailed` for weights that
    cannot be read."""
    flat = stated_numbers(mismatch).response[:, 2].astype(np.float64)[:, None, None]
    start = slice(64, 64 + SIZE_PX)
    families, simulated, finetuned, real = [], [], [], []
    for scene in held_out_scenes(quick=quick):
        if scene.family not in SURFACES:
            continue
        if scene.family not in families:
            tell_progress(f"finetune on held-out surfaces: {scene.family}")
        height = pixel_means(scene.surface)[start, start]
        views = views_of(height, mismatch)
        shown = shown_by(weights, views.simulated, height, mismatch)
        families.append(scene.family)
        simulated.append(_of_sum(views.simulated, views.real) / flat)
        finetuned.append(_of_sum(shown, views.real) / flat)
        real.append(views.real / flat)
    linear = fitted(simulated, real)
    return Gaps(*(_by_family(families, images, real) for images in (simulated, linear, finetuned)))


def fitted(images: list[Images], real: list[Images]) -> list[Images]:
    """Each (S, H, W): `images` with the gain and offset of each segment that bring all of them closest to `real`."""
    found = [np.empty_like(image) for image in images]
    for segment in range(len(images[0])):
        ours, theirs = (np.concatenate([image[segment].ravel() for image in every]) for every in (images, real))
        gain, offset = np.polyfit(ours, theirs, 1)
        for image, better in zip(images, found, strict=True):
            better[segment] = gain * image[segment] + offset
    return found


def _of_sum(shares: NDArray[np.floating], real: NDArray[np.floating]) -> Images:
    """(S, H, W) in proportion to `shares`, with the sum of `real` at each pixel."""
    seen = np.maximum(shares.astype(np.float64), 0.0)
    return np.asarray(seen * (real.sum(axis=0) / np.maximum(seen.sum(axis=0), 1e-6)), np.float64)


def _by_family(families: list[str], images: list[Images], real: list[Images]) -> dict[str, float]:
    squares: dict[str, list[float]] = {}
    for family, image, true in zip(families, images, real, strict=True):
        squares.setdefault(family, []).append(float(np.mean((image - true) ** 2)))
    return {family: float(np.mean(found)) for family, found in squares.items()}


def _removed(left: Mapping[str, float], gap: Mapping[str, float]) -> float:
    return 1.0 - _rms_pct(left) / _rms_pct(gap)


def _rms_pct(squares: Mapping[str, float]) -> float:
    return 100.0 * math.sqrt(sum(squares.values()) / len(squares))
