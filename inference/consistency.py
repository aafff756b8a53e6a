"""Whether heights explain their frame: its residual against what noise alone leaves, and heights after another turn.

A height is rendered again by the model set's own graph, once without noise and once with the noise of as many
electrons, and both frames are reconstructed. The first gives the cycle figure, the second the residual to expect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.accuracy import without_plane
from inference.calibration import Calibration

CHECKED_EVERY = 32
"""Frames: by their number, so that a frame tells the same whoever reconstructs it, and whenever."""
CHECKED_PX = 192
DRAWN = 11
SMALL_FRAME_SIGMAS = 3.0
MEDIAN_SPREAD = 2.0
"""Standard error of the ratio of two medians of n residuals, over 1 / sqrt(n); neighbours share electrons."""
FULL_SCALE = 65535

Layers = dict[str, NDArray[Any]]
Run = Callable[[NDArray[np.uint16], Calibration, NDArray[np.float32]], Layers]
Rerender = Callable[[Layers], NDArray[np.float32]]


def middle(shape: tuple[int, int]) -> tuple[slice, slice]:
    """The part of a frame (H, W) that is judged: 192 x 192 pixels at most."""
    rows, columns = ((max(0, (side - CHECKED_PX) // 2), min(side, CHECKED_PX)) for side in shape)
    return slice(rows[0], sum(rows)), slice(columns[0], sum(columns))


def residual_median(residual: NDArray[np.float32], rejected: NDArray[np.uint8]) -> float:
    """Over the middle's pixels (both (H, W)), in units of noise: walls and shadows, which the rms is made of, don't
    move it, while a wrong gain moves every pixel."""
    part = middle((residual.shape[0], residual.shape[1]))
    kept = residual[part][rejected[part] == 0]
    return float(np.median(kept)) if kept.size else 0.0


def checked(run: Run, rerender: Rerender, layers: Layers, calibration: Calibration) -> dict[str, float]:
    """`residual_expected`, the `residual_median` that noise alone would leave on this height, `residual_low` and
    `residual_high`, between which it should lie, and `cycle_height`: rms of height 2 minus height 1, planes removed,
    over the relief of height 1; all of the frame's middle.

    `run` reconstructs, `rerender` gives counts (S, H, W) for slopes; `layers` are what `run` gave, its inputs among
    them. The band is that of the calibration times the residual to expect, wider on small frames.
    """
    part = middle((layers["height"].shape[0], layers["height"].shape[1]))
    images, held, height = layers["images"][:, *part], layers["frames_held"][part], layers["height"][part]
    if min(height.shape) < 2:
        return {}
    cut = {"images": images, "frames_held": held, "rejected": layers["rejected"][part]}
    shown = rerender({**layers, **cut, **_slopes(height, calibration)})
    still = run(_counts(shown), calibration, held)
    noisy = run(_counts(_with_noise(shown, calibration, held)), calibration, held)
    expected = residual_median(noisy["residual"], noisy["rejected"])
    low, high = calibration.residual_band
    open_by = SMALL_FRAME_SIGMAS * MEDIAN_SPREAD / np.sqrt(height.size)
    return {
        "residual_expected": expected,
        "residual_low": float(expected * max(low - open_by, 0.0)),
        "residual_high": float(expected * (high + open_by)),
        "cycle_height": apart(still["height"], height),
    }


def apart(height_2: NDArray[np.floating], height_1: NDArray[np.floating]) -> float:
    """Rms of their difference, planes removed, over the relief (standard deviation) of `height_1`."""
    relief = float(without_plane(height_1).std())
    return float(without_plane(height_2 - height_1).std()) / relief if relief > 0 else 0.0


def _slopes(height: NDArray[np.float32], calibration: Calibration) -> Layers:
    p = (np.diff(height, axis=1) / calibration.pixel_size_m).astype(np.float32)
    q = (np.diff(height, axis=0) / calibration.pixel_size_y_m).astype(np.float32)
    return {"p": p, "q": q, "sigma_p": np.ones_like(p), "sigma_q": np.ones_like(q)}


def _with_noise(
    counts: NDArray[np.float32], calibration: Calibration, held: NDArray[np.float32]
) -> NDArray[np.float64]:
    gain, dark = (one[:, None, None] for one in (calibration.gain_counts_per_electron, calibration.dark_counts))
    electrons = np.maximum((counts.astype(np.float64) - dark) / gain, 0.0)
    return np.asarray(np.random.default_rng(DRAWN).poisson(electrons * held) / held * gain + dark)


def _counts(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    return np.asarray(np.clip(np.rint(values), 0, FULL_SCALE), np.uint16)
