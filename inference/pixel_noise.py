"""One pixel's electrons and what they can tell: the Cramér-Rao bound of its slopes with its brightness unknown.

The equation is that of `inference.calibration`; noise is Poisson's and the rounding to counts. Read noise, interaction
volume and emission laws other than the cosine are not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.calibration import calibrate
from inference.forward_model import acceptance
from inference.forward_model.optics import ELEMENTARY_CHARGE_C

AZIMUTHS_RAD = np.linspace(0.0, 2.0 * math.pi, 72, endpoint=False)
STEEPEST_SINE_WITHOUT_RADII = 0.65
LEAST_SIGNAL_WITHOUT_RADII = 0.1
ANGLE_NODES = 32
WANTED_SIGNAL_TO_NOISE = 5.0
LEAST_TERRACE_PX = 3.0
LENGTH_UNITS = ((1e9, "nm"), (1e6, "µm"), (1e3, "mm"))

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PixelSignal:
    """`response`: (S, 3) float64, electrons per unit of (n_x, n_y, a n_z + 1 - a) with `flat_share` a.

    `rounding_variance`: (S,) electrons squared, 1/12 of a count's square. `mean_plane`: slopes (p, q) of the specimen.
    `steepest`: slope up to which the response holds: shadow-free, or as far as segments without radii reach.
    `emitted` electrons and `captured` (S,) of them from a level pixel; None where radii are unknown.
    """

    response: Floats
    flat_share: float
    rounding_variance: Floats
    mean_plane: tuple[float, float]
    steepest: float
    emitted: float | None
    captured: Floats | None

    def electrons(self, p: Floats | float, q: Floats | float) -> Floats:
        """(..., S) mean electrons of pixels of these slopes, as long as nothing is occluded."""
        n_z = 1.0 / np.sqrt(1.0 + np.square(p) + np.square(q))
        normal = np.stack([-p * n_z, -q * n_z, self.flat_share * n_z + 1.0 - self.flat_share], axis=-1)
        return np.asarray(normal @ self.response.T, np.float64)


@dataclass(frozen=True, slots=True)
class SlopeNoise:
    """Least noise of one pixel that is tilted by `tilt_deg` against the beam.

    `slope_noise`: sqrt(var p + var q), the Cramér-Rao bound of both slopes with the pixel's brightness unknown;
    `slope_noise_deg` the same as an angle (1 is 57.3 degrees), which scales exactly with one over the root of the dose.
    `normal_noise_deg`: rms angle between true and measured normal for Gaussian slope errors of that covariance. Level
    pixels of the default geometry: 25.8, 8.15, 2.58 and 23.2, 8.04, 2.57 degrees at 100, 1000, 10 000 electrons.
    """

    tilt_deg: float
    slope_noise: float
    slope_noise_deg: float
    normal_noise_deg: float


@dataclass(frozen=True, slots=True)
class Feature:
    """A straight step between two terraces, each `terrace_m` wide."""

    terrace_m: float
    step_m: float


@dataclass(frozen=True, slots=True)
class FeatureNoise:
    """What one frame shows of a feature on the specimen's mean plane.

    `tilt_noise_deg`: sqrt(var p + var q) of a terrace, averaged over its width squared, which is `pixels`.
    `step_noise_m`: of the slope across the step, at the worst azimuth, summed from the middle of one terrace to that of
    the next and averaged along the step over a terrace's width. The width cancels: one pixel's slope noise times the
    pixel size is left, whatever place or shape the step has in between. `signal_kept`: the share of an isolated step
    that beam width and tail leave between the middles. `frames_needed`, or one of `dwell_time_needed_s`, bring the
    signal to noise to 5. `in_words` says it to people.
    """

    terrace_m: float
    step_m: float
    pixels: float
    signal_kept: float
    tilt_noise_deg: float
    step_noise_m: float
    signal_to_noise: float
    frames_needed: int
    dwell_time_needed_s: float
    in_words: str


def length(metres: float) -> str:
    """With the unit that suits it, for people."""
    factor, unit = next((one for one in LENGTH_UNITS if metres * one[0] < 1000.0), LENGTH_UNITS[-1])
    return f"{metres * factor:.3g} {unit}"


def primaries_per_pixel(instrument: Instrument) -> float:
    return instrument.beam.current_a * instrument.beam.dwell_time_s / ELEMENTARY_CHARGE_C


def pixel_sides_m(instrument: Instrument) -> tuple[float, float]:
    """Width and height."""
    return instrument.scan.pixel_size_m, instrument.scan.pixel_size_y_m or instrument.scan.pixel_size_m


def pixel_signal(instrument: Instrument, detected_per_primary: float | None = None) -> PixelSignal:
    """The signal of an instrument. Without radii the captured fraction is unknown: `detected_per_primary` stands in.

    Raises `BadInput` as `calibrate` and `acceptance` do, for segments that have neither radii nor that number, and
    where the specimen is tilted into its own shadow.
    """
    gains = [segment.gain_counts_per_electron for segment in instrument.detector.segments]
    relative = np.array([gain or 0.0 for gain in gains]) if all(gains) else np.ones(len(gains))
    level_frame = np.rint(5e4 * relative / relative.max()).astype(np.uint16)[:, None, None]
    calibration = calibrate(instrument, np.broadcast_to(level_frame, (len(gains), 2, 2)))
    response, flat_share = calibration.response.astype(np.float64), float(calibration.flat_share)
    rounding = np.array([1.0 / (12.0 * gain**2) if gain else 0.0 for gain in gains])
    primaries, specimen = primaries_per_pixel(instrument), instrument.specimen
    if flat_share:
        table = acceptance(instrument)
        emitted, captured = primaries * specimen.backscatter_yield, table.response[:, 2]
        p, q = (math.tan(math.radians(tilt)) for tilt in (specimen.tilt_x_deg, -specimen.tilt_y_deg))
        if math.hypot(p, q) >= table.occluding_slope:
            tilt_deg, limit_deg = (
                math.degrees(math.atan(slope)) for slope in (math.hypot(p, q), table.occluding_slope)
            )
            raise BadInput(
                f"the specimen is tilted by {tilt_deg:.3g} degrees, into its own shadow: tilt it below "
                f"{limit_deg:.3g}, or raise the working distance"
            )
        scaled = response * (emitted * captured.sum())
        return PixelSignal(scaled, flat_share, rounding, (p, q), table.occluding_slope, emitted, captured)
    if detected_per_primary is None:
        raise BadInput(
            "segments without radii capture an unknown share of the electrons: give the dose, detected electrons per "
            "pixel summed over the segments, or inner_radius_m and outer_radius_m of the segments"
        )
    modulation = float((np.hypot(response[:, 0], response[:, 1]) / response[:, 2]).max())
    sine = min(STEEPEST_SINE_WITHOUT_RADII, (1.0 - LEAST_SIGNAL_WITHOUT_RADII) / modulation)
    scaled = response * (primaries * detected_per_primary)
    return PixelSignal(scaled, flat_share, rounding, (0.0, 0.0), math.tan(math.asin(sine)), None, None)


def slope_covariance(pixel: PixelSignal, p: Floats, q: Floats) -> Floats:
    """(N, 2, 2): the Cramér-Rao bound of (p, q) for slopes (N,), from the Fisher matrix of p, q, log brightness."""
    n_z = 1.0 / np.sqrt(1.0 + p**2 + q**2)
    mean = pixel.electrons(p, q)
    by_z = pixel.flat_share * pixel.response[:, 2]
    toward = pixel.response[:, :2].T
    along = np.stack([p, q])[..., None] * (n_z**3)[None, :, None]
    tilted = (p[:, None] * toward[0] + q[:, None] * toward[1]) - by_z
    by_slope = along * tilted - n_z[None, :, None] * toward[:, None, :]
    derivatives = np.concatenate([by_slope, mean[None]])  # (3, N, S)
    fisher = np.einsum("ins,jns,ns->nij", derivatives, derivatives, 1.0 / (mean + pixel.rounding_variance))
    return np.asarray(np.linalg.inv(fisher)[:, :2, :2], np.float64)


def slope_noise(pixel: PixelSignal, tilt_deg: float | None = None) -> SlopeNoise:
    """Of a pixel tilted by `tilt_deg`, at the azimuth where it is worst; without a tilt, of the mean plane."""
    if tilt_deg is None:
        p, q = (np.array([slope]) for slope in pixel.mean_plane)
        tilt_deg = math.degrees(math.atan(math.hypot(*pixel.mean_plane)))
    else:
        slope = math.tan(math.radians(tilt_deg))
        p, q = slope * np.cos(AZIMUTHS_RAD), slope * np.sin(AZIMUTHS_RAD)
    covariances = slope_covariance(pixel, p, q)
    worst = int(np.argmax(np.trace(covariances, axis1=1, axis2=2)))
    noise = math.sqrt(np.trace(covariances[worst]))
    return SlopeNoise(tilt_deg, noise, math.degrees(noise), _normal_noise_deg(p[worst], q[worst], covariances[worst]))


def feature_noise(pixel: PixelSignal, feature: Feature, instrument: Instrument) -> FeatureNoise:
    """Raises `BadInput` for a terrace of less than 3 pixels, and for lengths that are not positive numbers."""
    pixel_m, terrace_m, step_m = pixel_sides_m(instrument), feature.terrace_m, feature.step_m
    for name, length_m in (("terrace", terrace_m), ("step", step_m)):
        if not (math.isfinite(length_m) and length_m > 0):
            raise BadInput(f"{name} {length_m:g} m must be a length above 0, such as 200 nm")
    if terrace_m < LEAST_TERRACE_PX * max(pixel_m):
        raise BadInput(
            f"a terrace of {length(terrace_m)} is narrower than {LEAST_TERRACE_PX:g} pixels of {length(max(pixel_m))}: "
            f"set the pixel size to {length(terrace_m / LEAST_TERRACE_PX)} at most, or ask for wider terraces"
        )
    pixels = terrace_m**2 / math.prod(pixel_m)
    covariance = slope_covariance(pixel, *(np.array([slope]) for slope in pixel.mean_plane))[0]
    step_noise_m = math.sqrt(float(np.linalg.eigvalsh(covariance)[-1]) * math.prod(pixel_m))
    beam = instrument.beam
    kept = (1.0 - beam.tail_fraction) * _between_middles(terrace_m, beam.sigma_px * pixel_m[0])
    kept += beam.tail_fraction * _between_middles(terrace_m, beam.tail_sigma_m)
    signal_to_noise = kept * step_m / step_noise_m
    more = (WANTED_SIGNAL_TO_NOISE / signal_to_noise) ** 2
    dwell_text = f"a dwell time of {1e6 * more * beam.dwell_time_s:.2g} µs"
    needed = f"{math.ceil(more)} frames or {dwell_text} give" if more > 1.0 else f"{dwell_text} is enough for"
    shows = f"A {length(step_m)} step between {length(terrace_m)} terraces shows at {signal_to_noise:.2g} sigma"
    return FeatureNoise(
        terrace_m=terrace_m,
        step_m=step_m,
        pixels=pixels,
        signal_kept=kept,
        tilt_noise_deg=math.degrees(math.sqrt(np.trace(covariance) / pixels)),
        step_noise_m=step_noise_m,
        signal_to_noise=signal_to_noise,
        frames_needed=math.ceil(more),
        dwell_time_needed_s=more * beam.dwell_time_s,
        in_words=f"{shows} in one frame; {needed} {WANTED_SIGNAL_TO_NOISE:g}.",
    )


def _between_middles(terrace_m: float, sigma_m: float) -> float:
    """Share of a step, blurred by a Gaussian, that rises within half a terrace on either side."""
    return math.erf(terrace_m / (math.sqrt(8.0) * sigma_m)) if sigma_m > 0 else 1.0


def _normal_noise_deg(p: float, q: float, covariance: Floats) -> float:
    """Gauss-Hermite over the slope errors of the squared angle between the normals."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(ANGLE_NODES)
    errors = np.stack(np.meshgrid(nodes, nodes), axis=-1) @ np.linalg.cholesky(covariance).T
    true = np.array([-p, -q, 1.0])
    measured = np.stack([-p - errors[..., 0], -q - errors[..., 1], np.ones(errors.shape[:2])], axis=-1)
    angles = np.arctan2(np.linalg.norm(np.cross(measured, true), axis=-1), measured @ true)
    return math.degrees(math.sqrt(np.average(angles**2, weights=np.outer(weights, weights))))
