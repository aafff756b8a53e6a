"""The lesson of finetune: what BSESM shows of a surface in, what one instrument with its faults shows out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inference.calibration import Calibration, calibrate
from inference.forward_model import expected_counts, expected_electrons, linear_response
from inference.forward_model.rendering import emitted_per_pixel
from inference.forward_model.scan import lagged
from inference.networks.dsm import of_sum
from inference.networks.finetune import FinetuneNet, load_finetune
from inference.networks.poisson import slopes_of
from inference.training.batches import Batch, Examples, turned_back
from inference.training.dsm import share_errors
from inference.training.exact import drawn_from
from inference.training.frames import GROUP
from inference.training.mismatched import Mismatch
from inference.training.run import Recipe

FRAMES = 16
SEEN_GAP = 1e-3

Shares = NDArray[np.float32]


class Views(NamedTuple):
    """(S, H, W) float32 each, electrons over those of a flat specimen in all segments, as the stated instrument reads
    them: without faults, and as they are."""

    simulated: Shares
    real: Shares


class FinetuneLesson:
    """Frames of an instrument as it is, `FRAMES` fused, noise and all, against images as it is stated to be.

    Surfaces are those of the stream; detectors, beams and doses are this one's. Judged by shares of the segments' sum
    at each pixel, so that the brightness of the material, which is nobody's fault, is not asked (models.md,
    "Self-supervised loop"), weighed by the noise. Turned scenes are turned back: lines have one direction.
    """

    def __init__(self, mismatch: Mismatch) -> None:
        self.mismatch = mismatch
        self.response = torch.from_numpy(stated_numbers(mismatch).response)
        self._views: dict[bytes, Views] = {}

    def network(self, recipe: Recipe) -> FinetuneNet:
        return FinetuneNet(len(self.response), recipe.width)

    def examples(self, batch: Batch) -> Examples:
        heights, rng = turned_back(batch.height, batch.turn), drawn_from(batch)
        views = [self._view(height.numpy()) for height in heights]
        simulated, real = (torch.from_numpy(np.stack(maps)) for maps in zip(*views, strict=True))
        dose = FRAMES * dose_of(self.mismatch)
        p, q = slopes_of(heights)
        return {
            "shares": simulated,
            "p": p,
            "q": q,
            "response": self.response.expand(len(heights), -1, -1).contiguous(),
            "electrons": torch.from_numpy(rng.poisson(real.clamp_min(0.0).numpy() * dose).astype(np.float32)),
            "true": real,
        }

    def losses(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        electrons = examples["electrons"]
        expected = of_sum(net(**given(examples)), electrons.sum(dim=1, keepdim=True))
        chi2 = ((electrons - expected) ** 2 / expected.clamp_min(1.0)).mean(dim=(1, 2, 3))
        return {"chi2": torch.log(chi2), "hardness": chi2.detach()}

    def figures(self, net: nn.Module, held: list[Examples]) -> dict[str, float]:
        """Without noise: the share of the gap between simulated and real images that is gone, rms over all held frames
        and of the worst frame with a gap at all, and the gap itself in % of a segment's flat signal."""
        before, after = [], []
        with torch.no_grad():
            for examples in held:
                before.append(gaps(examples["shares"], examples))
                after.append(gaps(net(**given(examples)), examples))
        gap, left = torch.cat(before), torch.cat(after)
        seen = gap > SEEN_GAP
        return {
            "gap_removed": float(1.0 - (left.square().mean() / gap.square().mean()).sqrt()),
            "worst_gap_removed": float((1.0 - left[seen] / gap[seen]).min()) if seen.any() else 0.0,
            "gap_pct": float(100.0 * gap.square().mean().sqrt()),
            "left_pct": float(100.0 * left.square().mean().sqrt()),
        }

    def _view(self, height: Shares) -> Views:
        """The stream exposes the surfaces of a group several times, and rendering is what costs."""
        key = height.tobytes()
        if key not in self._views:
            if len(self._views) >= GROUP:
                self._views.clear()
            self._views[key] = views_of(height, self.mismatch)
        return self._views[key]


def gaps(found: Tensor, examples: Examples) -> Tensor:
    """(B,) rms over pixels and segments, in units of each segment's flat signal, once the segments' sum is right."""
    true = examples["true"]
    return share_errors(of_sum(found, true.sum(dim=1, keepdim=True)), true, examples["response"])


def given(examples: Examples) -> Examples:
    return {name: examples[name] for name in ("shares", "p", "q", "response")}


def views_of(height: NDArray[np.floating], mismatch: Mismatch) -> Views:
    """What both instruments show of `height` (H, W) in pixels, nothing lying beyond the frame.

    The real one's counts are read with the stated gains and dark levels. What moves and what charges is left out: the
    one is found by registration, the other is brightness. Raises `BadInput` for segments without gain or dark level.
    """
    real, stated = mismatch
    height_m = height.astype(np.float64) * stated.scan.pixel_size_m
    dose = dose_of(mismatch)
    counts = lagged(expected_counts(height_m, real, dose), real)
    known = stated_numbers(mismatch)
    gain, dark = known.gain_counts_per_electron[:, None, None], known.dark_counts[:, None, None]
    shown = (counts - dark) / gain / dose
    return Views(expected_electrons(height_m, stated, 1.0), shown.astype(np.float32))


def shown_by(weights: Path, simulated: Shares, height: NDArray[np.floating], mismatch: Mismatch) -> Shares:
    """(S, H, W) what the network of these weights makes of `simulated` shares of `height` (H, W) in pixels.

    Raises `ComponentFailed` as `load_finetune` does.
    """
    p, q = slopes_of(torch.from_numpy(height.astype(np.float32))[None])
    response = torch.from_numpy(stated_numbers(mismatch).response)[None]
    with torch.no_grad():
        found = load_finetune(weights)(torch.from_numpy(simulated)[None], p, q, response)[0]
    return np.asarray(found.numpy(), np.float32)


def dose_of(mismatch: Mismatch) -> float:
    """Electrons per pixel and frame of a flat specimen, summed over the segments, at the stated current."""
    stated = mismatch.stated
    return emitted_per_pixel(stated, None) * float(linear_response(stated)[:, 2].sum())


def stated_numbers(mismatch: Mismatch) -> Calibration:
    """Of the stated instrument. Raises `BadInput` as `calibrate` does."""
    return calibrate(mismatch.stated, np.ones((len(mismatch.stated.detector.segments), 2, 2), np.uint16))
