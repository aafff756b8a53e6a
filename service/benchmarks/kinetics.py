"""Kinetics from a recording alone: how fast steps advance by its heights, against temperature and oxygen as recorded.

A step's place is where the height falls steepest along a row. From one frame to the next each step moves by so many
pixels, which over the distance of its neighbours is a share of a terrace: the layers that were added meanwhile. The
trimmed mean over all steps of all rows is taken. It is robust where others are not: a reconstructed height has no
absolute level, so the mean height cannot tell growth; brightness, which changes with heat, gas and charge, moves no
step; and where terraces are uneven, steps move by different lengths (what phase correlation would average, differently
from frame to frame) but by the same share of their terraces, for each terrace feeds its step.

Steps also seem to move when the specimen does. Growth stops where there is no heat, drift does not: the rate of the
cold frames at the start is the stage's, and what goes with the temperature's change rather than with the temperature
is thermal expansion. Both are unknowns of the one fit that finds the activation energy, so that they are neither taken
for growth nor thought to be known better than they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.optimize import curve_fit
from scipy.stats import trim_mean

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.kinetics import log_rate, log_supply

SMOOTHED_PX = (1.5, 1.0)
SHARE_OF_STEEPEST = 0.5
MOST_ADVANCE = 0.4
TRIMMED = 0.1
LEAST_STEPS = 20
WINDOW_FRAMES = 6
COLDEST_GROWTH_K = 600.0
USUAL_K, USUAL_PA = 1100.0, 20.0
START = (math.log(10.0), 1.0, 0.5, 0.0, 0.0)
"""Logarithm of nm/s, eV, order, nm/s and nm/K: as one would guess of any such reaction."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Film:
    """One number for each frame: seconds, terraces that the steps have advanced since the first frame, kelvin, pascal,
    and whether the laser was on. `terrace_m` is the mean distance of neighbouring steps, along their normal."""

    time_s: Floats
    advance: Floats
    temperature_k: Floats
    oxygen_pa: Floats
    heated: NDArray[np.bool_]
    terrace_m: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Means over windows of frames: velocity of the steps as seen, of drift in it, and of growth in it, in m/s."""

    temperature_k: Floats
    oxygen_pa: Floats
    seen_m_per_s: Floats
    drift_m_per_s: Floats
    fitted_m_per_s: Floats

    @property
    def growth_m_per_s(self) -> Floats:
        return self.seen_m_per_s - self.drift_m_per_s


@dataclass(frozen=True, slots=True)
class Kinetics:
    """`growth = velocity (p / 20 Pa)^order exp(-E / k (1 / T - 1 / 1100 K))` with standard errors, by the scatter."""

    energy_ev: float
    energy_error_ev: float
    order: float
    order_error: float
    velocity_m_per_s: float
    drift_m_per_s: float
    expansion_m_per_k: float
    rates: Rates


def film_of(recorded: RecordedRun) -> Film:
    """Steps must cross the rows and lead down along them. Oxygen must be the only gas: its pressure is the gauge's.

    Raises `BadInput` for a recording with fewer than two heights or with too few steps in view.
    """
    sequences = [sequence for sequence in recorded.sequences if sequence in recorded.heights]
    if len(sequences) < 2:
        raise BadInput(f"{recorded.path} has {len(sequences)} heights: kinetics need at least two")
    headers = [recorded.frames[sequence].header for sequence in sequences]
    pixel_m = headers[0].optics.pixel_size_m
    before, advance, spacings_px = None, [0.0], []
    for sequence in sequences:
        height_m = recorded.read_height(sequence).astype(np.float64)
        steps = find_steps(height_m, pixel_m)
        if before is not None:
            share, spacing_px = find_advance(before, steps, f"frame {sequence} of {recorded.path}")
            advance.append(advance[-1] + share)
            spacings_px.append(spacing_px)
        before = steps

    def joined(channel: str) -> Floats:
        values = (header.state[channel].value for header in headers)
        return np.array([np.nan if value is None else value for value in values])

    middles_ns = [0.5 * (header.exposure_start_ns + header.exposure_end_ns) for header in headers]
    return Film(
        time_s=(np.array(middles_ns) - middles_ns[0]) / 1e9,
        advance=np.array(advance),
        temperature_k=joined("pyrometer.temperature_k"),
        oxygen_pa=joined("gauge.pressure_pa"),
        heated=~(joined("heater.current_a") <= 0),
        terrace_m=float(np.mean(spacings_px)) * pixel_m * _normal_share(height_m, pixel_m),
    )


def fit(film: Film, temperature_k: Floats | None = None) -> Kinetics:
    """Growth, drift and expansion together, by least squares in the velocity itself: in its logarithm, frames that
    grow slowly would count more than they know, and those that noise makes negative could not count at all.

    Another `temperature_k` is what another pyrometer would have shown. Raises `BadInput` for a film that is too short
    or follows no such law.
    """
    windows = _windows(film, film.temperature_k if temperature_k is None else temperature_k)

    seen = np.array([window.seen_nm_per_s for window in windows])

    def drifting(unknown: Floats) -> Floats:
        return np.array([unknown[3] + unknown[4] * window.warming_k_per_s for window in windows])

    def growing(unknown: Floats) -> Floats:
        return np.array([window.mean_growth(unknown) for window in windows])

    def moving(_: Floats, *unknown: float) -> Floats:
        return growing(np.array(unknown)) + drifting(np.array(unknown))

    try:
        found, covariance = curve_fit(moving, np.arange(len(seen)), seen, START)
    except RuntimeError as error:
        raise BadInput(f"{len(windows)} windows follow no Arrhenius law: {error}") from None
    errors = np.sqrt(np.diag(covariance))
    drift, growth = drifting(found), growing(found)
    return Kinetics(
        energy_ev=float(found[1]),
        energy_error_ev=float(errors[1]),
        order=float(found[2]),
        order_error=float(errors[2]),
        velocity_m_per_s=float(np.exp(found[0])) * 1e-9,
        drift_m_per_s=float(found[3]) * 1e-9,
        expansion_m_per_k=float(found[4]) * 1e-9,
        rates=Rates(
            temperature_k=np.array([window.temperature_k.mean() for window in windows]),
            oxygen_pa=np.array([window.oxygen_pa.mean() for window in windows]),
            seen_m_per_s=seen * 1e-9,
            drift_m_per_s=drift * 1e-9,
            fitted_m_per_s=growth * 1e-9,
        ),
    )


def find_steps(height_m: Floats, pixel_m: float) -> tuple[NDArray[np.int64], Floats]:
    """Row and place (pixels) of every step in rows that lead down, in order."""
    steep = -gaussian_filter(height_m, SMOOTHED_PX, order=(0, 1)) / pixel_m
    inner = steep[:, 1:-1]
    least = SHARE_OF_STEEPEST * np.percentile(steep, 97)
    rows, columns = np.nonzero((inner > steep[:, :-2]) & (inner >= steep[:, 2:]) & (inner > least))
    columns = columns + 1
    left, middle, right = (steep[rows, columns + place] for place in (-1, 0, 1))
    return rows, columns + 0.5 * (left - right) / (left - 2 * middle + right)


def find_advance(
    first: tuple[NDArray[np.int64], Floats], second: tuple[NDArray[np.int64], Floats], where: str
) -> tuple[float, float]:
    """By what share of a terrace the steps went on from the first frame to the second, and their distance in pixels.
    `where` is for the error when too few steps are found again."""
    apart = 1.0 + 4.0 * max(places.max(initial=0.0) for _, places in (first, second))
    one, other = (rows * apart + places for rows, places in (first, second))
    if min(len(one), len(other)) < LEAST_STEPS:
        raise BadInput(f"{where} shows {min(len(one), len(other))} pieces of steps: too few to see them advance")
    after = np.searchsorted(other, one).clip(1, len(other) - 1)
    nearest = np.where(np.abs(other[after] - one) < np.abs(other[after - 1] - one), after, after - 1)
    moved = (other[nearest] - one)[1:-1]
    spacing = 0.5 * (one[2:] - one[:-2])
    usable = (spacing < 0.25 * apart) & (np.abs(moved) < MOST_ADVANCE * spacing)
    if usable.sum() < LEAST_STEPS:
        raise BadInput(f"{where} shows {usable.sum()} pieces of the steps of the frame before: they moved too far")
    return float(trim_mean(moved[usable] / spacing[usable], TRIMMED)), float(np.mean(spacing[usable]))


@dataclass(frozen=True, slots=True)
class _Window:
    """Some frames in a row, over which the steps' mean velocity is taken."""

    seen_nm_per_s: float
    warming_k_per_s: float
    temperature_k: Floats
    oxygen_pa: Floats
    cold: bool

    def mean_growth(self, unknown: Floats) -> float:
        """Nanometres a second. Of the mean of the law, not the law of the mean: it is steep, and the window warms."""
        if self.cold:
            return 0.0
        heat = log_rate(self.temperature_k, float(unknown[1]), USUAL_K)
        supply = log_supply(self.oxygen_pa, float(unknown[2]), USUAL_PA)
        return float(np.exp(unknown[0] + heat + supply).mean())


def _windows(film: Film, temperature_k: Floats) -> list[_Window]:
    """Windows all of whose frames are cold with the laser off, or hot enough for the pyrometer to see."""
    found = []
    for first in range(0, len(film.time_s) - WINDOW_FRAMES + 1, WINDOW_FRAMES):
        part = slice(first, first + WINDOW_FRAMES)
        time_s, kelvin = film.time_s[part], temperature_k[part]
        cold = not film.heated[: part.stop].any()
        if not (cold or (film.temperature_k[part] > COLDEST_GROWTH_K).all()):
            continue
        found.append(
            _Window(
                seen_nm_per_s=_slope(time_s, film.advance[part]) * film.terrace_m * 1e9,
                warming_k_per_s=0.0 if cold else _slope(time_s, kelvin),
                temperature_k=kelvin,
                oxygen_pa=film.oxygen_pa[part],
                cold=cold,
            )
        )
    if len(found) < 6:
        raise BadInput(f"{len(found)} windows of {WINDOW_FRAMES} frames can be used: too few for a fit, record longer")
    return found


def _slope(time_s: Floats, values: Floats) -> float:
    return float(np.polyfit(time_s - time_s.mean(), values, 1)[0])


def _normal_share(height_m: Floats, pixel_m: float) -> float:
    """What a distance along the rows is along the steps' normal: the cosine of the angle between the two."""
    down, right = np.asarray(np.gradient(gaussian_filter1d(height_m, SMOOTHED_PX[0], axis=0), pixel_m))
    steep = right < 0.5 * np.percentile(right, 3)
    down_mean, right_mean = down[steep].mean(), right[steep].mean()
    return float(abs(right_mean) / np.hypot(down_mean, right_mean))
