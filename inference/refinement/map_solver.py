"""The height map that explains the measured electrons best: maximum a posteriori, by gradients through BSESM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.forward_model import linear_response
from inference.networks.twin import Twin
from inference.refinement.prior import SurfaceStatistics, surface_statistics

FINER = 2
MOST_ITERATIONS = 200
LEAST_GAIN = 5e-5
SMALLEST_GRADIENT = 1e-2
# Beyond the frame lies more surface, free to be as the frame's border asks: cosine modes alone would end level there.
MARGIN_PX = 16
# Surfaces are rougher in some places and directions than on average, and a prior that is too tight costs more there
# than one that is too wide costs elsewhere.
ROUGHER = 3.0
# Added to measured and expected electrons alike: what is nearly dark shall not outweigh everything else.
BACKGROUND_SHARE = 0.02
HISTORY = 20
LEAST_ELECTRONS = 1e-6
SATURATED_COUNTS = 65535
STEEPEST_SLOPE = 4.0

INSIDE = np.s_[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MapSolution:
    """`height_m` (H, W) float64, mean zero. `residual` (H, W) float16: rms over segments of measured minus explained
    electrons, in units of the expected noise. `sigma_slope`: posterior standard deviation of a slope component at the
    pixel scale, on average over the frame. `reduced_chi2`: of the electrons; 1 means explained to the noise. `reason`:
    why it stopped, in words."""

    height_m: Floats
    residual: NDArray[np.float16]
    sigma_slope: float
    reduced_chi2: float
    iterations: int
    reason: str


def solve_map(
    images: NDArray[np.uint16],
    instrument: Instrument,
    start_m: NDArray[np.floating],
    progress: Callable[[int, int], None] = lambda done, most: None,
) -> MapSolution:
    """Minimise `-log Poisson(electrons | BSESM(height)) - log prior(height)` from `start_m` (H, W).

    `images` (S, H, W) counts. The surface lives on a grid twice as fine as the images, of which a pixel is the mean
    over its area. The prior is Gaussian with the spectrum that the frame's own slopes show (`surface_statistics`), the
    specimen's yield the same everywhere and fitted; saturated pixels don't count. Quasi-Newton (L-BFGS) over the
    cosine modes, each scaled by its expected posterior spread. Design: forward_model.md, The exact solver behind it.
    Never ends above the objective it starts from. Raises `BadInput` as `Twin` does and for shapes that don't fit.
    """
    if images.ndim != 3 or start_m.shape != images.shape[1:]:
        raise BadInput(f"a start of shape {start_m.shape} does not fit images of shape {images.shape}")
    unknown = [s.name for s in instrument.detector.segments if None in (s.gain_counts_per_electron, s.dark_counts)]
    if unknown:
        raise BadInput(f"segments {', '.join(unknown)}: MAP needs gain_counts_per_electron and dark_counts of each")
    problem = _Problem(images, instrument)
    start = problem.coefficients(start_m)
    # Threads of linear algebra that spin while they wait take the cores from the forward model: half the speed.
    with threadpool_limits(limits=1):
        best = minimize(
            problem.objective,
            start,
            jac=True,
            method="L-BFGS-B",
            callback=_Counted(progress),
            options={"maxiter": MOST_ITERATIONS, "maxcor": HISTORY, "ftol": LEAST_GAIN, "gtol": SMALLEST_GRADIENT},
        )
    residual, chi2 = problem.residual(best.x)
    return MapSolution(problem.height_m(best.x), residual, problem.sigma_slope(), chi2, int(best.nit), _reason(best))


class _Problem:
    """The objective over scaled cosine modes of the fine surface, in units of the fine pixel."""

    def __init__(self, images: NDArray[np.uint16], instrument: Instrument) -> None:
        scan = instrument.scan
        if scan.pixel_size_y_m not in (None, scan.pixel_size_m):
            raise BadInput(f"pixels of {scan.pixel_size_m:g} m by {scan.pixel_size_y_m:g} m: MAP needs square ones")
        self.fine_m = scan.pixel_size_m / FINER
        finer_scan = scan.model_copy(update={"pixel_size_m": self.fine_m, "pixel_size_y_m": None})
        finer_beam = instrument.beam.model_copy(update={"sigma_px": FINER * instrument.beam.sigma_px})
        fine = instrument.model_copy(update={"scan": finer_scan, "beam": finer_beam})
        self.twin = Twin(fine, dose=1.0).requires_grad_(False)
        self.tables = self.twin.geometry.tables()
        gain, dark = self.twin.gain_counts_per_electron.numpy(), self.twin.dark_counts.numpy()
        self.valid = torch.from_numpy(images < SATURATED_COUNTS)
        electrons = np.maximum((images - dark[:, None, None]) / gain[:, None, None], 0.0)
        self.electrons = torch.from_numpy(electrons) * self.valid
        rows, columns = (FINER * (size + 2 * MARGIN_PX) for size in images.shape[1:])
        self.shape = (rows, columns)
        self.floor = BACKGROUND_SHARE * float(electrons.mean())
        p, q = _measured_slopes(electrons, instrument)
        self.plane = (
            p.mean() * (np.arange(columns) - 0.5 * columns) + q.mean() * (np.arange(rows) - 0.5 * rows)[:, None]
        )
        statistics = surface_statistics(p, q)
        self._weigh(statistics, electrons, instrument)

    def objective(self, coefficients: Floats) -> tuple[float, Floats]:
        modes = self.spread * coefficients.reshape(self.shape)
        surface = torch.from_numpy(self.plane + idctn(modes, norm="ortho")).requires_grad_()
        expected = self._rendered(surface)
        # the yield that explains the sum best is a ratio of sums, so it drops out
        total = self.electrons.sum()
        scaled = expected * (total / (expected * self.valid).sum())
        measured, explained = self.electrons + self.floor, scaled + self.floor
        deviance = torch.special.xlogy(measured, measured / explained) - measured + explained
        misfit = (deviance * self.valid).sum() / self.noise_scale
        misfit.backward()
        assert surface.grad is not None
        gradient = dctn(surface.grad.numpy(), norm="ortho") + self.precision * modes
        value = misfit.item() + 0.5 * float((self.precision * modes**2).sum())
        return value, (self.spread * gradient).ravel()

    def residual(self, coefficients: Floats) -> tuple[NDArray[np.float16], float]:
        """The layer of `MapSolution`, and the reduced chi squared with the degrees of freedom that the prior left."""
        with torch.no_grad():
            expected = self._rendered(torch.from_numpy(self._surface(coefficients)))
            scaled = expected * (self.electrons.sum() / (expected * self.valid).sum())
            squares = ((self.electrons - scaled) ** 2 / (scaled + self.floor) * self.valid).numpy()
        valid = self.valid.numpy()
        used = (
            float((self.information * self.spread**2).sum()) * self.electrons[0].numel() / coefficients.size * FINER**2
        )
        per_pixel = np.sqrt(squares.sum(axis=0) / np.maximum(valid.sum(axis=0), 1))
        return np.minimum(per_pixel, 60000.0).astype(np.float16), float(squares.sum()) / max(valid.sum() - used, 1.0)

    def coefficients(self, height_m: NDArray[np.floating]) -> Floats:
        """Of a height map (H, W), continued by mirroring what it has beyond its plane."""
        rows, columns = ((np.arange(size) - 0.5 * (FINER - 1)) / FINER - MARGIN_PX for size in self.shape)
        places = np.meshgrid(rows, columns, indexing="ij")
        above_plane = np.asarray(height_m, np.float64) / self.fine_m - _pixel_means(self.plane)[INSIDE]
        fine = map_coordinates(above_plane - above_plane.mean(), places, order=3, mode="mirror")
        return np.asarray(dctn(fine, norm="ortho") / self.spread).ravel()

    def height_m(self, coefficients: Floats) -> Floats:
        height = _pixel_means(self._surface(coefficients))[INSIDE] * self.fine_m
        return np.asarray(height - height.mean())

    def sigma_slope(self) -> float:
        return float(np.sqrt(0.5 * (self.wave2 * self.transfer * self.spread**2).mean()))

    def _surface(self, coefficients: Floats) -> Floats:
        return np.asarray(self.plane + idctn(self.spread * coefficients.reshape(self.shape), norm="ortho"))

    def _rendered(self, surface: torch.Tensor) -> torch.Tensor:
        fractions = self.twin.electrons(surface * self.fine_m, self.tables)
        rows, columns = self.shape
        pixels = fractions.reshape(len(fractions), rows // FINER, FINER, columns // FINER, FINER).mean(dim=(2, 4))
        return pixels[INSIDE].clamp_min(LEAST_ELECTRONS)

    def _weigh(self, statistics: SurfaceStatistics, electrons: Floats, instrument: Instrument) -> None:
        """What data and prior know of each cosine mode; the spread makes the objective about equally curved in all."""
        rows, columns = (np.pi * np.arange(size) / size for size in self.shape)
        self.wave2 = (2.0 - 2.0 * np.cos(rows))[:, None] + (2.0 - 2.0 * np.cos(columns))
        self.transfer = np.cos(0.5 * rows)[:, None] ** 2 * np.cos(0.5 * columns) ** 2
        poisson = _poisson_slope_variance(electrons, instrument)
        self.noise_scale = statistics.slope_variance / poisson
        self.information = self.wave2 * self.transfer / (statistics.slope_variance * FINER**2)
        power = ROUGHER * statistics.power(self.wave2 * FINER**2) * FINER**4
        self.precision = 1.0 / np.maximum(power, np.finfo(float).tiny)
        total = self.information + self.precision
        self.spread = np.where(total > 0, 1.0 / np.sqrt(np.where(total > 0, total, 1.0)), 1.0)


def _measured_slopes(electrons: Floats, instrument: Instrument) -> Floats:
    """(2, H, W): p and q by calibrated difference over sum."""
    normal = np.einsum("cs,syx->cyx", np.linalg.pinv(linear_response(instrument)), electrons)
    upright = np.maximum(normal[2], np.finfo(float).tiny)
    return np.asarray(np.clip(-normal[:2] / upright, -STEEPEST_SLOPE, STEEPEST_SLOPE))


def _poisson_slope_variance(electrons: Floats, instrument: Instrument) -> float:
    """Of one slope component in one pixel of mean brightness on a level specimen."""
    response = linear_response(instrument)
    inverse = np.linalg.pinv(response)[:2]
    level = response[:, 2] / response[:, 2].sum()
    brightness = max(float(electrons.sum(axis=0).mean()), LEAST_ELECTRONS)
    variance = (inverse**2 @ level).mean() * response[:, 2].sum() ** 2
    return float(variance) / brightness


def _pixel_means(values: Floats) -> Floats:
    rows, columns = (size // FINER for size in values.shape)
    return np.asarray(values.reshape(rows, FINER, columns, FINER).mean(axis=(1, 3)))


class _Counted:
    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress, self._done = progress, 0

    def __call__(self, intermediate_result: object) -> None:
        self._done += 1
        self._progress(self._done, MOST_ITERATIONS)


def _reason(best: object) -> str:
    status, message = getattr(best, "status", 2), str(getattr(best, "message", ""))
    if status == 1:
        return f"stopped at the limit of {MOST_ITERATIONS} iterations before it had settled"
    if "GRADIENT" in message:
        return "settled: no mode would move by more than 1 % of its own uncertainty"
    if status == 0:
        return "settled: the last step improved the objective by less than 50 parts in a million"
    return f"no further descent was found ({message.lower()})"
