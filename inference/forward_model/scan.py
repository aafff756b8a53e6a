"""What happens while the beam scans: the specimen drifts, lines jitter, the preamplifier lags, charge builds up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from acquisition.instrument import Instrument

Floats = NDArray[np.float32]


def moved(electrons: Floats, instrument: Instrument, rng: np.random.Generator) -> Floats:
    """(S, H, W) expected electrons as the lines meet them, from the top; building up charge changes their brightness.

    Drift grows evenly over the frame and is none in its middle; it moves the specimen right and down in the image.
    Jitter shifts each line by itself, the same in all segments.
    """
    effects = instrument.effects
    rows, columns = electrons.shape[1:]
    time = (np.arange(rows) + 0.5) / rows - 0.5
    shift_x = effects.drift_x_px * time
    if effects.line_jitter_px > 0:
        shift_x = shift_x + rng.normal(0.0, effects.line_jitter_px, rows)
    if shift_x.any() or effects.drift_y_px:
        places = np.broadcast_arrays(
            (np.arange(rows) - effects.drift_y_px * time)[:, None], np.arange(columns) - shift_x[:, None]
        )
        segments = [map_coordinates(segment, places, order=3, mode="mirror") for segment in electrons]
        electrons = np.maximum(np.stack(segments), 0.0).astype(np.float32)
    if effects.charging:
        electrons = electrons * (1.0 + effects.charging * (time + 0.5)).astype(np.float32)[:, None]
    return electrons


def lagged(electrons: NDArray[Any], instrument: Instrument) -> NDArray[Any]:
    """(S, H, W) electrons behind the preamplifier: a low pass of first order along each line, noise included."""
    lag_s = instrument.effects.lag_s
    if lag_s == 0:
        return electrons
    # Imported here: it would cost every start of every program a quarter of a second, for what is rarely on.
    from scipy.signal import lfilter

    kept = math.exp(-instrument.beam.dwell_time_s / lag_s)
    begun = kept * electrons[:, :, :1].astype(np.float64)
    behind: NDArray[Any] = lfilter([1.0 - kept], [1.0, -kept], electrons, axis=2, zi=begun)[0]
    return behind
