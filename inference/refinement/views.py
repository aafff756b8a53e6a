"""One scene in a calibration: its mean counts, what is unknown of its surface, and how the counts depend on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.plain_inversion import integrated, slopes_of
from inference.refinement.known_samples import Pose, Sample
from inference.refinement.local_law import (
    LocalLaw,
    Walls,
    captured,
    derived_response,
    local_law,
    slope_operators,
    walls,
)

MOST_PX = 128
SATURATED_COUNTS = 65535
BORDER_PX = 2
# Of what walls do to a pixel; how far the model of it is believed.
WALLS_DOUBT = 0.2
# An ordinary surface lives on the pixels' own grid: of what an image bends within a pixel, so much is in doubt.
GRID_DOUBT = 0.1
FINER = 2
EXPONENT_STEP = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class View:
    """Mean counts (S, H, W) of `frames` frames, each of `binned`² pixels of the scan; `valid` (S, H, W). With `sample`
    the surface is known up to `poses`; without it every height is unknown."""

    name: str
    counts: Floats
    valid: NDArray[np.bool_]
    frames: int
    binned: int
    pixel_m: float
    sample: Sample | None = None
    poses: tuple[Pose, ...] = field(default=())

    @property
    def dense(self) -> int:
        """Unknowns of this view beside heights: the logarithm of its brightness, then its poses."""
        return 1 + len(self.poses)


class Surface(NamedTuple):
    """Heights (H, W) in metres, and the pose that made them where the sample is known."""

    heights_m: Floats
    pose: Mapping[str, float]


class Shown(NamedTuple):
    """Expected counts (S, M) with the parts that they are made of, and their misfit and weights."""

    expected: Floats
    law: LocalLaw
    walls: Walls
    fractions: Floats
    misfit: Floats
    weight: Floats
    by_exponent: Floats


def view_of(name: str, frames: Sequence[NDArray[np.uint16]], instrument: Instrument, sample: Sample | None) -> View:
    """Of `frames` (S, H, W) of one still scene, at most 128 pixels wide after binning.

    Raises `BadInput` for frames that don't fit the instrument and for pixels that are not square.
    """
    scan = instrument.scan
    if scan.pixel_size_y_m not in (None, scan.pixel_size_m):
        raise BadInput(f"pixels of {scan.pixel_size_m:g} m by {scan.pixel_size_y_m:g} m: calibrate on square ones")
    if any(frame.shape[0] != len(instrument.detector.segments) or frame.ndim != 3 for frame in frames):
        raise BadInput(f"{name}: its frames do not have the instrument's {len(instrument.detector.segments)} segments")
    lit = np.all([frame < SATURATED_COUNTS for frame in frames], axis=0)
    mean: Floats = np.stack(frames).mean(axis=0, dtype=np.float64)
    binned = -(-max(mean.shape[1:]) // MOST_PX)
    pixel_m = scan.pixel_size_m * binned
    return View(
        name=name,
        counts=_binned(mean, binned),
        valid=_inside(_binned(lit.astype(np.float64), binned) > 0.999),
        frames=len(frames),
        binned=binned,
        pixel_m=pixel_m,
        sample=sample,
        poses=() if sample is None else sample.poses(pixel_m),
    )


def start_heights(view: View, instrument: Instrument) -> Floats:
    """(H, W) metres by difference over sum with the instrument as it is, integrated by cosine transform."""
    gain, dark = digitiser(instrument)
    electrons = (view.counts - dark[:, None, None]) / gain[:, None, None]
    normal = np.einsum("cs,syx->cyx", np.linalg.pinv(derived_response(instrument).response), electrons)
    return integrated(slopes_of(normal, 1.0)) * view.pixel_m


def shown(
    view: View,
    surface: Surface,
    instrument: Instrument,
    log_brightness: float,
    fitted: frozenset[str] = frozenset(),
    before: Walls | None = None,
) -> Shown:
    """The forward model at a surface and an instrument, whose pixel size is replaced by the view's. `fitted` names
    the free parameters: what only some of them need is left out otherwise."""
    heights_m, pixel_m = surface.heights_m, view.pixel_m
    if view.sample is not None:
        shape, pixel_m = (FINER * heights_m.shape[0], FINER * heights_m.shape[1]), pixel_m / FINER
        heights_m = view.sample.heights_m(surface.pose, shape, pixel_m)
    used = instrument.with_scan(pixel_size_m=pixel_m)
    gain, dark = digitiser(instrument)
    along_x, along_y, laplacian = slope_operators(*heights_m.shape)
    flat = heights_m.ravel() / pixel_m
    effects = used.effects
    law = local_law(along_x @ flat, along_y @ flat, derived_response(used), effects.tilt_yield_exponent)
    around = walls(heights_m, used, effects.second_scattering > 0 or "second_scattering" in fitted, before)
    fractions = (around.captured + effects.second_scattering * around.again) * law.relative_yield
    scaled = gain[:, None] * np.exp(log_brightness)
    sigma_px = instrument.beam.sigma_px
    signal = scaled * by_beam(fractions, view, sigma_px)
    expected = signal + dark[:, None]
    valid = view.valid.reshape(expected.shape)
    noise = gain[:, None] * np.maximum(signal, 1.0) + effects.read_noise_counts**2 + 1.0 / 12.0
    occluded = np.abs(around.captured * law.relative_yield - law.level) + 0.1 * np.abs(around.again)
    if effects.emission_exponent != 1.0 or effects.forward_lobe:
        occluded = 0.1 * np.abs(around.again)
    doubt = WALLS_DOUBT * scaled * by_beam(occluded, view, sigma_px)
    if view.sample is None:
        doubt = doubt + GRID_DOUBT * np.abs(signal @ laplacian)
    by_exponent = np.zeros_like(fractions)
    if "emission_exponent" in fitted:
        other = effects.model_copy(update={"emission_exponent": effects.emission_exponent + EXPONENT_STEP})
        changed = captured(heights_m, used.model_copy(update={"effects": other}))
        by_exponent = (changed - around.captured) * law.relative_yield / EXPONENT_STEP
    weight = valid / (noise / (view.frames * view.binned**2) + doubt**2)
    misfit = (view.counts.reshape(expected.shape) - expected) * valid
    return Shown(expected, law, around, fractions, misfit, weight, by_exponent)


def by_beam(values: Floats, view: View, sigma_px: float) -> Floats:
    """(S, M) as pixels of the view show it. Known samples are rendered finer and through a beam of `sigma_px` pixels of
    the scan; an ordinary surface is the one that beam and pixels show."""
    if view.sample is None:
        return values
    rows, columns = (FINER * size for size in view.counts.shape[1:])
    images = values.reshape(len(values), rows, columns)
    width = FINER * sigma_px / view.binned
    if width > 0:
        images = np.stack([gaussian_filter(one, width, mode="reflect") for one in images])
    return _binned(images, FINER).reshape(len(values), -1)


def digitiser(instrument: Instrument) -> tuple[Floats, Floats]:
    segments = instrument.detector.segments
    return np.array([s.gain_counts_per_electron or 1.0 for s in segments]), np.array(
        [s.dark_counts or 0.0 for s in segments]
    )


def _inside(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Borders have one-sided slopes and unseen neighbours."""
    inner = np.zeros_like(valid)
    inner[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = valid[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    return inner


def _binned(images: Floats, by: int) -> Floats:
    rows, columns = (by * (size // by) for size in images.shape[1:])
    inside = images[:, :rows, :columns]
    return np.asarray(inside.reshape(len(images), rows // by, by, columns // by, by).mean(axis=(2, 4)))
