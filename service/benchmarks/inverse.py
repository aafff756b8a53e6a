"""The way back: the twin's gradients against finite differences, MAP against classical inversion on measured maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acquisition.frames import Frame
from acquisition.instrument import Instrument, four_quadrant
from hardware_drivers.simulated.height_maps import HeightMap
from hardware_drivers.simulated.scenes import MAP_SUFFIXES
from inference.accuracy import Accuracy, compare
from inference.forward_model import expected_electrons
from inference.pipeline import Pipeline
from service.benchmarks.frames import frame_of, with_gain
from service.benchmarks.measured import Measured

FINER = 3
MARGIN_PX = 16
LARGEST_PX = 192
DOSE = 10_000.0
# Electrons per pixel of the frame without noise: as many as fit into 16 bits at half a count each.
NOISELESS_DOSE = 300_000.0
GRADIENT_PIXELS, GRADIENT_SHAPE = 60, (40, 44)

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
    """Largest relative error of the twin's gradients, with the detector turned and off centre."""
    from inference.networks.gradient_check import largest_gradient_error

    detector = four_quadrant().detector
    turned = {"rotation_deg": 7.0, "offset_x_m": 0.3e-3, "offset_y_m": -0.2e-3}
    askew = four_quadrant().model_copy(update={"detector": detector.model_copy(update=turned)})
    error = largest_gradient_error(askew, GRADIENT_SHAPE, GRADIENT_PIXELS)
    told = (
        f"{GRADIENT_PIXELS} pixels of a rough {GRADIENT_SHAPE[0]} x {GRADIENT_SHAPE[1]} surface, every geometry number"
    )
    return Measured(error, told)


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
    instrument = with_gain(four_quadrant().with_scan(pixel_size_m=pixel_m), gain)
    fine = instrument.with_scan(pixel_size_m=pixel_m / FINER)
    electrons = _pixel_means(expected_electrons(heights_m, fine, NOISELESS_DOSE if noiseless else DOSE))
    if not noiseless:
        electrons = np.random.default_rng(1).poisson(electrons).astype(np.float64)
    images = np.minimum(np.rint(electrons * gain + 200.0), 65535).astype(np.uint16)
    return frame_of(images, instrument, "inverse"), instrument, _pixel_means(heights_m)


def _pixel_means(values: NDArray[np.floating]) -> Floats:
    rows, columns = (size // FINER for size in values.shape[-2:])
    means = values.reshape(*values.shape[:-2], rows, FINER, columns, FINER).mean(axis=(-3, -1), dtype=np.float64)
    return np.ascontiguousarray(means[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX])
