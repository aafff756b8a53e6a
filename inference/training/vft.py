"""The lesson of the VFT: pixels' neighbourhoods in, exact horizons out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from inference.forward_model import acceptance
from inference.forward_model.exposure import compiled_parallel, find_horizon, search_limits, signed
from inference.forward_model.intensity import ONE_AT_A_TIME, directions
from inference.networks.vft import AZIMUTHS, Vft
from inference.training.batches import Batch, Examples
from inference.training.exact import drawn_from, steepened
from inference.training.run import Recipe

PIXELS = 96
WINDOW = AZIMUTHS // 4
LEAST_ERROR = 5e-3
SEEN_SHADOW = 1e-3


class VftLesson:
    """How much of each azimuth's emission is taken for hidden that isn't, or the other way round.

    In shares of what the batch's detector accepts there, so nothing is learned of horizons that hide nothing from it;
    and for means over a quarter of a turn, which is what a segment sees, in about its flat signal. Pixels that nothing
    can hide teach nothing: others are drawn where there are some.
    """

    def network(self, recipe: Recipe) -> Vft:
        return Vft(recipe.width, recipe.depth)

    def examples(self, batch: Batch) -> Examples:
        heights, rng = steepened(batch), drawn_from(batch)
        table = acceptance(batch.geometry)
        high = 1.0 / (1.0 + table.occluding_slope**2)
        places, horizons = [], []
        for height in heights.numpy():
            with ONE_AT_A_TIME:
                radius, ceiling = search_limits(height, table.occluding_slope)
            shadowed = np.flatnonzero(radius)
            among = shadowed if len(shadowed) >= PIXELS else np.arange(height.size)
            chosen = np.stack(np.unravel_index(rng.choice(among, PIXELS, replace=False), height.shape), axis=1)
            places.append(chosen)
            horizons.append(exact_horizons(height, chosen, radius, ceiling, table.occluding_slope))
        return {
            "heights": heights,
            "places": torch.from_numpy(np.stack(places)),
            "horizons": torch.from_numpy(np.stack(horizons)),
            "sin2_limits": torch.tensor([[table.sin2_low, high]]).expand(len(heights), 2).contiguous(),
        }

    def losses(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        found, true = found_and_true(net, examples)
        segment_rms = (windowed(found - true) ** 2).mean(dim=(1, 2)).add(1e-10).sqrt()
        losses = {
            "azimuths": (found - true).abs().mean(dim=(1, 2)),
            "segments": torch.log(segment_rms + LEAST_ERROR),
        }
        return {**losses, "hardness": losses["segments"].detach()}

    def figures(self, net: nn.Module, held: list[Examples]) -> dict[str, float]:
        """Rms over pixels and quarter turns in % of what is accepted of a flat surface, of the net and without its
        attention; and in % of what the shadows take, over all and of the worst tenth of frames."""
        errors: dict[str, list[Tensor]] = {"net": [], "samples": [], "hidden": []}
        with torch.no_grad():
            for examples in held:
                found, true = found_and_true(net, examples)
                plain, _ = found_and_true(Vft(8), examples)
                for name, off in (("net", found - true), ("samples", plain - true), ("hidden", 1.0 - true)):
                    errors[name].append((windowed(off) ** 2).mean(dim=(1, 2)).sqrt())
        ours, theirs, hidden = (100.0 * torch.cat(errors[name]) for name in ("net", "samples", "hidden"))
        relative = 100.0 * (ours / hidden)[hidden > 100.0 * SEEN_SHADOW]
        return {
            "rms_pct": float(ours.square().mean().sqrt()),
            "samples_rms_pct": float(theirs.square().mean().sqrt()),
            "worst_rms_pct": float(ours.max()),
            "of_shadows_pct": float(100.0 * (ours.square().mean() / hidden.square().mean()).sqrt()),
            "worst_tenth_of_shadows_pct": float(torch.quantile(relative, 0.9)) if len(relative) else 0.0,
        }


def found_and_true(net: nn.Module, examples: Examples) -> tuple[Tensor, Tensor]:
    """(B, PIXELS, AZIMUTHS) shares of each azimuth's accepted emission that stay open, found and true."""
    true = examples["horizons"]
    found = net(examples["heights"], examples["places"])
    low, high = examples["sin2_limits"][:, None, None].unbind(-1)
    both = [((1.0 - horizon.clamp_min(0.0) ** 2 - low) / (high - low)).clamp(0.0, 1.0) for horizon in (found, true)]
    return both[0], both[1]


def windowed(values: Tensor) -> Tensor:
    """Means over every quarter of a turn."""
    ring = functional.pad(values, (0, WINDOW - 1), mode="circular")
    return functional.avg_pool1d(ring, WINDOW, stride=1)


def exact_horizons(
    height: NDArray[np.float32],
    places: NDArray[np.int64],
    radius: NDArray[np.int32],
    ceiling: NDArray[np.float32],
    occluding_slope: float,
) -> NDArray[np.float32]:
    """(P, AZIMUTHS) sines of the elevation of what stands around each of `places` (P, 2) in `height` (H, W), that of
    `occluding_slope` where nothing stands higher."""
    azimuths = directions(np.arange(AZIMUTHS, dtype=np.float64) * (2.0 * math.pi / AZIMUTHS))
    slopes = np.empty((len(places), AZIMUTHS), np.float32)
    with ONE_AT_A_TIME:
        _march(height, places, radius, ceiling, azimuths, occluding_slope, slopes)
    sines: NDArray[np.float32] = slopes / np.sqrt(1.0 + slopes * slopes)
    return sines


@compiled_parallel
def _march(
    height: NDArray[np.float32],
    places: NDArray[np.int64],
    radius: NDArray[np.int32],
    ceiling: NDArray[np.float32],
    azimuths: NDArray[np.float64],
    occluding_slope: float,
    slopes: NDArray[np.float32],
) -> None:
    for index in prange(len(places)):
        place = signed(index)
        row, column = places[place]
        for k in range(len(azimuths)):
            cosine, sine = azimuths[k]
            slopes[place, k], _ = find_horizon(
                height, row, column, cosine, -sine, occluding_slope, radius[row, column], ceiling[row, column]
            )
