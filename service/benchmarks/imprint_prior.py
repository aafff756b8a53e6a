"""A real instrument of unknown radii and dark levels: what its imprint's images and metadata alone can say."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, load_instrument, parse_instrument
from hardware_drivers.tiff.sets import read_image_sets
from inference.calibration import calibrate
from inference.plain_inversion import electrons_of, integrated, slopes_of
from inference.segment_score import score_segments
from service.benchmarks.frames import frame_of
from service.benchmarks.imprint import NOMINAL_DEPTH_M, NOMINAL_TILT_DEG, faces
from service.benchmarks.imprint_faces import FaceSignals, face_signals
from service.benchmarks.measured import Measured
from service.benchmarks.peers import frankot_chellappa, principal_components, principal_slopes

BINNED = 4
SAMPLES = 200_000
TURN_STEP_DEG = 4.0
SPAN_DEG = 120.0
# The stated prior. Radii of detectors that clip under a pole piece; dark levels are set by hand and may be anything.
INNER_M, OUTER_M = (0.5e-3, 2.0e-3), (4.0e-3, 8.0e-3)
RADII_M = (INNER_M, OUTER_M)
INCLINATION_DEG = (5.0, 60.0)
# Of the noise the amplifier's part is unknown; the electrons' grows with the signal, by more than Poisson's as each
# makes another pulse. Metadata tell how many were sent: metals scatter a fifth to a half of them back, and of those
# that meet the detector half are counted, within a factor of two either way.
AMPLIFIER_SHARE, EXCESS = (0.0, 1.0), (1.0, 1.6)
BACKSCATTERED, COUNTED, COUNTED_FACTOR = (0.2, 0.5), 0.5, 2.0
ELEMENTARY_CHARGE_C = 1.602176634e-19
# Of the tilt's yield, for metals from light to heavy. The imprint is one material, so its faces' brightness is that of
# their tilt: believed to a few per cent, for walls that face each other light each other up.
YIELD = (0.5, 2.5)
BRIGHTNESS_DOUBT = 0.03
QUANTILES = (0.16, 0.5, 0.84)

Floats = NDArray[np.float64]


class Answer(NamedTuple):
    tilt_deg: float
    spread_deg: float
    depth_m: float


class Posterior(NamedTuple):
    """Samples of the inclination with their weights, by the noise alone and with the number of electrons sent."""

    tilt_rad: Floats
    by_noise: Floats
    weights: Floats

    @property
    def effective(self) -> float:
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())


def measure(data: Path) -> Mapping[str, Measured]:
    """The imprint under the prior, and with it as the calibrating sample another specimen of the same instrument."""
    whole, file = _read(data / "sem", "vickers")
    imprint, file = _binned(whole, file)
    turned = _directions(imprint, file)
    pixel_m = turned.scan.pixel_size_m
    signals = face_signals(whole, _height_px(imprint, turned), BINNED, pixel_m)
    found = posterior(np.random.default_rng(5), signals, file)
    as_seen = _answer(imprint, turned)
    # Its width lies in the image, so depth goes with the tangent whatever the modulation.
    half_width_m = as_seen.depth_m / np.tan(np.radians(as_seen.tilt_deg))
    tilts = np.degrees(found.tilt_rad)
    depths = half_width_m * np.tan(found.tilt_rad)
    factor, known = _scaled_to_nominal(imprint, turned)
    low, middle, high = quantiles(tilts, found.by_noise)
    told = (
        f"{SAMPLES} samples, {found.effective:.0f} of them in effect: inner radius {INNER_M[0] * 1e3:g} to "
        f"{INNER_M[1] * 1e3:g} mm, outer {OUTER_M[0] * 1e3:g} to {OUTER_M[1] * 1e3:g} mm, yield power {YIELD[0]:g} to "
        f"{YIELD[1]:g}, inclination {INCLINATION_DEG[0]:g} to {INCLINATION_DEG[1]:g} deg, dark levels free; noise "
        f"against signal on the faces allows at most {', '.join(f'{one:.2g}' for one in signals.shot_limit)} times the "
        f"level as signal and alone says {middle:.3g} (+{high - middle:.2g} -{middle - low:.2g}) deg; "
        f"{_primaries(file):.0f} electrons sent a pixel, {100 * COUNTED:g} % counted within a factor of "
        f"{COUNTED_FACTOR:g}; directions by curl"
    )
    return {
        "imprint_inclination_sigmas": _within(quantiles(tilts, found.weights), NOMINAL_TILT_DEG, "deg", 1.0, told),
        "imprint_depth_sigmas": _within(quantiles(depths, found.weights), NOMINAL_DEPTH_M, "um", 1e6, told),
        "imprint_faces_spread_deg": _beside_peer(imprint, known, factor),
        "p33_segment_missed_pct": _other_sample(data / "sem", known, factor),
    }


def posterior(rng: np.random.Generator, signals: FaceSignals, file: Instrument) -> Posterior:
    """Three numbers of each segment against one inclination: how far it swings from face to face and how much brighter
    the faces are, `share (yield (n_z + m n_t) - 1)`, and how its noise grows with its signal. A swing is share times
    sine: it alone tells neither, and no ratio of faces gets rid of the dark level but that of their noise."""
    tilt = np.radians(rng.uniform(*INCLINATION_DEG, SAMPLES))
    inner, outer = (np.arctan(rng.uniform(*radii, SAMPLES) / file.detector.working_distance_m) for radii in RADII_M)
    amplifier = rng.uniform(*AMPLIFIER_SHARE, SAMPLES)
    brighter = (2.0 / (1.0 + np.cos(tilt))) ** rng.uniform(*YIELD, SAMPLES)
    captured = np.sin(outer) ** 2 - np.sin(inner) ** 2
    sideways = 2.0 * (_sideways(outer) - _sideways(inner)) / captured * np.sinc(SPAN_DEG / 360.0)
    misfit, counted = np.zeros(SAMPLES), np.zeros(SAMPLES)
    for number, swing in enumerate(signals.swing):
        share = swing / (brighter * sideways * np.sin(tilt))
        growth = (1.0 - amplifier) * signals.variance[number] / (share * signals.level[number])
        misfit += ((growth - signals.growth[number]) / signals.growth_sigma[number]) ** 2
        off = share * (brighter * np.cos(tilt) - 1.0) - signals.mean[number]
        misfit += (off / BRIGHTNESS_DOUBT) ** 2 / len(signals.swing)  # one doubt, shared by all segments
        counted += share * signals.level[number] / np.maximum(growth, 1e-9)
    counted *= rng.uniform(*EXCESS, SAMPLES)
    met = _primaries(file) * rng.uniform(*BACKSCATTERED, SAMPLES) * captured
    doubt = np.log(counted / met / COUNTED) / np.log(COUNTED_FACTOR)
    by_noise = np.exp(-0.5 * (misfit - misfit.min()))
    weights = np.exp(-0.5 * (misfit + doubt**2 - (misfit + doubt**2).min()))
    return Posterior(tilt, by_noise, weights)


def _sideways(theta: Floats) -> Floats:
    return theta / 2.0 - np.sin(2.0 * theta) / 4.0


def _primaries(file: Instrument) -> float:
    return file.beam.current_a * file.beam.dwell_time_s / ELEMENTARY_CHARGE_C


def _within(quantiles: Floats, nominal: float, unit: str, scale: float, prior: str) -> Measured:
    """How many of the answer's own standard errors it lies from the nominal value, on the side that it lies."""
    low, middle, high = quantiles
    width = (high - middle) if nominal > middle else (middle - low)
    told = f"{scale * middle:.3g} (+{scale * (high - middle):.2g} -{scale * (middle - low):.2g}) {unit}"
    return Measured(abs(nominal - middle) / width, f"{told}, nominal {scale * nominal:.3g}; {prior}")


def _other_sample(folder: Path, known: Instrument, factor: Answer) -> Measured:
    images, file = _binned(*_read(folder, "P33"))
    moved = known.with_scan(pixel_size_m=file.scan.pixel_size_m)
    score = score_segments(frame_of(images, moved, "p33"), moved)
    height = _height_px(images, moved)
    azimuths = np.radians([one.centre_azimuth_deg for one in moved.detector.segments])
    peer = principal_components(images, np.zeros(len(images)), azimuths, height)
    alike = float(np.corrcoef(height.ravel(), peer.ravel())[0, 1])
    told = (
        f"calibrated on the imprint's faces (22.0 deg; their four medians then spread by {factor.spread_deg:.1f} deg, "
        f"depth {factor.depth_m * 1e6:.2f} um); P33: rms slope {_rms_deg(height):.1f} deg; its height correlates by "
        f"{alike:.2f} with published PCA at its best scale"
    )
    missed = ", ".join(f"{100.0 * one:.1f}" for one in score.missed_share)
    return Measured(100.0 * max(score.missed_share), f"segments from the others: {missed} % of their signal; {told}")


def _beside_peer(images: NDArray[np.uint16], known: Instrument, factor: Answer) -> Measured:
    """Published self-calibration sees the same faces; its one free scale is the best one for our height."""
    height, pixel_m = _height_px(images, known), known.scan.pixel_size_m
    azimuths = np.radians([one.centre_azimuth_deg for one in known.detector.segments])
    peer = frankot_chellappa(principal_slopes(images, np.zeros(len(images)), azimuths, height))
    depth_m, tilts_deg, _ = faces((peer * pixel_m).astype(np.float32), pixel_m)
    told = ", ".join(f"{tilt:.1f}" for tilt in tilts_deg)
    return Measured(
        factor.spread_deg,
        f"scaled to 22.0 deg, depth {factor.depth_m * 1e6:.2f} um; published PCA and Frankot-Chellappa at the best "
        f"scale for this height: {told} deg, spread {float(np.std(tilts_deg)):.1f} deg, depth {depth_m * 1e6:.2f} um",
    )


def _read(folder: Path, name: str) -> tuple[NDArray[np.uint16], Instrument]:
    files = sorted(folder.glob(f"{name}*_detector?.tif"))
    if not files:
        raise BadInput(f"no {name}*_detector?.tif in {folder.resolve()}: name the data folder with --data")
    (found,) = read_image_sets(files, load_instrument(folder / "fei-nova-abs.toml"))
    return found.images, found.instrument


def _binned(images: NDArray[np.uint16], file: Instrument) -> tuple[NDArray[np.uint16], Instrument]:
    segments, rows, columns = images.shape
    inside = images[:, : BINNED * (rows // BINNED), : BINNED * (columns // BINNED)].astype(np.float64)
    parts = inside.reshape(segments, rows // BINNED, BINNED, columns // BINNED, BINNED)
    moved = file.with_scan(pixel_size_m=file.scan.pixel_size_m * BINNED)
    return np.rint(parts.mean(axis=(2, 4))).astype(np.uint16), moved


def _directions(images: NDArray[np.uint16], file: Instrument) -> Instrument:
    """Three equal segments side by side, in the order and at the turn whose slopes have the least curl and whose
    deepest structure is a pit: nothing of the file's azimuths is used."""
    found: list[tuple[float, Instrument]] = []
    for order, turn in itertools.product(((0, 1, 2), (0, 2, 1)), np.arange(0.0, 360.0, TURN_STEP_DEG)):
        placed = _segments(file, [turn + SPAN_DEG * place for place in order], [1.0] * len(order))
        p, q = _slopes(images, placed)
        height = integrated(np.stack([p, q]))
        level = height - np.median(height)
        if -level.min() > level.max():  # a pit, no hill: half a turn apart both are free of curl
            curl = np.diff(q, axis=1)[:-1] - np.diff(p, axis=0)[:, :-1]
            found.append((float((curl**2).mean() / ((p**2).mean() + (q**2).mean())), placed))
    return min(found, key=lambda one: one[0])[1]


def quantiles(values: Floats, weights: Floats) -> Floats:
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - 0.5 * weights[order]
    return np.asarray(np.interp(QUANTILES, below / weights.sum(), values[order]))


def _with_modulations(instrument: Instrument, modulations: Floats) -> Instrument:
    segments = instrument.detector.segments
    return _segments(instrument, [one.centre_azimuth_deg for one in segments], [float(one) for one in modulations])


def _segments(instrument: Instrument, azimuths_deg: list[float], modulations: list[float]) -> Instrument:
    tree: dict[str, Any] = instrument.model_dump()
    for segment, azimuth, modulation in zip(tree["detector"]["segments"], azimuths_deg, modulations, strict=True):
        edges = {"azimuth_from_deg": azimuth - 0.5 * SPAN_DEG, "azimuth_to_deg": azimuth + 0.5 * SPAN_DEG}
        segment.update(modulation=modulation, **edges)
    return parse_instrument(tree, "the imprint's instrument")


def _scaled_to_nominal(images: NDArray[np.uint16], turned: Instrument) -> tuple[Answer, Instrument]:
    """The one modulation at which the imprint's faces are inclined as the indenter's: the calibrating sample's use."""
    tried = []
    for modulation in np.geomspace(0.5, 3.0, 25):
        made = _with_modulations(turned, np.full(3, modulation))
        answer = _answer(images, made)
        tried.append((abs(answer.tilt_deg - NOMINAL_TILT_DEG), answer, made))
    _, answer, made = min(tried, key=lambda one: one[0])
    return answer, made


def _answer(images: NDArray[np.uint16], instrument: Instrument) -> Answer:
    pixel_m = instrument.scan.pixel_size_m
    depth_m, tilts_deg, _ = faces((_height_px(images, instrument) * pixel_m).astype(np.float32), pixel_m)
    return Answer(float(np.mean(tilts_deg)), float(np.std(tilts_deg)), depth_m)


def _height_px(images: NDArray[np.uint16], instrument: Instrument) -> Floats:
    return integrated(_slopes(images, instrument))


def _slopes(images: NDArray[np.uint16], instrument: Instrument) -> Floats:
    numbers = calibrate(instrument, images)
    moments = np.einsum("cs,syx->cyx", numbers.inversion.astype(np.float64), electrons_of(images, numbers))
    return slopes_of(moments, float(numbers.flat_share))


def _rms_deg(height_px: Floats) -> float:
    q, p = np.gradient(height_px)
    return float(np.degrees(np.arctan(np.sqrt((p**2 + q**2).mean()))))
