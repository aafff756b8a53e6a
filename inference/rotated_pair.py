"""One place twice, the specimen turned by 180 degrees in between: what turns is surface, what stays is instrument.

With the specimen turned by half a turn its slopes change sign in the image, an error of the instrument's does not. So
after turning the second map back, half the difference of the slopes is the instrument's error, their mean the surface.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift
from skimage.registration import phase_cross_correlation

from acquisition.errors import BadInput
from acquisition.frames import Frame
from acquisition.instrument import Instrument
from inference.calibration import calibrate
from inference.pipeline import with_optics
from inference.plain_inversion import electrons_of, integrated, slopes_of

FINENESS = 50
SMOOTHED_PX = 3.0
LEAST_OVERLAP = 0.5
LEAST_CORRELATION = 0.3
BORDER_PX = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RotatedPair:
    """`moved_px`: the second turned back lies so far down and right of the first. Instrument: `offset_x_deg`,
    `offset_y_deg` the tilt it shows on a level specimen, `structure_deg` the rms slope that goes with the structure
    at scales above 3 pixels. Surface: `surface_deg`, rms slope. `correlation` of the two maps."""

    moved_px: tuple[float, float]
    offset_x_deg: float
    offset_y_deg: float
    structure_deg: float
    surface_deg: float
    correlation: float

    def tree(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> list[str]:
        down, right = self.moved_px
        return [
            f"registered at {down:+.2f} px down, {right:+.2f} px right, correlation {self.correlation:.3f}",
            f"instrument: a level specimen would show {self.offset_x_deg:+.3f} deg along x, {self.offset_y_deg:+.3f} "
            f"deg along y; {self.structure_deg:.3f} deg rms more where there is structure",
            f"surface: {self.surface_deg:.3f} deg rms",
        ]


def compare_rotated(first: Frame, second: Frame, instrument: Instrument) -> RotatedPair:
    """Both inverted with `instrument`. Raises `BadInput` for frames of different size or pixel, and where the two do
    not show the same place."""
    if first.images.shape != second.images.shape:
        raise BadInput(f"frames of {first.images.shape} and {second.images.shape}: take both with the same raster")
    sizes = [frame.header.optics.pixel_size_m for frame in (first, second)]
    if not math.isclose(*sizes, rel_tol=1e-3):
        raise BadInput(f"pixels of {sizes[0]:g} m and {sizes[1]:g} m: take both at the same magnification")
    slopes = [_slopes(frame, instrument) for frame in (first, second)]
    here, back = slopes[0], -slopes[1][:, ::-1, ::-1]
    moved = _registered(here, back)
    placed = np.stack([shift(one, moved, order=3, mode="nearest") for one in back])
    inside = _overlap(here.shape[1:], moved)
    here, placed = here[:, *inside], placed[:, *inside]
    correlation = float(np.corrcoef(_rough(here), _rough(placed))[0, 1])
    if correlation < LEAST_CORRELATION:
        raise BadInput(
            f"the frames correlate by {correlation:.2f} after turning one by 180 degrees, at least {LEAST_CORRELATION} "
            "is needed: give the same place, turned by half a turn, no more than half a frame apart"
        )
    surface, error = 0.5 * (here + placed), 0.5 * (here - placed)
    offset = error.mean(axis=(1, 2))
    smooth = np.stack([gaussian_filter(one - one.mean(), SMOOTHED_PX) for one in error])
    return RotatedPair(
        (-float(moved[0]), -float(moved[1])),
        math.degrees(math.atan(offset[0])),
        math.degrees(math.atan(offset[1])),
        _rms_deg(smooth),
        _rms_deg(surface - surface.mean(axis=(1, 2), keepdims=True)),
        correlation,
    )


def _slopes(frame: Frame, instrument: Instrument) -> Floats:
    """(2, H, W) of the integrated height map: without the noise that has curl."""
    calibration = calibrate(with_optics(instrument, frame.header.optics), frame.images)
    electrons = electrons_of(frame.images, calibration)
    moments = np.einsum("cs,syx->cyx", calibration.inversion.astype(np.float64), electrons)
    q, p = np.gradient(integrated(slopes_of(moments, float(calibration.flat_share))))
    return np.stack([p, q])


def _registered(here: Floats, there: Floats) -> NDArray[np.float64]:
    found, _, _ = phase_cross_correlation(_picture(here), _picture(there), upsample_factor=FINENESS, normalization=None)
    return np.asarray(found, np.float64)


def _picture(slopes: Floats) -> NDArray[np.complex128]:
    """Both slopes at once, smoothed a little, without what a tilt adds and without borders that jump."""
    level = [gaussian_filter(one - one.mean(), 1.0) for one in slopes]
    rows, columns = level[0].shape
    window = np.hanning(rows + 2)[1:-1, None] * np.hanning(columns + 2)[1:-1]
    return np.asarray((level[0] + 1j * level[1]) * window)


def _overlap(shape: tuple[int, ...], moved: NDArray[np.float64]) -> tuple[slice, slice]:
    parts = []
    for size, by in zip(shape, moved, strict=True):
        low, high = max(math.ceil(by), 0) + BORDER_PX, size + min(math.floor(by), 0) - BORDER_PX
        if high - low < LEAST_OVERLAP * size:
            raise BadInput(f"the frames lie {by:+.0f} of {size} pixels apart: bring the same place into the middle")
        parts.append(slice(low, high))
    return parts[0], parts[1]


def _rough(slopes: Floats) -> Floats:
    return np.asarray((slopes - slopes.mean(axis=(1, 2), keepdims=True)).ravel())


def _rms_deg(slopes: Floats) -> float:
    return math.degrees(math.atan(math.sqrt(float((slopes**2).sum(axis=0).mean()))))
