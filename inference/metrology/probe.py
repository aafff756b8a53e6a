"""What the probe of an AFM itself puts into its map: its scan lines' offsets, its noise, and its tip's shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import grey_dilation

from inference.metrology.height_map import HeightMap
from inference.metrology.scatter import MAD_TO_SIGMA
from inference.pixel_noise import length

MOST_HALF_PX = 60
WINDOW_PX = 192
HALVINGS = 9
OPENED_NOISE = 1.5
"""By how many deviations of its noise the opening of a noisy map lies below it."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Probe:
    """`line_offset_m`: rms of the offsets between neighbouring scan lines; `noise_m`: standard deviation of single
    pixels. `tip_radius_m` was stated, or is the bluntest that the map allows. `tip_effect_m`: rms of what such a tip
    changes on the surface of the frame."""

    line_offset_m: float
    noise_m: float
    tip_radius_m: float
    tip_stated: bool
    tip_effect_m: float

    def statement(self) -> str:
        """In words for a reader of the comparison."""
        tip = "a stated" if self.tip_stated else "at most (blind estimate)"
        return (
            f"The AFM's lines are offset against each other by {length(self.line_offset_m)} rms; these offsets "
            "are taken out, so that what is the same along a whole scan line is not judged. Its single pixels scatter "
            f"by {length(self.noise_m)}. Its tip has {tip} radius of {length(self.tip_radius_m)}, which "
            f"changes a surface like this frame's by {length(self.tip_effect_m)} rms: it rounds edges and fills "
            "feet."
        )


def probe(afm: HeightMap, offsets_m: Floats, frame_m: Floats, stated_radius_m: float | None) -> Probe:
    """`afm` with `offsets_m` of its lines taken out; `frame_m` the same place as the frame has it, on its pixels."""
    noise_m = pixel_noise(afm.height_m)
    radius_m = bluntest_tip(afm) if stated_radius_m is None else stated_radius_m
    dilated_m = touched(frame_m, (afm.pixel_size_y_m, afm.pixel_size_m), radius_m)
    # The tip that touches beside its apex lifts all of a slope; a constant is no change of shape.
    effect_m = float(np.std(dilated_m - frame_m))
    line_m = float(np.std(np.diff(offsets_m))) if len(offsets_m) > 2 else 0.0
    return Probe(line_m, noise_m, radius_m, stated_radius_m is not None, effect_m)


def pixel_noise(height_m: Floats) -> float:
    """Standard deviation of single pixels, in metres: from third differences along the scan lines, in which the
    surface itself counts little."""
    third = np.diff(height_m, n=3, axis=1)
    return float(MAD_TO_SIGMA * np.median(np.abs(third)) / math.sqrt(20.0))


def bluntest_tip(afm: HeightMap) -> float:
    """The greatest radius, in metres, of a paraboloid tip that could have made the map: blind reconstruction
    (Villarrubia, J. Res. NIST 102, 425, 1997) among paraboloids. An image is unchanged by opening with the tip that
    made it; the first one that changes it by more than its noise is too blunt."""
    middle = tuple(slice(max(0, (side - WINDOW_PX) // 2), (side + WINDOW_PX) // 2) for side in afm.height_m.shape)
    quiet = afm.height_m[middle]
    pixels_m = (afm.pixel_size_y_m, afm.pixel_size_m)
    inner = tuple(slice(side // 5, side - side // 5) for side in quiet.shape)
    allowed_m = max(OPENED_NOISE * pixel_noise(afm.height_m), 2e-3 * float(np.std(quiet)))
    low, high = math.log(0.01 * max(pixels_m)), math.log(1e4 * max(pixels_m))
    for _ in range(HALVINGS):
        radius_m = math.exp(0.5 * (low + high))
        eroded = -touched(-quiet, pixels_m, radius_m)
        opened = touched(eroded, pixels_m, radius_m)
        # Beyond the border the surface is not known, so that the outer part tells nothing.
        if float(np.mean((quiet - opened)[inner])) <= allowed_m:
            low = math.log(radius_m)
        else:
            high = math.log(radius_m)
    return math.exp(low)


def touched(height_m: Floats, pixels_m: tuple[float, float], radius_m: float) -> Floats:
    """(H, W) where the apex of a paraboloid tip is while it touches a surface: its dilation by the tip. A paraboloid
    is a sum over both axes, so that one after the other is exact."""
    reach_m = math.sqrt(2.0 * radius_m * float(np.ptp(height_m)))
    for axis, pixel_m in enumerate(pixels_m):
        half = min(MOST_HALF_PX, max(1, math.ceil(reach_m / pixel_m)))
        parabola = -((np.arange(-half, half + 1) * pixel_m) ** 2) / (2.0 * radius_m)
        height_m = grey_dilation(height_m, structure=np.expand_dims(parabola, 1 - axis), mode="nearest")
    return height_m
