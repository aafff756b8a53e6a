"""Intensity: what each segment captures of every pixel's emission, in closed form (design stage 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numba import prange
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.forward_model.exposure import compiled, compiled_parallel, find_horizon, search_limits, signed
from inference.forward_model.optics import Acceptance, acceptance

Floats = NDArray[np.float32]

# numba's portable threading layer aborts the process when two threads enter parallel kernels at once.
ONE_AT_A_TIME = Lock()


@dataclass(frozen=True, slots=True)
class Scene:
    """A specimen before its detector, as the kernels take it.

    `surface`: (H, W) float32 heights in units of the smaller pixel side, tilt included. `pixels_per_length`: (2,)
    float64, columns and rows per that unit. `azimuths`: (K, 2) float64, cosine and sine of the bins of `acceptance`.
    """

    surface: Floats
    pixels_per_length: NDArray[np.float64]
    azimuths: NDArray[np.float64]
    acceptance: Acceptance

    @property
    def scale(self) -> NDArray[np.float64]:
        """(3,) float64: sin² of the tables' first horizon and their step, and the least steep one that blocks."""
        table = self.acceptance
        return np.array([table.sin2_low, table.sin2_step, table.occluding_slope])


class Horizons(Protocol):
    """A way to find what the surface itself blocks."""

    def fractions(self, scene: Scene) -> Floats:
        """(S, H, W) float32: what `captured_fractions` promises."""
        ...


@dataclass(frozen=True, slots=True)
class Marched:
    """Exact for the surface interpolated linearly along grid lines: every ray meets every crossing that could block."""

    def fractions(self, scene: Scene) -> Floats:
        radius, ceiling = search_limits(scene.surface, scene.acceptance.occluding_slope)
        return march(scene, radius, ceiling)


MARCHED = Marched()


def captured_fractions(heights_m: NDArray[np.floating], instrument: Instrument, horizons: Horizons = MARCHED) -> Floats:
    """(S, H, W) float32: fraction of the electrons emitted at each pixel that each segment captures.

    `heights_m`: (H, W), metres, along the beam and relative to the mean plane of the specimen, whose tilt is added.
    Per pixel `sum over azimuth bins of n_z A_k(h) + n_x Bx_k(h) + n_y By_k(h)` over the horizon h, which is the steeper
    one of the pixel's own tangent plane and what stands around it within the frame (forward_model.md, stages 1 to 3).
    Normals are central differences at the pixel centres, one-sided at the border. `horizons` says how to look for
    what stands around. Raises `BadInput` for heights that are not finite or fewer than 2 x 2, and as `acceptance` does.
    """
    scene = scene_of(heights_m, instrument)
    with ONE_AT_A_TIME:
        return horizons.fractions(scene)


def vision_field_px(
    heights_m: NDArray[np.floating], instrument: Instrument, relief_outside_m: float | None = None
) -> Floats:
    """(H, W) float32: the radius r* around each pixel, in pixels of `pixel_size_m`, beyond which nothing blocks it.

    `relief_outside_m`: the highest level of the surface outside of the frame, on the scale of `heights_m`; None when it
    rises no higher than the frame does. Proof: what stands at a distance r and rises by h blocks only directions less
    steep than h/r, and the detector takes none less steep than `occluding_slope`, 1/tan of the largest theta_out. So it
    blocks nothing once r >= h / occluding_slope, and no h exceeds the highest point's, so that
    `r* = (highest - height) tan(theta_out)` holds for certain, not just probably. On a tilted specimen the mean plane
    rises by up to t per length, so by t r besides h: then `r* = (highest - height) / (occluding_slope - t)`, without
    bound (inf) where the plane itself blocks. The next pixels, which give the normal, count even within a smaller r*.
    Raises `BadInput` as `captured_fractions` does, and for a level that is not finite.
    """
    heights_m = _checked(heights_m)
    width_m, _ = _pixel_sides_m(instrument)
    highest_m = float(heights_m.max())
    if relief_outside_m is not None:
        if not math.isfinite(relief_outside_m):
            raise BadInput(f"relief_outside_m {relief_outside_m:g} must be a finite level in metres, as heights_m are")
        highest_m = max(highest_m, relief_outside_m)
    tilts = (instrument.specimen.tilt_x_deg, instrument.specimen.tilt_y_deg)
    margin = acceptance(instrument).occluding_slope - math.hypot(*(math.tan(math.radians(tilt)) for tilt in tilts))
    if margin <= 0.0:
        return np.full(heights_m.shape, np.inf, np.float32)
    radius_px: Floats = ((highest_m - heights_m) / (margin * width_m)).astype(np.float32)
    return radius_px


def near_border(
    heights_m: NDArray[np.floating], instrument: Instrument, relief_outside_m: float | None = None
) -> NDArray[np.bool_]:
    """(H, W) bool: pixels closer to the frame's border than r*: what they show may depend on what wasn't imaged.

    The outermost pixels' normals, one-sided differences, are another matter. Arguments and errors as
    `vision_field_px`, whose radii are compared with the distance to the outermost pixels' centres.
    """
    radius_px = vision_field_px(heights_m, instrument, relief_outside_m)
    width_m, height_m = _pixel_sides_m(instrument)
    rows, columns = (np.minimum(np.arange(count), np.arange(count)[::-1]) for count in radius_px.shape)
    return np.minimum(rows[:, None] * (height_m / width_m), columns) < radius_px


def march(scene: Scene, radius: NDArray[np.int32], ceiling: Floats) -> Floats:
    """(S, H, W) fractions in the surface's precision.

    What lies beyond a pixel's `radius` or above its `ceiling` is not looked for.
    """
    fractions = np.empty((len(scene.acceptance.response), *scene.surface.shape), scene.surface.dtype)
    _capture(
        scene.surface,
        radius,
        ceiling,
        scene.pixels_per_length,
        scene.azimuths,
        scene.acceptance.response,
        scene.acceptance.blocked,
        scene.scale,
        fractions,
    )
    return fractions


def directions(azimuth_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, 2) cosines and sines, exact zeros where rounding left 1e-17: a ray along the border row must stay in it."""
    exact = np.stack([np.cos(azimuth_rad), np.sin(azimuth_rad)], axis=1)
    return np.where(np.abs(exact) < 1e-12, 0.0, exact)


@compiled
def slopes_at(surface: Floats, row: int, column: int, per_x: float, per_y: float) -> tuple[float, float]:
    """p and q at a pixel's centre, one-sided at the border."""
    rows, columns = surface.shape
    up, down = max(row - 1, 0), min(row + 1, rows - 1)
    left, right = max(column - 1, 0), min(column + 1, columns - 1)
    p = (surface[row, right] - surface[row, left]) / (right - left) * per_x
    q = (surface[down, column] - surface[up, column]) / (down - up) * per_y
    return p, q


@compiled
def place_in_table(slope: float, sin2_low: float, sin2_step: float, last: int) -> tuple[int, float]:
    """Row of `Acceptance.blocked` for a horizon's slope, and the part of the way to the next row."""
    place = max((1.0 / (1.0 + slope * slope) - sin2_low) / sin2_step, 0.0)
    below = min(int(place), last - 1)
    return below, min(place - below, 1.0)


def _checked(heights_m: NDArray[np.floating]) -> NDArray[np.floating]:
    heights_m = np.asarray(heights_m)
    if heights_m.ndim != 2 or min(heights_m.shape) < 2:
        raise BadInput(f"heights of shape {heights_m.shape}: expected (H, W) with at least 2 x 2 pixels")
    if not np.isfinite(heights_m).all():
        missing = int(np.count_nonzero(~np.isfinite(heights_m)))
        raise BadInput(f"{missing} of {heights_m.size} heights are not finite; fill or crop them before rendering")
    return heights_m


def scene_of(heights_m: NDArray[np.floating], instrument: Instrument) -> Scene:
    """Heights (H, W) in metres before the instrument's detector. Raises `BadInput` as `captured_fractions` does."""
    heights_m = _checked(heights_m)
    table = acceptance(instrument)
    width_m, height_m = _pixel_sides_m(instrument)
    unit_m = min(width_m, height_m)
    return Scene(
        surface=(_on_tilted_plane(heights_m, instrument, width_m, height_m) / unit_m).astype(np.float32),
        pixels_per_length=np.array([unit_m / width_m, unit_m / height_m]),
        azimuths=directions(table.azimuth_rad),
        acceptance=table,
    )


def _pixel_sides_m(instrument: Instrument) -> tuple[float, float]:
    width_m = instrument.scan.pixel_size_m
    height_m = instrument.scan.pixel_size_y_m or width_m
    if not (width_m > 0 and height_m > 0):
        raise BadInput(f"pixel size {width_m:g} m by {height_m:g} m must be above 0 m")
    return width_m, height_m


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


@compiled_parallel
def _capture(
    surface: Floats,
    radius: NDArray[np.int32],
    ceiling: Floats,
    pixels_per_length: NDArray[np.float64],
    azimuths: NDArray[np.float64],
    response: NDArray[np.float64],
    blocked: Floats,
    scale: NDArray[np.float64],
    fractions: Floats,
) -> None:
    rows, columns = surface.shape
    segments = len(response)
    per_x, per_y = pixels_per_length
    sin2_low, sin2_step, occluding_slope = scale
    last = blocked.shape[1] - 1
    for index in prange(rows):
        row = signed(index)
        signal = np.empty(segments)
        for column in range(columns):
            p, q = slopes_at(surface, row, column, per_x, per_y)
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
                        slope, _ = find_horizon(
                            surface, row, column, cosine * per_x, -sine * per_y, slope, reach, ceiling[row, column]
                        )
                    if slope > occluding_slope:
                        below, part = place_in_table(slope, sin2_low, sin2_step, last)
                        for s in range(segments):
                            lost = 0.0
                            for axis, normal in enumerate((n_x, n_y, n_z)):
                                near, far = blocked[k, below, s, axis], blocked[k, below + 1, s, axis]
                                lost += normal * (near + part * (far - near))
                            signal[s] -= lost
            for s in range(segments):
                fractions[s, row, column] = max(signal[s], 0.0)
