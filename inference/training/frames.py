"""Simulated frames of known surfaces, under drawn instruments and doses: what the networks learn from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, count, islice

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Detector, Instrument, Segment
from inference.calibration import Calibration, calibrate
from inference.forward_model import expected_electrons, linear_response
from inference.training.surfaces import FAMILIES, make_surface
from inference.training.surfaces.canvas import Heights

SUBPIXELS = 2
MARGIN_PX = 12
FINEST_PX = 2.5

TRAINING_ROOT = 0x7EA1
GEOMETRY_ROOT = 0x6E03
GEOMETRIES = 64
GROUP = 64
EXPOSURES = 4

ELEMENTARY_CHARGE_C = 1.602176634e-19
FULL_SCALE = np.iinfo(np.uint16).max

Electrons = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame and its truth.

    `images`: (S, H, W) uint16 counts. `instrument`: what a calibrated instrument file would say, dose (beam current)
    and beam width included; with `Conditions.mismatch` it is a little wrong. `height`: (H, W) float32, the mean over
    each pixel's area, in units of the pixel. `dose`: electrons per pixel summed over the segments, of a flat specimen.
    """

    images: NDArray[np.uint16]
    instrument: Instrument
    height: Heights
    family: str
    dose: float

    @property
    def height_m(self) -> NDArray[np.float64]:
        return self.height.astype(np.float64) * self.instrument.scan.pixel_size_m


@dataclass(frozen=True, slots=True)
class Conditions:
    """What `make_sample` draws from. Doses are drawn log-uniformly; `geometry` None draws one of the pool.

    `mismatch` is the relative error (standard deviation) of the gains that the sample's instrument states; its dark
    levels are then wrong by as much of a flat specimen's signal.
    """

    doses: tuple[float, float] = (50.0, 100_000.0)
    widest_beam_px: float = 1.5
    sharp_share: float = 0.35
    flat_counts: tuple[float, float] = (2_000.0, 28_000.0)
    overexposed_share: float = 0.06
    overexposed_counts: tuple[float, float] = (30_000.0, 60_000.0)
    mismatch: float = 0.0
    geometry: Instrument | None = None


DEFAULT_CONDITIONS = Conditions()


@dataclass(frozen=True, slots=True)
class View:
    """A surface as one geometry and beam see it, not yet exposed: `per_electron` (S, H, W) float32 mean electrons of a
    flat specimen's dose of 1, `height` as in `Sample`."""

    per_electron: Electrons
    height: Heights
    geometry: Instrument
    sigma_px: float
    family: str


def make_sample(
    rng: np.random.Generator, size_px: int, family: str | None = None, conditions: Conditions = DEFAULT_CONDITIONS
) -> Sample:
    """One frame of `size_px` a side of a new surface of `family` (drawn when None), seen under drawn conditions.

    Raises `BadInput` as `make_surface` does.
    """
    return expose(make_view(rng, size_px, family, conditions), rng, conditions)


def make_view(
    rng: np.random.Generator, size_px: int, family: str | None = None, conditions: Conditions = DEFAULT_CONDITIONS
) -> View:
    """The surface is made twice as fine as the frame and reaches 12 pixels beyond it, so that no discretisation is
    favoured and relief outside casts its shadows too (models.md, "Slopes on the grid"; forward_model.md, stage 2)."""
    if size_px < 2:
        raise BadInput(f"a frame of {size_px} pixels a side has no slopes: ask for at least 2")
    family = family or str(rng.choice(FAMILIES))
    surface = fine_surface(family, size_px, rng)
    sharp = rng.random() < conditions.sharp_share
    sigma_px = 0.0 if sharp else rng.uniform(0.0, conditions.widest_beam_px)
    geometry = conditions.geometry or geometry_of_pool(int(rng.integers(GEOMETRIES)))
    return View(expected_frame(surface, geometry, 1.0, sigma_px), pixel_means(surface), geometry, sigma_px, family)


def expose(view: View, rng: np.random.Generator, conditions: Conditions = DEFAULT_CONDITIONS) -> Sample:
    """One exposure of drawn dose, gains and dark levels."""
    geometry, segments = view.geometry, len(view.per_electron)
    dose = _log_uniform(rng, *conditions.doses)
    overexposed = rng.random() < conditions.overexposed_share
    flat_counts = _log_uniform(rng, *(conditions.overexposed_counts if overexposed else conditions.flat_counts))
    gains = flat_counts * segments / dose * np.exp(rng.normal(0.0, 0.15, segments))
    darks = rng.uniform(0.0, 1500.0) + rng.uniform(0.0, 300.0, segments)
    images = digitised(view.per_electron * np.float32(dose), gains.tolist(), darks.tolist(), rng)
    if conditions.mismatch > 0:
        gains = gains * np.exp(rng.normal(0.0, conditions.mismatch, segments))
        darks = np.maximum(darks + rng.normal(0.0, conditions.mismatch, segments) * flat_counts, 0.0)
    stated = calibrated(geometry, dose, view.sigma_px, gains.tolist(), darks.tolist())
    return Sample(images, stated, view.height, view.family, dose)


def fine_surface(family: str, size_px: int, rng: np.random.Generator) -> Heights:
    """A surface for a frame of `size_px` a side: on the fine grid with its margin, in units of the frame's pixel."""
    fine = make_surface(family, SUBPIXELS * (size_px + 2 * MARGIN_PX), rng, SUBPIXELS * FINEST_PX)
    return fine * np.float32(1.0 / SUBPIXELS)


def sample_stream(
    seed: int, size_px: int, conditions: Conditions = DEFAULT_CONDITIONS, start: int = 0
) -> Iterator[Sample]:
    """Samples without end, from number `start` on; sample i depends on `seed` and i alone, so a run can be resumed.

    `GROUP` samples in a row share one detector geometry (and so its number of segments, which lets them be batched):
    acceptance tables cost 0.1 s each and only a few are kept. They are `EXPOSURES` rounds of exposures of the same
    surfaces: marching costs six times what an exposure does, and noise is what a network has to see most of.
    """
    first, skipped = divmod(start, GROUP)
    groups = chain.from_iterable(group_of_stream(seed, group, size_px, conditions) for group in count(first))
    return islice(groups, skipped, None)


def group_of_stream(
    seed: int, group: int, size_px: int, conditions: Conditions = DEFAULT_CONDITIONS
) -> Iterator[Sample]:
    """The `GROUP` samples of one geometry."""
    if conditions.geometry is None:
        drawn = np.random.default_rng(group_key(seed, group))
        conditions = replace(conditions, geometry=geometry_of_pool(int(drawn.integers(GEOMETRIES))))
    views: list[View] = []
    for place in range(GROUP):
        rng = np.random.default_rng(sample_key(seed, group * GROUP + place))
        if place < GROUP // EXPOSURES:
            views.append(make_view(rng, size_px, conditions=conditions))
        yield expose(views[place % len(views)], rng, conditions)


def sample_key(seed: int, index: int) -> tuple[int, ...]:
    """What sample `index` is drawn from. All of training starts with `TRAINING_ROOT`, and nothing else does."""
    return TRAINING_ROOT, 1, seed, index


def group_key(seed: int, group: int) -> tuple[int, ...]:
    return TRAINING_ROOT, 2, seed, group


def expected_frame(
    surface: NDArray[np.floating], geometry: Instrument, dose: float, sigma_px: float = 0.0
) -> Electrons:
    """(S, H, W) float32 mean electrons per pixel of a surface on the fine grid with its margin.

    `surface`: (2 (H + 24), 2 (W + 24)) heights in units of the frame's pixel. BSESM on the fine grid, the beam's
    Gaussian of `sigma_px` frame pixels before the mean over each pixel's area: a pixel's signal is collected over it.
    """
    beam = geometry.beam.model_copy(update={"sigma_px": sigma_px * SUBPIXELS})
    scan = geometry.scan.model_copy(update={"pixel_size_m": geometry.scan.pixel_size_m / SUBPIXELS})
    fine = plain(geometry).model_copy(update={"beam": beam, "scan": scan})
    heights_m = np.asarray(surface, np.float64) * geometry.scan.pixel_size_m
    return pixel_means(expected_electrons(heights_m, fine, dose))


def pixel_means(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., H, W) means over the sub-pixels of every pixel of the frame, of values on the fine grid with its margin."""
    rows, columns = (side // SUBPIXELS for side in fine.shape[-2:])
    blocks = fine.reshape(*fine.shape[:-2], rows, SUBPIXELS, columns, SUBPIXELS)
    inside = slice(MARGIN_PX, -MARGIN_PX)
    kept = blocks[..., inside, :, inside, :]
    return np.asarray(kept.mean(axis=(-3, -1)), np.float32)


def digitised(
    electrons: Electrons, gains: Sequence[float], darks: Sequence[float], rng: np.random.Generator
) -> NDArray[np.uint16]:
    """(S, H, W) counts of one exposure: `gain * Poisson(electrons) + dark`, rounded and saturated, as `render` does."""
    gain, dark = np.array([gains, darks])[:, :, None, None]
    counts = rng.poisson(electrons) * gain + dark
    frame: NDArray[np.uint16] = np.minimum(np.rint(counts), FULL_SCALE).astype(np.uint16)
    return frame


def calibrated(
    geometry: Instrument, dose: float, sigma_px: float, gains: Sequence[float], darks: Sequence[float]
) -> Instrument:
    """The instrument file's content for frames of this dose, beam, gains and dark levels."""
    primaries = dose / float(linear_response(plain(geometry))[:, 2].sum()) / geometry.specimen.backscatter_yield
    current_a = primaries * ELEMENTARY_CHARGE_C / geometry.beam.dwell_time_s
    beam = geometry.beam.model_copy(update={"current_a": current_a, "sigma_px": sigma_px})
    return _with_digitiser(geometry, gains, darks).model_copy(update={"beam": beam})


def calibration_of(sample: Sample) -> Calibration:
    """`calibrate(sample.instrument, sample.images)`, without computing acceptance tables anew for each set of gains.

    The response to the normal does not depend on gain and dark level, so it is taken from the shared geometry.
    """
    segments = sample.instrument.detector.segments
    return replace(
        calibrate(plain(sample.instrument), sample.images),
        gain_counts_per_electron=np.array([segment.gain_counts_per_electron for segment in segments], np.float32),
        dark_counts=np.array([segment.dark_counts for segment in segments], np.float32),
        calibration_hash=sample.instrument.calibration_hash,
    )


@lru_cache(maxsize=GEOMETRIES)
def geometry_of_pool(number: int) -> Instrument:
    """Geometry `number` of the fixed pool: 3 to 8 segments (half of them 4), one ring or two, turned, a little off
    centre, 4 to 15 mm above the specimen. Its digitiser is left open."""
    rng = np.random.default_rng((GEOMETRY_ROOT, number))
    count = 4 if number % 2 == 0 else int(rng.choice([3, 5, 6, 7, 8]))
    rings = 2 if count in (6, 8) and rng.random() < 0.4 else 1
    inner_m, width_m = rng.uniform(0.8e-3, 2.5e-3), rng.uniform(2.5e-3, 5.5e-3)
    radii_m = np.linspace(inner_m, inner_m + width_m, rings + 1)
    gap_m = rng.uniform(0.0, 0.35e-3)
    span_deg = 360.0 * rings / count
    segments = tuple(
        Segment(
            name=f"{'AB'[ring]}{place + 1}",
            azimuth_from_deg=span_deg * (place - 0.5),
            azimuth_to_deg=span_deg * (place + 0.5),
            inner_radius_m=float(radii_m[ring]),
            outer_radius_m=float(radii_m[ring + 1]),
            gap_m=gap_m,
        )
        for ring in range(rings)
        for place in range(count // rings)
    )
    offset_x_m, offset_y_m = rng.normal(0.0, 0.15e-3, 2)
    detector = Detector(
        working_distance_m=rng.uniform(4.0e-3, 15.0e-3),
        rotation_deg=rng.uniform(0.0, 360.0),
        offset_x_m=float(offset_x_m),
        offset_y_m=float(offset_y_m),
        segments=segments,
    )
    return Instrument(detector=detector)


def _with_digitiser(geometry: Instrument, gains: Sequence[float], darks: Sequence[float]) -> Instrument:
    segments = tuple(
        segment.model_copy(update={"gain_counts_per_electron": float(gain), "dark_counts": float(dark)})
        for segment, gain, dark in zip(geometry.detector.segments, gains, darks, strict=True)
    )
    return geometry.model_copy(update={"detector": geometry.detector.model_copy(update={"segments": segments})})


def plain(geometry: Instrument) -> Instrument:
    """With one digitiser for all: instruments that differ in gains alone then share their acceptance tables."""
    count = len(geometry.detector.segments)
    return _with_digitiser(geometry, [1.0] * count, [0.0] * count)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
