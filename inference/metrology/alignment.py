"""Where one height map lies on another: shift, rotation, scale and shear, from their heights alone."""

from __future__ import annotations

import math

import numpy as np

from acquisition.errors import BadInput
from inference.metrology.candidates import candidates
from inference.metrology.height_map import HeightMap
from inference.metrology.place_fit import fit_place
from inference.metrology.placement import Placement, steps

LEAST_CORRELATION = 0.3
LEAST_LEAD = 0.3
"""Of the best place over the next one, as the inverse hyperbolic tangents of their correlations (Fisher)."""
MOST_SCALE, MOST_ASPECT, MOST_SHEAR_DEG, MOST_HEIGHT_RATIO = 1.18, 1.1, 6.0, 4.0
MOST_SIGMA_PX = 1.0
BLUR_PX = 2.0


def align(frame: HeightMap, other: HeightMap) -> Placement:
    """Place `frame` on `other`: every rotation and scales of 0.88 to 1.12 are tried on coarse maps by correlation, the
    best are fitted to the slopes by least squares with a robust loss. `other` may have scan lines, its rows.

    Raises `BadInput` where nothing of one is found in the other.
    """
    starts = candidates(frame, other)
    refined = (fit_place(frame, other, start, BLUR_PX) for start in starts)
    found = sorted((one for one in refined if one is not None), key=_quality, reverse=True)
    best = next((one for one in found if _plausible(one, frame, other)), None)
    if best is None or best.correlation < LEAST_CORRELATION:
        raise BadInput(
            "the two height maps do not fit each other: see that they show the same place, at least a third of the "
            "smaller one, and that neither is mirrored or has a pixel size more than 10 % off"
        )
    # What chance reaches on such surfaces is told by the places beside, those that no drift explains among them.
    rival = next((one for one in found if _elsewhere(one, best, frame, other)), None)
    if rival is not None and math.atanh(best.correlation) - math.atanh(rival.correlation) < LEAST_LEAD:
        raise BadInput(
            f"the two height maps do not fit each other in one place alone: the best correlation is "
            f"{best.correlation:.3f}, and {rival.correlation:.3f} turned by "
            f"{rival.rotation_deg - best.rotation_deg:.0f}° against it; take maps that share more of the surface"
        )
    return best


def _quality(placement: Placement) -> float:
    return placement.correlation


def _plausible(placement: Placement, frame: HeightMap, other: HeightMap) -> bool:
    """Drift and wrong pixel sizes distort a map by so much at most; a fit to another surface goes beyond, or its parts
    do not agree on one place."""
    along, across = placement.scale
    return (
        max(along, across, 1.0 / along, 1.0 / across) < MOST_SCALE
        and max(along / across, across / along) < MOST_ASPECT
        and abs(placement.shear_deg) < MOST_SHEAR_DEG
        and 1.0 / MOST_HEIGHT_RATIO < placement.height_ratio < MOST_HEIGHT_RATIO
        and placement.sigma_m(frame) < MOST_SIGMA_PX * max(*steps(frame), *steps(other))
    )


def _elsewhere(one: Placement, best: Placement, frame: HeightMap, other: HeightMap) -> bool:
    """Whether it is another place, and not the same found again."""
    apart_deg = abs((one.rotation_deg - best.rotation_deg + 180.0) % 360.0 - 180.0)
    apart_m = float(np.hypot(*(one.shift_m - best.shift_m)))
    return apart_deg > 3.0 or apart_m > 5.0 * max(*steps(frame), *steps(other))
