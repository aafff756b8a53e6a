"""ISO 25178-2 areal parameters of a height map, from their definitions. Clauses are those of ISO 25178-2:2012."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap

DECAY = 0.2
"""Autocorrelation at which a surface counts as unlike itself (clause 4.2: s = 0.2 unless specified)."""
DIRECTIONS = 360
STEPS_PER_PIXEL = 2

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Areal:
    """Areal parameters of one map, of its heights over their mean. `str_` is Str; `sal_m` and `str_` are None where
    the autocorrelation does not fall to 0.2 within half the map: it is too small for its own texture."""

    sa_m: float
    sq_m: float
    ssk: float
    sku: float
    sp_m: float
    sv_m: float
    sz_m: float
    sdr: float
    sdq: float
    sal_m: float | None
    str_: float | None


def areal(surface: HeightMap) -> Areal:
    """All parameters of `surface` as it is: level it before where its plane is no texture (`HeightMap.level`).

    Sq, Ssk, Sku, Sp, Sv, Sz, Sa: clauses 4.1.1 to 4.1.7. Sku is 3 for a normal distribution (Gwyddion tells the
    excess over 3). Sdq: clause 4.3.1, Sdr: clause 4.3.2, as a share and not in percent. Raises `BadInput` for a flat
    map, of which most of them are undefined.
    """
    height_m = surface.height_m - surface.height_m.mean()
    sq_m = float(np.sqrt(np.mean(height_m**2)))
    if sq_m <= 1e-12 * max(float(np.abs(surface.height_m).max()), np.finfo(np.float64).tiny):
        raise BadInput("the height map is flat: skewness, kurtosis and autocorrelation are undefined")
    sal_m, str_ = autocorrelation_lengths(surface)
    return Areal(
        sa_m=float(np.mean(np.abs(height_m))),
        sq_m=sq_m,
        ssk=float(np.mean((height_m / sq_m) ** 3)),
        sku=float(np.mean((height_m / sq_m) ** 4)),
        sp_m=float(height_m.max()),
        sv_m=float(-height_m.min()),
        sz_m=float(np.ptp(height_m)),
        sdr=developed_area_ratio(surface),
        sdq=rms_gradient(surface),
        sal_m=sal_m,
        str_=str_,
    )


def developed_area_ratio(surface: HeightMap) -> float:
    """Sdr (clause 4.3.2): area of the surface over its projection, minus 1.

    Each cell between four pixels is four triangles that meet at their mean height: two triangles a cell would depend
    on which diagonal they share. The half pixel around the outermost pixels' centres goes on level, as in Gwyddion.
    """
    z, dx, dy = np.pad(surface.height_m, 1, mode="edge"), surface.pixel_size_m, surface.pixel_size_y_m
    a, b, c, d = z[:-1, :-1], z[:-1, 1:], z[1:, :-1], z[1:, 1:]
    centre = 0.25 * (a + b + c + d)
    area = sum(
        np.sqrt((along * (first - second)) ** 2 + (across * (first + second - 2.0 * centre)) ** 2 + (dx * dy) ** 2)
        for first, second, along, across in ((a, b, dy, dx), (c, d, dy, dx), (a, c, dx, dy), (b, d, dx, dy))
    )
    down, right = (np.r_[0.5, np.ones(side - 1), 0.5] for side in surface.height_m.shape)
    return float(down @ area @ right / (4.0 * dx * dy * surface.height_m.size) - 1.0)


def rms_gradient(surface: HeightMap) -> float:
    """Sdq (clause 4.3.1): root mean square of the gradient, from differences of neighbours.

    Gwyddion takes the same. Programs that take differences over two or seven pixels damp short waves: theirs is lower
    on rough maps.
    """
    p = np.diff(surface.height_m, axis=1) / surface.pixel_size_m
    q = np.diff(surface.height_m, axis=0) / surface.pixel_size_y_m
    return float(np.sqrt(np.mean(p**2) + np.mean(q**2)))


def autocorrelation(height_m: Floats) -> Floats:
    """(2 * (H // 2) + 1, 2 * (W // 2) + 1): f_ACF (clause 3.1.10) of heights over their mean for lags of up to half
    the map, lag 0 in the middle. Each lag is averaged over what overlaps there; nothing is taken as periodic."""
    rows, columns = height_m.shape
    half_rows, half_columns = rows // 2, columns // 2
    level = height_m - height_m.mean()
    # Padded so far that no lag up to half the map meets its own repetition.
    shape = [next_fast_len(side + side // 2 + 1, real=True) for side in (rows, columns)]
    spectrum = rfft2(level, shape)
    sums = irfft2(np.abs(spectrum) ** 2, shape)
    down, right = np.arange(-half_rows, half_rows + 1), np.arange(-half_columns, half_columns + 1)
    overlap = np.outer(rows - np.abs(down), columns - np.abs(right))
    mean = sums[np.ix_(down, right)] / overlap
    return np.asarray(mean / np.mean(level**2), np.float64)


def autocorrelation_lengths(surface: HeightMap) -> tuple[float | None, float | None]:
    """Sal in metres (clause 4.2.1) and Str (clause 4.2.2): the shortest way from lag 0 to an autocorrelation of 0.2,
    and the ratio of the shortest to the longest. Each is None where it does not get there in half the map.

    The way is interpolated between lags. Gwyddion 2.62 (module acf2d, `find_decays`) measures to the nearest and the
    farthest pixel corner of the region above 0.2, and so may differ by up to half a pixel's diagonal: less than 0.5 %
    of `sal` above some 140 pixels, up to twice that of `str`, a ratio of two such lengths, and more where a texture is
    but a few pixels long.
    """
    function = autocorrelation(surface.height_m)
    half = np.array(function.shape) // 2
    angles = np.linspace(0.0, np.pi, DIRECTIONS, endpoint=False)
    right, down = np.cos(angles) / surface.pixel_size_m, np.sin(angles) / surface.pixel_size_y_m
    within_m = np.minimum(
        half[1] / np.maximum(np.abs(right), 1e-9 / surface.pixel_size_m),
        half[0] / np.maximum(np.abs(down), 1e-9 / surface.pixel_size_y_m),
    )
    step_m = min(surface.pixel_size_m, surface.pixel_size_y_m) / STEPS_PER_PIXEL
    radii_m = np.arange(0.0, within_m.max(), step_m)
    places = [half[0] + np.outer(down, radii_m), half[1] + np.outer(right, radii_m)]
    along = map_coordinates(function, places, order=1, mode="nearest")
    below = (along < DECAY) & (radii_m <= within_m[:, np.newaxis])
    reached = below.any(axis=1)
    if not reached.any():
        return None, None
    first = below[reached].argmax(axis=1)
    before, after = (along[reached, first + offset] for offset in (-1, 0))
    lengths_m = radii_m[first - 1] + step_m * (before - DECAY) / (before - after)
    return float(lengths_m.min()), float(lengths_m.min() / lengths_m.max()) if reached.all() else None
