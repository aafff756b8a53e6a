"""What a slope network is worth on frames without truth, and whether a candidate is better than its parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.networks.dsm import of_sum
from inference.networks.slopes import SlopeNet
from inference.refinement.explaining import Explainer, View, slopes_of

BORDER_PX = 4
TILES = 6
TIMES_SCATTER = 3.0
MOST_MISSED_SHARE = 0.2
LEAST_SEGMENTS = 4
SEED = 11

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Of some frames: reduced chi squared, 1 for explained to the noise. `left_out` (S, T): of each segment as the
    others predict it, by tile of the frame, mean over frames; `consistency` (T,): of all segments, explained together.
    `electrons` (S,): mean signal.
    """

    left_out: Floats
    consistency: Floats
    electrons: Floats

    @property
    def chi2(self) -> float:
        return float(self.left_out.mean())

    @property
    def missed_share(self) -> Floats:
        """(S,) rms of what is missed of a left-out segment beyond noise, over its signal. Of a prediction from S - 1
        others the noise is that of the segment and a share of theirs, about S / (S - 1) of its own."""
        count = len(self.electrons)
        noise = count / (count - 1) * self.electrons
        excess = np.maximum(self.left_out.mean(axis=1) - 1.0, 0.0) * noise
        return np.asarray(np.sqrt(excess) / np.maximum(self.electrons, 1e-9))

    def tree(self) -> dict[str, float]:
        return {"left_out_chi2": self.chi2, "consistency_chi2": float(self.consistency.mean())}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`gain`: by how much the left-out chi squared has fallen, and `scatter`, the standard error of that."""

    accepted: bool
    reason: str
    gain: float
    scatter: float


def score(net: SlopeNet | None, views: Sequence[View], explainer: Explainer) -> Scores:
    """Of `net`, or where it is None of the claim that the surface is a plane: each segment shows the same everywhere.

    Each segment is predicted from slopes that the network finds in the others, and from their brightness. With three
    segments two are too few for slopes: then half of all electrons predicts the other half.
    """
    left_out, consistency = [], []
    with torch.no_grad():
        for number, view in enumerate(views):
            kept = ~view.rejected
            segments = range(len(view.electrons))
            shown = _shown(net, view, view, explainer)
            consistency.append(_tiles(_chi2(view.electrons, of_total(shown, view.electrons)).mean(dim=0), kept))
            if len(view.electrons) < LEAST_SEGMENTS:
                rng = np.random.default_rng((SEED, number))
                one, other = thinned(view, 0.5, rng)
                shown = _shown(net, one, view, explainer)
                found = _chi2(other.electrons, of_total(shown, other.electrons))
                left_out.append([_tiles(found[segment], kept) for segment in segments])
                continue
            frame = []
            for segment in segments:
                others = [place for place in segments if place != segment]
                shown = _shown(net, view.of(others), view, explainer)
                frame.append(_tiles(missed_by_others(shown, view, segment, others), kept))
            left_out.append(frame)
    signal = np.stack([view.electrons.double().mean(dim=(1, 2)).numpy() for view in views]).mean(axis=0)
    by_tile, whole = (np.asarray(np.nanmean(np.array(part), axis=0)) for part in (left_out, consistency))
    return Scores(by_tile, whole, np.asarray(signal))


def judge(before: Scores, after: Scores, flat: Scores, names: Sequence[str]) -> Verdict:
    """Accepted only where the candidate is better by more than the scatter of the scores, three times over, where it
    explains no less of whole frames, where the frames show more than a plane would, and where each segment is told by
    the others to a fifth of its signal: a broken one must not teach."""
    gain, scatter = _fallen(before.left_out, after.left_out)
    seen, seen_scatter = _fallen(flat.left_out, after.left_out)
    worse, worse_scatter = _fallen(after.consistency[None], before.consistency[None])
    worst = int(np.argmax(after.missed_share))
    told = f"chi² of left-out segments {before.chi2:.4g} -> {after.chi2:.4g}, better by {gain:.2g} ± {scatter:.2g}"
    if after.missed_share[worst] > MOST_MISSED_SHARE:
        reason = (
            f"the others miss segment {names[worst]} by {100 * after.missed_share[worst]:.0f} % of its signal, the "
            f"limit is {100 * MOST_MISSED_SHARE:.0f} %: one is broken, or the instrument file is wrong; {told}"
        )
    elif seen <= TIMES_SCATTER * seen_scatter:
        reason = f"the frames show nothing that a plane would not (its chi² is {flat.chi2:.4g}); {told}"
    elif gain <= TIMES_SCATTER * scatter:
        reason = f"not better by more than {TIMES_SCATTER:g} times the scatter of the scores: {told}"
    elif worse > TIMES_SCATTER * worse_scatter:
        reason = f"whole frames are explained worse: chi² {before.tree()['consistency_chi2']:.4g} -> " + (
            f"{after.tree()['consistency_chi2']:.4g}; {told}"
        )
    else:
        return Verdict(True, told, gain, scatter)
    return Verdict(False, reason, gain, scatter)


def thinned(view: View, share: float, rng: np.random.Generator) -> tuple[View, View]:
    """The frame's electrons dealt out to two frames of less dose, whose noise is independent: each electron goes to the
    first with probability `share`. What one tells of the other is surface, never noise (A. Neufeld et al., Data
    thinning for convolution-closed distributions, JMLR 25 (2024))."""
    counted = np.maximum(np.rint(view.electrons.numpy()), 0.0)
    first = torch.from_numpy(rng.binomial(counted.astype(np.int64), share).astype(np.float32))
    return view.with_electrons(first), view.with_electrons(view.electrons - first)


def missed_by_others(shown: Tensor, view: View, segment: int, others: list[int]) -> Tensor:
    """(H, W) squares by which a segment differs from what `shown` (S, H, W) makes of the brightness of the others, over
    the variance of both."""
    total, share = view.electrons[others].sum(dim=0), shown[segment] / shown[others].sum(dim=0)
    predicted = share * total
    variance = (predicted + share * share * total).detach().clamp_min(1.0)
    return (view.electrons[segment] - predicted) ** 2 / variance


def of_total(shown: Tensor, electrons: Tensor) -> Tensor:
    """(S, H, W) as `shown`, as bright at each pixel as `electrons` are."""
    found: Tensor = of_sum(shown[None], electrons.sum(dim=0)[None, None])[0]
    return found


def _shown(net: SlopeNet | None, seen: View, whole: View, explainer: Explainer) -> Tensor:
    if net is None:
        means = whole.electrons[:, ~whole.rejected].mean(dim=1)
        return means[:, None, None].expand_as(whole.electrons)
    p, q, _, _ = slopes_of(net, seen)
    return explainer.shares(p, q, whole)


def _chi2(electrons: Tensor, expected: Tensor) -> Tensor:
    """(S, H, W), reduced: a pixel's sum is given, so one of its S numbers is not free."""
    free = len(electrons) / (len(electrons) - 1)
    return free * (electrons - expected) ** 2 / expected.clamp_min(1.0)


def _tiles(values: Tensor, kept: Tensor) -> Floats:
    """(T,) means over tiles, of pixels that count and don't lie at the border, where relief outside casts shadows."""
    inside = torch.where(kept, values, torch.nan)[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX].numpy()
    strips = [part for strip in np.array_split(inside, TILES, axis=0) for part in np.array_split(strip, TILES, axis=1)]
    return np.array([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in strips])


def _fallen(before: Floats, after: Floats) -> tuple[float, float]:
    """By how much, and the standard error of that over the frame's tiles: frames of one scene repeat its places."""
    by_tile = (before - after).mean(axis=0)
    by_tile = by_tile[np.isfinite(by_tile)]
    return float(by_tile.mean()), float(by_tile.std(ddof=1) / np.sqrt(len(by_tile)))
