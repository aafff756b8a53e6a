"""What one frame tells of its surface and its noise before any height is fitted: two spectra out of the slopes.

Slopes of a height map have no curl, so whatever curl the measured slopes have is noise; what the divergence has beyond
it is surface. Nothing is assumed of dose or gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BANDS_PER_OCTAVE = 3
SIGNIFICANT = 3.0
MEDIAN_OF_EXPONENTIAL = float(np.log(2.0))
STEEPEST_DECAY = -12.0
SHALLOWEST_DECAY = -2.0
FITTED_OCTAVES = 1.5
FEWEST_MODES = 4
# Above, waves beyond the grid's reach fold into the slopes.
HIGHEST_WAVE2 = 2.5

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SurfaceStatistics:
    """`log_power` over `log_wave`: spectral density of the heights in pixels² per mode against the squared wave number
    in radians per pixel, both natural logarithms; it goes on with `decay` beyond the last. `slope_variance`: of the
    noise of one slope component in one pixel."""

    log_wave: Floats
    log_power: Floats
    decay: float
    slope_variance: float

    def power(self, wave2: Floats) -> Floats:
        """Density at squared wave numbers, any shape; infinite at 0, since a frame doesn't know its own mean."""
        log_wave = np.log(np.where(wave2 > 0, wave2, 1.0))
        inside = np.interp(log_wave, self.log_wave, self.log_power)
        beyond = self.log_power[-1] + self.decay * (log_wave - self.log_wave[-1])
        return np.asarray(np.where(wave2 > 0, np.exp(np.where(log_wave > self.log_wave[-1], beyond, inside)), np.inf))


def surface_statistics(p: Floats, q: Floats) -> SurfaceStatistics:
    """From measured slopes at the pixels, each (H, W) and dimensionless.

    Periodograms under a Hann window; the noise is the median of the curl's over the upper half of the wave numbers,
    so that a few occluded places don't count. Bands in which the surface stands out of the noise by three standard
    errors give its density; it goes on as the power law of the last 1.5 octaves of them, below what would stand out.
    """
    rows, columns = p.shape
    window = np.hanning(rows + 2)[1:-1, None] * np.hanning(columns + 2)[1:-1]
    window /= np.sqrt((window**2).sum())
    p_wave, q_wave = (np.fft.rfft2((slope - slope.mean()) * window) for slope in (p, q))
    along_y = 2j * np.sin(np.pi * np.fft.fftfreq(rows))[:, None]
    along_x = 2j * np.sin(np.pi * np.fft.rfftfreq(columns))[None, :]
    wave2 = np.abs(along_x) ** 2 + np.abs(along_y) ** 2
    wave2[0, 0] = np.inf
    divergence = np.abs(np.conj(along_x) * p_wave + np.conj(along_y) * q_wave) ** 2 / wave2
    curl = np.abs(along_x * q_wave - along_y * p_wave) ** 2 / wave2
    upper = np.isfinite(wave2) & (wave2 > 2.0)
    noise = float(np.median(curl[upper])) / MEDIAN_OF_EXPONENTIAL if upper.any() else float(curl.mean())
    noise = max(noise, 1e-12)

    lowest = 2.0 * np.pi / max(rows, columns)
    edges = np.log(lowest**2) + np.arange(0, 64) * (2.0 * np.log(2.0) / BANDS_PER_OCTAVE)
    edges = edges[edges < np.log(HIGHEST_WAVE2)]
    band = np.where(wave2 < HIGHEST_WAVE2, np.digitize(np.log(wave2), edges) - 1, -1)
    kept = [number for number in range(len(edges)) if (band == number).sum() >= FEWEST_MODES]
    log_wave = np.array([float(np.log(wave2[band == number]).mean()) for number in kept])
    signal = np.array([float((divergence - curl)[band == number].mean()) for number in kept])
    uncertainty = np.array([2.0 * noise / np.sqrt((band == number).sum()) for number in kept])
    seen = np.flatnonzero(signal > SIGNIFICANT * uncertainty)
    if len(seen) == 0:
        # nothing stands out: a surface as smooth as the noise allows
        return SurfaceStatistics(np.array([0.0]), np.log([1e-3 * noise]), SHALLOWEST_DECAY, noise)
    last = seen[log_wave[seen] > log_wave[seen[-1]] - 2.0 * FITTED_OCTAVES * np.log(2.0)]
    slope = np.polyfit(log_wave[last], np.log(signal[last]), 1)[0] if len(last) > 1 else SHALLOWEST_DECAY + 1.0
    decay = float(np.clip(slope - 1.0, STEEPEST_DECAY, SHALLOWEST_DECAY))
    known = np.exp(np.interp(log_wave, log_wave[seen], np.log(signal[seen])))
    beyond = signal[seen[-1]] * np.exp((decay + 1.0) * (log_wave - log_wave[seen[-1]]))
    power = np.where(log_wave > log_wave[seen[-1]], np.minimum(beyond, uncertainty), known)
    return SurfaceStatistics(log_wave, np.log(power) - log_wave, decay, noise)
