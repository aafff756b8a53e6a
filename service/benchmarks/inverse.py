"""The way back: the twin's gradients against finite differences, MAP against classical inversion on measured maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acquisition.clock import SystemClock
from acquisition.frames import Frame, FrameHeader, checksum
from acquisition.instrument import Instrument, four_quadrant
from acquisition.stamping import optics_of
from hardware_drivers.simulated.height_maps import MAP_SUFFIXES, HeightMap
from inference.accuracy import Accuracy, compare
from inference.forward_model import expected_electrons
from inference.pipeline import Pipeline
from service.benchmarks.measured import Measured

FINER = 3
MARGIN_PX = 16
LARGEST_PX = 192
DOSE = 10_000.0
# Electrons per pixel of the frame without noise: as many as fit into 16 bits at half a count each.
NOISELESS_DOSE = 300_000.0
GRADIENT_PIXELS = 60
STEP_PX = 1e-6

Floats = NDArray[np.float64]


class Attempt(NamedTuple):
    """One map at one dose; `told` is MAP's own account of why it stopped."""

    name: str
    noiseless: bool
    classical: Accuracy
    fitted: Accuracy
    told: str

    @property
    def ratio(self) -> float:
        return self.fitted.slope_error_deg / self.classical.slope_error_deg


def twin_gradient() -> Measured:
    """Largest difference between gradient and central finite differences, of the largest gradient: heights on a rough
    surface in its own shadows, and each geometry parameter."""
    import torch

    from inference.networks.twin import Twin

    rng = np.random.default_rng(0)
    pixel_m = four_quadrant().scan.pixel_size_m
    twin = Twin(_askew(), dose=1000.0)
    heights = torch.from_numpy(rng.normal(size=(40, 44)) * 1.5).requires_grad_()
    weights = torch.from_numpy(rng.normal(size=(4, 40, 44)))

    def weighted(surface: torch.Tensor) -> float:
        with torch.no_grad():
            return float((twin.electrons(surface * pixel_m) * weights).sum())

    torch.autograd.backward((twin.electrons(heights * pixel_m) * weights).sum())
    worst = 0.0
    by_height = heights.grad
    assert by_height is not None
    largest = float(by_height.abs().max())
    for row, column in rng.integers(0, heights.shape, (GRADIENT_PIXELS, 2)):
        nudge = torch.zeros_like(heights)
        nudge[row, column] = STEP_PX
        slope = (weighted(heights + nudge) - weighted(heights - nudge)) / (2 * STEP_PX)
        worst = max(worst, abs(slope - float(by_height[row, column])) / largest)
    for parameter in twin.geometry.parameters():
        assert parameter.grad is not None
        values, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in range(len(values)):
            value = float(values[index])
            step = 1e-6 * max(abs(value), 1e-3)
            sums = []
            for moved in (value + step, value - step):
                values[index] = moved
                sums.append(weighted(heights))
            values[index] = value
            slope = (sums[0] - sums[1]) / (2 * step)
            worst = max(worst, abs(slope - float(gradient[index])) / abs(float(gradient[index])))
    return Measured(worst, f"{GRADIENT_PIXELS} pixels of a rough 40 x 44 surface and every geometry parameter")


def map_against_classical(data: Path | None) -> Measured | None:
    """Median over the measured maps of MAP's slope error over classical's, without noise; None without maps."""
    attempts = list(_attempts(data))
    if not attempts:
        return None
    noiseless, noisy = ([found for found in attempts if found.noiseless is which] for which in (True, False))
    told = "; ".join(_line(found) for found in attempts)
    never_worse = all(found.ratio <= 1.0 for found in attempts)
    conditions = (
        f"median of {len(noiseless)} measured maps without noise, rendered on a grid {FINER} times as fine; "
        f"at N = {DOSE:.0f}: {np.median([found.ratio for found in noisy]):.2f}; "
        f"{'never' if never_worse else 'NOT never'} worse than its start. {told}"
    )
    return Measured(float(np.median([found.ratio for found in noiseless])), conditions, "classical + DCT Poisson", 1.0)


def _line(found: Attempt) -> str:
    before, after = found.classical, found.fitted
    dose = "noise-free" if found.noiseless else f"N={DOSE:.0f}"
    heights = [100.0 * accuracy.height_error_over_std for accuracy in (before, after)]
    slopes = f"slope {before.slope_error_deg:.2f} -> {after.slope_error_deg:.2f} deg"
    return f"{found.name} {dose}: {slopes}, height {heights[0]:.2f} -> {heights[1]:.2f} % of std, {found.told}"


def _attempts(data: Path | None) -> Iterator[Attempt]:
    from inference.refinement.reconstruction import MapReconstruction

    files = [] if data is None else sorted(p for p in (data / "afm").glob("*") if p.suffix in MAP_SUFFIXES)
    classical = Pipeline("classical")
    for file in files:
        for noiseless in (True, False):
            frame, instrument, truth_m = _frame(HeightMap(file), noiseless)
            start = classical.reconstruct(frame, instrument)
            told: list[str] = []
            fitted = MapReconstruction(classical, told.append).reconstruct(frame, instrument)
            pixel_m = instrument.scan.pixel_size_m
            before, after = (compare(found.height_m, truth_m, pixel_m) for found in (start, fitted))
            yield Attempt(file.stem, noiseless, before, after, told[0].partition(": ")[2])


def _frame(surface: HeightMap, noiseless: bool) -> tuple[Frame, Instrument, Floats]:
    """Pixels are means over 3 x 3 points of a wider scene, so that no discretisation is inverted with itself."""
    pixel_m = surface.pixel_size_m
    assert pixel_m is not None
    count = FINER * (LARGEST_PX + 2 * MARGIN_PX)
    along_m = (np.arange(count) - 0.5 * (count - 1)) * pixel_m / FINER
    heights_m = surface.heights_m(along_m, along_m, 0.0)
    gain = 0.5 if noiseless else 8.0
    segments = tuple(
        segment.model_copy(update={"gain_counts_per_electron": gain}) for segment in four_quadrant().detector.segments
    )
    detector = four_quadrant().detector.model_copy(update={"segments": segments})
    instrument = four_quadrant().model_copy(update={"detector": detector}).with_scan(pixel_size_m=pixel_m)
    fine = instrument.with_scan(pixel_size_m=pixel_m / FINER)
    electrons = _pixel_means(expected_electrons(heights_m, fine, NOISELESS_DOSE if noiseless else DOSE))
    if not noiseless:
        electrons = np.random.default_rng(1).poisson(electrons).astype(np.float64)
    images = np.minimum(np.rint(electrons * gain + 200.0), 65535).astype(np.uint16)
    at = SystemClock().now().monotonic_ns
    shape = (images.shape[0], images.shape[1], images.shape[2])
    header = FrameHeader(
        "inverse", "bench", 0, at, at, at, at, None, shape, "uint16", checksum(images), optics_of(instrument)
    )
    return Frame(header, images), instrument, _pixel_means(heights_m)


def _askew() -> Instrument:
    detector = four_quadrant().detector
    turned = {"rotation_deg": 7.0, "offset_x_m": 0.3e-3, "offset_y_m": -0.2e-3}
    return four_quadrant().model_copy(update={"detector": detector.model_copy(update=turned)})


def _pixel_means(values: NDArray[np.floating]) -> Floats:
    rows, columns = (size // FINER for size in values.shape[-2:])
    means = values.reshape(*values.shape[:-2], rows, FINER, columns, FINER).mean(axis=(-3, -1), dtype=np.float64)
    return np.ascontiguousarray(means[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX])
