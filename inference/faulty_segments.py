"""Segments that show nothing: left out, so that the others still give a height."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.calibration import Calibration

LEAST_SHARE = 0.01
LEAST_ELECTRONS = 1.0
STUCK_SHARE = 0.999
SAMPLE_STEP = 8


def without_faulty(
    images: NDArray[np.uint16], calibration: Calibration, names: tuple[str, ...]
) -> tuple[NDArray[np.uint16], Calibration]:
    """Images (S, H, W) and calibration of the segments that work; `names` (S) are the segments'.

    Faulty is a segment that shows less than 1 % of what the others show, or full scale nearly everywhere while the
    others don't. The calibration then says so in `estimated`. A frame that is dark or saturated as a whole has no
    faulty segments. Raises `BadInput` when those left can't tell the directions apart.
    """
    faults = _faults(images, calibration)
    if not faults:
        return images, calibration
    kept = [place for place in range(len(images)) if place not in faults]
    told = "; ".join(f"segment {names[place]} {why}" for place, why in faults.items())
    response = calibration.response[kept]
    if len(kept) < 3 or np.linalg.matrix_rank(response, tol=1e-6) < 3:
        raise BadInput(
            f"{told}: the {len(kept)} left of {len(images)} cannot tell x, y and brightness apart; "
            "check the detector's amplifiers and the gains in the instrument file"
        )
    response = response / response[:, 2].sum()
    return images[kept], replace(
        calibration,
        response=response,
        inversion=np.asarray(np.linalg.pinv(response), np.float32),
        gain_counts_per_electron=calibration.gain_counts_per_electron[kept],
        dark_counts=calibration.dark_counts[kept],
        estimated=(*calibration.estimated, f"height from {len(kept)} segments: {told}"),
    )


def _faults(images: NDArray[np.uint16], calibration: Calibration) -> dict[int, str]:
    sample = images[:, ::SAMPLE_STEP, ::SAMPLE_STEP]
    stuck = (sample >= calibration.saturation_counts).mean(axis=(1, 2)) > STUCK_SHARE
    if stuck.all():
        return {}
    dark, gain = calibration.dark_counts, calibration.gain_counts_per_electron
    electrons = (sample.mean(axis=(1, 2)) - dark) / gain / calibration.response[:, 2]
    usual = float(np.median(electrons[~stuck]))
    silent = ~stuck & (electrons < LEAST_SHARE * usual) & (usual > LEAST_ELECTRONS)
    quiet = f"shows less than {LEAST_SHARE:.0%} of the others' signal"
    return {
        **dict.fromkeys(np.flatnonzero(silent).tolist(), quiet),
        **dict.fromkeys(np.flatnonzero(stuck).tolist(), "is at full scale everywhere"),
    }
