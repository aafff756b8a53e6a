"""Swept horizons: far shadows at a constant cost per pixel, however deep the relief (design stage 2, fast variant)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import prange
from numpy.typing import NDArray

from inference.forward_model.exposure import compiled_parallel, find_horizon, search_limits, signed
from inference.forward_model.intensity import Floats, Scene, march, place_in_table, slopes_at


@dataclass(frozen=True, slots=True)
class Swept:
    """Marches the first `near_px` crossings of each ray exactly and sweeps for what stands beyond.

    Sweeping follows T. Timonen and J. Westerholm, Scalable height field self-shadowing, Computer Graphics Forum 29
    (2010): a line of samples is walked from its far end, and of what has been passed only the upper convex hull is
    kept, as a stack, since nothing below it can be a horizon. Lines lie one pixel apart and serve the pixels nearest
    to them, with each pixel's own height, so that an obstacle is seen up to half a pixel aside of where it stands:
    little beyond `near_px`, much before. Pixels that need not look beyond are marched, and so are all where marching
    is the faster: where pixels have to look less far than `worthwhile_px`, on average over the frame.
    """

    near_px: int = 16
    worthwhile_px: float = 32.0

    def fractions(self, scene: Scene) -> Floats:
        """(S, H, W) float32: what `captured_fractions` promises."""
        surface, table = scene.surface, scene.acceptance
        radius, ceiling = search_limits(surface, table.occluding_slope)
        beyond = radius > self.near_px
        if not beyond.any() or radius.mean(where=beyond) * beyond.mean() < self.worthwhile_px:
            return march(scene, radius, ceiling)
        fractions = march(scene, np.where(beyond, 0, radius).astype(np.int32), ceiling)
        upright = _bordered(surface), beyond
        turned = _bordered(surface.T), np.ascontiguousarray(beyond.T)
        for (cosine, sine), blocked in zip(scene.azimuths, table.blocked, strict=True):
            right, down = np.array([cosine, -sine]) * scene.pixels_per_length
            if abs(right) >= abs(down):
                horizon = _swept(*upright, right, down, self.near_px)
            else:
                horizon = _swept(*turned, down, right, self.near_px).T
            _shade(
                surface,
                beyond,
                ceiling,
                horizon,
                scene.pixels_per_length,
                np.array([cosine, sine]),
                self.near_px,
                blocked,
                scene.scale,
                fractions,
            )
        return fractions


SWEPT = Swept()


def _bordered(surface: Floats) -> Floats:
    """One more row on either side, for lines that pass less than half a pixel outside of the frame."""
    return np.pad(surface, ((1, 1), (0, 0)), mode="edge")


def _swept(bordered: Floats, beyond: NDArray[np.bool_], along: float, across: float, near_px: int) -> Floats:
    """(H, W) float32 horizon slopes where `beyond`, looking `along` columns and `across` rows per unit of length."""
    horizon = np.zeros(beyond.shape, np.float32)
    _sweep(bordered, beyond, across / along, along > 0, 1.0 / abs(along), near_px, horizon)
    return horizon


@compiled_parallel
def _sweep(
    bordered: Floats,
    beyond: NDArray[np.bool_],
    drift: float,
    looks_up: bool,
    column_length: float,
    near_px: int,
    horizon: Floats,
) -> None:
    """Lines of `drift` rows per column, |drift| <= 1, each walked against the direction it looks in."""
    rows, columns = beyond.shape
    shift = -drift * (columns - 1)
    first = math.floor(min(shift, 0.0)) - 1
    count = math.ceil(max(shift, 0.0)) + rows - first + 1
    towards = -1 if looks_up else 1
    for index in prange(count):
        # In bordered rows and half a row lower, so that whole numbers are the nearest row's.
        start = signed(index) + first + 1.5
        low, high = 0, columns - 1
        if drift > 0.0:
            low = max(low, math.ceil((1.0 - start) / drift))
            high = min(high, math.ceil((rows + 1.0 - start) / drift) - 1)
        elif drift < 0.0:
            low = max(low, math.floor((rows + 1.0 - start) / drift) + 1)
            high = min(high, math.floor((1.0 - start) / drift))
        elif start < 1.0 or start >= rows + 1.0:
            continue
        samples = high - low - near_px
        if samples < 1:
            continue
        places, heights = np.empty(samples), np.empty(samples)
        top = -1
        passed = high if looks_up else low
        column = passed + towards * (near_px + 1)
        for step in range(samples):
            position = start - 0.5 + drift * passed
            above = int(position)
            height = float(bordered[above, passed])
            height += (position - above) * (bordered[above + 1, passed] - height)
            place = float(step)
            while top > 0:
                rise = (heights[top] - height) * (place - places[top - 1])
                if rise > (heights[top - 1] - height) * (place - places[top]):
                    break
                top -= 1
            top += 1
            places[top], heights[top] = place, height
            passed += towards

            row = int(start + drift * column) - 1
            if beyond[row, column]:
                own = float(bordered[row + 1, column])
                here = place + near_px + 1.0
                chosen = top
                while chosen > 0:
                    rise = (heights[chosen] - own) * (here - places[chosen - 1])
                    if rise > (heights[chosen - 1] - own) * (here - places[chosen]):
                        break
                    chosen -= 1
                horizon[row, column] = (heights[chosen] - own) / ((here - places[chosen]) * column_length)
            column += towards


@compiled_parallel
def _shade(
    surface: Floats,
    beyond: NDArray[np.bool_],
    ceiling: Floats,
    horizon: Floats,
    pixels_per_length: NDArray[np.float64],
    azimuth: NDArray[np.float64],
    near_px: int,
    blocked: Floats,
    scale: NDArray[np.float64],
    fractions: Floats,
) -> None:
    """Takes from `fractions` what one azimuth's horizon blocks more than the pixel's own tangent plane does."""
    rows, columns = surface.shape
    segments = blocked.shape[1]
    per_x, per_y = pixels_per_length
    cosine, sine = azimuth
    sin2_low, sin2_step, occluding_slope = scale
    last = blocked.shape[0] - 1
    for index in prange(rows):
        row = signed(index)
        for column in range(columns):
            if not beyond[row, column]:
                continue
            p, q = slopes_at(surface, row, column, per_x, per_y)
            tangent = max(p * cosine - q * sine, occluding_slope)
            slope, _ = find_horizon(
                surface,
                row,
                column,
                cosine * per_x,
                -sine * per_y,
                max(tangent, horizon[row, column]),
                near_px,
                ceiling[row, column],
            )
            if slope > tangent:
                n_z = 1.0 / math.sqrt(1.0 + p * p + q * q)
                before, before_part = place_in_table(tangent, sin2_low, sin2_step, last)
                after, after_part = place_in_table(slope, sin2_low, sin2_step, last)
                for s in range(segments):
                    lost = 0.0
                    for axis, normal in enumerate((-p * n_z, -q * n_z, n_z)):
                        near, far = blocked[after, s, axis], blocked[after + 1, s, axis]
                        lost += normal * (near + after_part * (far - near))
                        near, far = blocked[before, s, axis], blocked[before + 1, s, axis]
                        lost -= normal * (near + before_part * (far - near))
                    fractions[s, row, column] = max(fractions[s, row, column] - lost, 0.0)
