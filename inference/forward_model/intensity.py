"""Intensity: what each segment captures of every pixel's emission, in closed form (design stage 3)."""

from __future__ import annotations

import math
from threading import Lock

import numpy as np
from numba import prange
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.forward_model.exposure import compiled_parallel, horizon, search_limits, signed
from inference.forward_model.optics import acceptance

Floats = NDArray[np.float32]

# numba's portable threading layer aborts the process when two threads enter parallel kernels at once.
ONE_AT_A_TIME = Lock()


def captured_fractions(heights_m: NDArray[np.floating], instrument: Instrument) -> Floats:
    """(S, H, W) float32: fraction of the electrons emitted at each pixel that each segment captures.

    `heights_m`: (H, W), metres, along the beam and relative to the mean plane of the specimen, whose tilt is added.
    Per pixel `sum over azimuth bins of n_z A_k(h) + n_x Bx_k(h) + n_y By_k(h)` over the horizon h, which is the steeper
    one of the pixel's own tangent plane and what stands around it within the frame (forward_model.md, stages 1 to 3).
    Normals are central differences at the pixel centres, one-sided at the border. Raises `BadInput` for heights that
    are not finite or fewer than 2 x 2, and as `acceptance` does.
    """
    heights_m = np.asarray(heights_m)
    if heights_m.ndim != 2 or min(heights_m.shape) < 2:
        raise BadInput(f"heights of shape {heights_m.shape}: expected (H, W) with at least 2 x 2 pixels")
    if not np.isfinite(heights_m).all():
        missing = int(np.count_nonzero(~np.isfinite(heights_m)))
        raise BadInput(f"{missing} of {heights_m.size} heights are not finite; fill or crop them before rendering")
    table = acceptance(instrument)
    width_m = instrument.scan.pixel_size_m
    height_m = instrument.scan.pixel_size_y_m or width_m
    if not (width_m > 0 and height_m > 0):
        raise BadInput(f"pixel size {width_m:g} m by {height_m:g} m must be above 0 m")
    unit_m = min(width_m, height_m)

    surface = (_on_tilted_plane(heights_m, instrument, width_m, height_m) / unit_m).astype(np.float32)
    cosine, sine = _snapped(np.cos(table.azimuth_rad)), _snapped(np.sin(table.azimuth_rad))
    fractions = np.empty((len(table.response), *surface.shape), np.float32)
    with ONE_AT_A_TIME:
        radius, ceiling = search_limits(surface, table.occluding_slope)
        capture(
            surface,
            radius,
            ceiling,
            np.array([unit_m / width_m, unit_m / height_m]),
            np.stack([cosine, sine], axis=1),
            table.response,
            table.blocked,
            np.array([table.sin2_low, table.sin2_step, table.occluding_slope]),
            fractions,
        )
    return fractions


def _on_tilted_plane(
    heights_m: NDArray[np.floating], instrument: Instrument, width_m: float, height_m: float
) -> NDArray[np.float64]:
    """Positive tilt_x lifts the image's right side, positive tilt_y its top. Centred, for single precision's sake."""
    rows, columns = heights_m.shape
    rise_right = math.tan(math.radians(instrument.specimen.tilt_x_deg)) * width_m
    rise_down = -math.tan(math.radians(instrument.specimen.tilt_y_deg)) * height_m
    tilted = heights_m.astype(np.float64) - float(heights_m.mean(dtype=np.float64))
    tilted += rise_right * (np.arange(columns) - 0.5 * columns)
    tilted += rise_down * (np.arange(rows)[:, None] - 0.5 * rows)
    return tilted


def _snapped(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exact zeros where rounding left 1e-17, lest a ray along the border row steps out of the frame."""
    return np.where(np.abs(direction) < 1e-12, 0.0, direction)


@compiled_parallel
def capture(
    surface: Floats,
    radius: NDArray[np.int32],
    ceiling: Floats,
    pixels_per_length: NDArray[np.float64],
    azimuths: NDArray[np.float64],
    response: NDArray[np.float64],
    blocked: Floats,
    limits: NDArray[np.float64],
    fractions: Floats,
) -> None:
    rows, columns = surface.shape
    segments = len(response)
    per_x, per_y = pixels_per_length
    sin2_low, sin2_step, occluding_slope = limits
    last = blocked.shape[1] - 1
    for index in prange(rows):
        row = signed(index)
        up, down = max(row - 1, 0), min(row + 1, rows - 1)
        signal = np.empty(segments)
        for column in range(columns):
            left, right = max(column - 1, 0), min(column + 1, columns - 1)
            p = (surface[row, right] - surface[row, left]) / (right - left) * per_x
            q = (surface[down, column] - surface[up, column]) / (down - up) * per_y
            n_z = 1.0 / math.sqrt(1.0 + p * p + q * q)
            n_x, n_y = -p * n_z, -q * n_z
            for s in range(segments):
                signal[s] = response[s, 0] * n_x + response[s, 1] * n_y + response[s, 2] * n_z
            reach = radius[row, column]
            if reach > 0 or p * p + q * q > occluding_slope * occluding_slope:
                for k in range(len(azimuths)):
                    cosine, sine = azimuths[k]
                    slope = max(p * cosine - q * sine, occluding_slope)
                    if reach > 0:
                        slope, _ = horizon(
                            surface, row, column, cosine * per_x, -sine * per_y, slope, reach, ceiling[row, column]
                        )
                    if slope > occluding_slope:
                        place = max((1.0 / (1.0 + slope * slope) - sin2_low) / sin2_step, 0.0)
                        below = min(int(place), last - 1)
                        part = min(place - below, 1.0)
                        for s in range(segments):
                            lost = 0.0
                            for axis, normal in enumerate((n_x, n_y, n_z)):
                                near, far = blocked[k, below, s, axis], blocked[k, below + 1, s, axis]
                                lost += normal * (near + part * (far - near))
                            signal[s] -= lost
            for s in range(segments):
                fractions[s, row, column] = max(signal[s], 0.0)
