"""The fixed test set: frames that no network is trained on, and what is known of them. Change it only with VERSION."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant
from inference.training.frames import (
    MARGIN_PX,
    SUBPIXELS,
    Sample,
    calibrated,
    digitised,
    expected_frame,
    fine_surface,
    pixel_means,
)
from inference.training.height_maps import fine_map, read_levelled_map
from inference.training.surfaces.canvas import Canvas, Heights

VERSION = 1
HELD_OUT_ROOT = 0x7E57

SIZE_PX = 256
MOST_MAP_PX = 512
DOSES = (100.0, 600.0, 3_000.0, 10_000.0, 40_000.0)
QUICK_DOSES = (600.0, 10_000.0)
FLAT_COUNTS = 12_000.0
DARK_COUNTS = 200.0

FACET_DEG = (20.0, 60.0)
FACET_WIDTH_PX, FACET_PITCH_PX, FACET_BEAM_PX = 8.0, 48.0, 1.0
FACET_CASES, FACET_DOSES = 24, (1_000.0, 10_000.0)
CHIRP_FREQUENCIES = (0.03, 0.45)
CHIRP_DEG, CHIRP_DOSE, CHIRP_BEAMS_PX = 10.0, 40_000.0, (0.0, 1.0)
SURFACES: Mapping[str, tuple[int, ...]] = {
    "terraces": (1, 0, 13, 8),
    "step_bunches": (3, 10, 14, 5),
    "spirals": (12, 13, 7, 9),
    "facets": (6, 2, 11, 7),
    "islands": (4, 3, 2, 6),
    "grains": (3, 11, 12, 2),
    "gaussian": (11, 5, 10, 8),
    "fractal": (9, 5, 4, 8),
    "gratings": (14, 9, 3, 1),
    "hills": (11, 5, 0, 13),
    "pits": (8, 13, 3, 2),
    "nanograins": (7, 8, 13, 0),
    "flat": (12, 15, 7, 10),
    "mixtures": (5, 3, 12, 0),
}
"""Numbers of each family's surfaces: of 16 drawn, those whose rms slopes are nearest to the 5th, 1st, 7th and 3rd
eighths, so that every family is seen both flat and steep."""
KNOWN_SPECTRA = ((4.0, 3.0), (4.0, 10.0), (16.0, 3.0), (16.0, 10.0))
"""Correlation length in pixels and rms slope in degrees of the Gaussian surfaces of known spectrum."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A surface of the set, on the fine grid with its margin in units of the frame's pixel, and how it is seen."""

    name: str
    family: str
    number: int
    surface: Heights
    geometry: Instrument
    doses: tuple[float, ...]
    beam_px: float = 0.0
    known: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A frame to judge by. `known` holds what the scene is made of, by family:

    - `facet`: `angle_deg`, `azimuth_deg` (across the ridges), `width_px`, `pitch_px`, `start_px`: `across_facets_px`.
    - `chirp`: `left_frequency`, `right_frequency` (cycles per pixel at the frame's edges, linear along x), `slope`.
    - `known_spectrum`: `deviation_px` s and `correlation_px` l of the covariance `s² exp(-r² / l²)`; rms slope 2 s / l.
      The spectrum over f in cycles per pixel is `s² pi l² exp(-(pi l f)²)`; truth is its mean over pixels.
    """

    name: str
    sample: Sample
    known: Mapping[str, float]


def held_out_cases(data: Path | None = None, quick: bool = False) -> Iterator[Case]:
    """Every surface at every dose, seen by the default geometry with gains set so that a flat specimen gives 12 000
    counts. Real maps of `data`/afm are seen with their own pixel size. `quick` takes a part of the same cases.

    Raises `BadInput` when `data` is given and has no maps, or unusable ones.
    """
    for scene in held_out_scenes(data, quick):
        yield from exposures(scene)


def held_out_scenes(data: Path | None = None, quick: bool = False) -> Iterator[Scene]:
    """The surfaces of `held_out_cases`, not yet seen. Raises `BadInput` as it does."""
    doses = QUICK_DOSES if quick else DOSES
    for family, numbers in SURFACES.items():
        for number in numbers[:1] if quick else numbers:
            surface = fine_surface(family, SIZE_PX, np.random.default_rng(held_out_key(family, number)))
            yield Scene(f"{family} {number}", family, number, surface, four_quadrant(), doses)
    for number in range(0, FACET_CASES, 8 if quick else 1):
        yield _facets(number)
    for number, beam_px in enumerate(CHIRP_BEAMS_PX):
        yield _chirp(number, beam_px)
    for number, (correlation_px, slope_deg) in enumerate(KNOWN_SPECTRA):
        yield _of_known_spectrum(number, correlation_px, slope_deg, doses)
    if data is not None:
        yield from _real_maps(data, doses, SIZE_PX if quick else MOST_MAP_PX)


def exposures(scene: Scene) -> Iterator[Case]:
    """The scene at each of its doses."""
    per_electron = expected_frame(scene.surface, scene.geometry, 1.0, scene.beam_px)
    height = pixel_means(scene.surface)
    segments = len(per_electron)
    for dose in scene.doses:
        gains, darks = [FLAT_COUNTS * segments / dose] * segments, [DARK_COUNTS] * segments
        rng = np.random.default_rng(held_out_key(scene.family, scene.number, round(dose)))
        images = digitised(per_electron * np.float32(dose), gains, darks, rng)
        instrument = calibrated(scene.geometry, dose, scene.beam_px, gains, darks)
        sample = Sample(images, instrument, height, scene.family, dose)
        yield Case(f"{scene.name}, N = {dose:g}", sample, scene.known)


def held_out_key(family: str, number: int, dose: int = 0) -> tuple[int, ...]:
    """What a surface (dose 0) or its noise is drawn from: all of the test set starts with `HELD_OUT_ROOT`."""
    return HELD_OUT_ROOT, zlib.crc32(family.encode()), number, dose


def across_facets_px(case: Case) -> NDArray[np.float64]:
    """(H, W) place of each pixel's middle within the pitch of a `facet` case, across the ridges, in pixels.

    The rising facet spans 0 to `width_px`, the falling one `pitch_px / 2` to `pitch_px / 2 + width_px`; level between.
    """
    rows, columns = case.sample.height.shape
    x, y = np.arange(columns) + 0.5 - 0.5 * columns, np.arange(rows)[:, None] + 0.5 - 0.5 * rows
    return _across(x, y, case.known)


def _facets(number: int) -> Scene:
    """Trapezoidal ridges: facets 8 pixels wide, plateaus twice as wide. Angles are spread evenly, each drawn within
    its share of 20 to 60 degrees."""
    rng = np.random.default_rng(held_out_key("facet", number))
    share = (number + rng.random()) / FACET_CASES
    known = {
        "angle_deg": FACET_DEG[0] + share * (FACET_DEG[1] - FACET_DEG[0]),
        "azimuth_deg": rng.uniform(0.0, 360.0),
        "width_px": FACET_WIDTH_PX,
        "pitch_px": FACET_PITCH_PX,
        "start_px": rng.uniform(0.0, FACET_PITCH_PX),
    }
    x = _fine_places()
    across = _across(x, x[:, None], known)
    risen = np.minimum(across, FACET_WIDTH_PX) - np.clip(across - 0.5 * FACET_PITCH_PX, 0.0, FACET_WIDTH_PX)
    surface = (math.tan(math.radians(known["angle_deg"])) * risen).astype(np.float32)
    name = f"facet {number}, {known['angle_deg']:.2f} deg"
    return Scene(name, "facet", number, surface, four_quadrant(), FACET_DOSES, FACET_BEAM_PX, known)


def _across(x: NDArray[np.float64], y: NDArray[np.float64], known: Mapping[str, float]) -> NDArray[np.float64]:
    azimuth = math.radians(known["azimuth_deg"])
    along = x * math.cos(azimuth) - y * math.sin(azimuth) - known["start_px"]
    return np.asarray(along % known["pitch_px"], np.float64)


def _chirp(number: int, beam_px: float) -> Scene:
    """A wave along x whose frequency rises linearly and whose slope stays the same."""
    low, high = CHIRP_FREQUENCIES
    from_left = _fine_places() + 0.5 * SIZE_PX
    frequency = low + (high - low) * from_left / SIZE_PX
    phase = 2.0 * math.pi * from_left * (low + 0.5 * (high - low) * from_left / SIZE_PX)
    slope = math.tan(math.radians(CHIRP_DEG))
    wave = slope / (2.0 * math.pi * frequency) * np.sin(phase)
    surface = np.tile(wave.astype(np.float32), (len(wave), 1))
    known = {"left_frequency": low, "right_frequency": high, "slope": slope}
    name = f"chirp, beam {beam_px:g} px"
    return Scene(name, "chirp", number, surface, four_quadrant(), (CHIRP_DOSE,), beam_px, known)


def _of_known_spectrum(number: int, correlation_px: float, slope_deg: float, doses: tuple[float, ...]) -> Scene:
    rng = np.random.default_rng(held_out_key("known_spectrum", number))
    canvas = Canvas(len(_fine_places()), 1.0, 1.0, rng)
    deviation_px = 0.5 * correlation_px * math.tan(math.radians(slope_deg))
    surface = np.float32(deviation_px) * canvas.noise(SUBPIXELS * correlation_px)
    known = {"deviation_px": deviation_px, "correlation_px": correlation_px}
    name = f"known spectrum, {correlation_px:g} px, {slope_deg:g} deg"
    return Scene(name, "known_spectrum", number, surface, four_quadrant(), doses, known=known)


def _real_maps(data: Path, doses: tuple[float, ...], most_px: int) -> Iterator[Scene]:
    files = sorted((data / "afm").glob("*.npz"))
    if not files:
        raise BadInput(f"no height maps (.npz) in {(data / 'afm').resolve()}: name the data folder with --data")
    for file in files:
        heights_m, pixel_m = read_levelled_map(file)
        surface = fine_map(heights_m, pixel_m, most_px)
        geometry = four_quadrant().with_scan(pixel_size_m=pixel_m[1])
        yield Scene(f"afm {file.stem}", "afm", zlib.crc32(file.stem.encode()), surface, geometry, doses)


def _fine_places() -> NDArray[np.float64]:
    """Middles of the sub-pixels along one side, margin included, in frame pixels from the frame's middle."""
    count = SUBPIXELS * (SIZE_PX + 2 * MARGIN_PX)
    return np.asarray((np.arange(count) + 0.5) / SUBPIXELS - MARGIN_PX - 0.5 * SIZE_PX, np.float64)
