"""MAP finds heights that linear inversion can't, from frames rendered on a grid other than its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.frames import Frame, FrameHeader, checksum
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from acquisition.stamping import optics_of
from inference.accuracy import compare
from inference.forward_model import expected_electrons
from inference.pipeline import Pipeline
from inference.refinement.map_solver import solve_map
from inference.refinement.prior import surface_statistics
from inference.refinement.reconstruction import MapReconstruction

FINER = 3
MARGIN_PX = 16
SIZE = 28


def instrument_with(**parts: dict[str, Any]) -> Instrument:
    tree = four_quadrant().model_dump()
    for part, values in parts.items():
        tree[part].update(values)
    for segment in tree["detector"]["segments"]:
        segment["gain_counts_per_electron"] = 2.0
    return parse_instrument(tree, "the test's instrument")


def pits(x_px: NDArray[np.float64], y_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverted pyramids of 58 degrees: their floors are shadowed by their walls."""
    u, v = (np.abs((along + 8.0) % 32.0 - 16.0) for along in (x_px, y_px))
    return -np.maximum(18.0 - 1.6 * np.maximum(u, v), 0.0)


def frame(dose: float, seed: int = 3) -> tuple[Frame, Instrument, NDArray[np.float64]]:
    """Pixels are means over 3 x 3 points of a wider scene."""
    instrument = instrument_with()
    pixel_m = instrument.scan.pixel_size_m
    fine = instrument.with_scan(pixel_size_m=pixel_m / FINER)
    count = FINER * (SIZE + 2 * MARGIN_PX)
    along = (np.arange(count) - 0.5 * (count - 1)) / FINER
    heights_m = pits(*np.meshgrid(along, along)) * pixel_m
    electrons = pixel_means(expected_electrons(heights_m, fine, dose))
    images = np.rint(np.random.default_rng(seed).poisson(electrons) * 2.0 + 200.0).astype(np.uint16)
    shape = (images.shape[0], images.shape[1], images.shape[2])
    header = FrameHeader("run", "test", 3, 1, 2, 3, 4, None, shape, "uint16", checksum(images), optics_of(instrument))
    return Frame(header, images), instrument, pixel_means(heights_m)


def pixel_means(values: NDArray[Any]) -> NDArray[np.float64]:
    rows, columns = (size // FINER for size in values.shape[-2:])
    means = values.reshape(*values.shape[:-2], rows, FINER, columns, FINER).mean(axis=(-3, -1))
    return np.ascontiguousarray(means[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX], dtype=np.float64)


@pytest.fixture(scope="module")
def classical() -> Pipeline:
    return Pipeline("classical", "cpu", 1)


def test_map_beats_its_starting_point_on_shadowed_pits(classical: Pipeline) -> None:
    shot, instrument, truth_m = frame(30_000.0)
    pixel_m = instrument.scan.pixel_size_m
    start = classical.reconstruct(shot, instrument)
    told: list[str] = []
    found = MapReconstruction(classical, told.append).reconstruct(shot, instrument)
    before, after = compare(start.height_m, truth_m, pixel_m), compare(found.height_m, truth_m, pixel_m)
    assert after.slope_error_deg < 0.85 * before.slope_error_deg
    assert after.height_error_m < 0.85 * before.height_error_m
    assert found.header.model == "map"
    assert found.header.calibration_hash == start.header.calibration_hash
    assert found.layers["residual"].shape == found.height_m.shape
    assert len(told) == 1 and ("settled" in told[0] or "limit" in told[0])


def test_noisy_frame_is_explained_to_its_noise_and_no_further(classical: Pipeline) -> None:
    shot, instrument, _ = frame(3000.0)
    found = solve_map(shot.images, instrument, classical.reconstruct(shot, instrument).height_m)
    assert 0.8 < found.reduced_chi2 < 1.3


def test_sigma_is_the_size_of_the_error_on_a_level_specimen(classical: Pipeline) -> None:
    instrument = instrument_with()
    electrons = expected_electrons(np.zeros((96, 96)), instrument, 2000.0)
    images = np.rint(np.random.default_rng(5).poisson(electrons) * 2.0 + 200.0).astype(np.uint16)
    found = solve_map(images, instrument, np.zeros((96, 96)))
    q, p = np.gradient(found.height_m, instrument.scan.pixel_size_m)
    single_px = 0.1
    assert np.hypot(p.std(), q.std()) < 0.3 * single_px
    assert found.sigma_slope < 0.5 * single_px


def test_curl_of_noisy_slopes_gives_their_noise_and_the_rest_the_surface() -> None:
    rng = np.random.default_rng(4)
    wave = 2 * np.pi * np.fft.fftfreq(128)
    wave2 = wave[:, None] ** 2 + wave**2
    heights = np.fft.ifft2(np.fft.fft2(rng.normal(size=(128, 128))) * 12 * np.exp(-4.0 * wave2)).real
    p, q = np.roll(heights, -1, 1) - heights, np.roll(heights, -1, 0) - heights
    noise = rng.normal(0.0, 0.2, (2, 128, 128))
    found = surface_statistics(p + noise[0], q + noise[1])
    assert found.slope_variance == pytest.approx(0.04, rel=0.1)
    for squared_wave in (0.05, 0.2):
        assert found.power(np.array(squared_wave)) == pytest.approx(144 * np.exp(-8.0 * squared_wave), rel=0.5)
    assert np.isinf(found.power(np.array(0.0)))


def test_what_map_cannot_use_is_refused_with_the_way_out() -> None:
    shot, instrument, _ = frame(1000.0)
    segments = tuple(s.model_copy(update={"gain_counts_per_electron": None}) for s in instrument.detector.segments)
    blind = instrument.model_copy(update={"detector": instrument.detector.model_copy(update={"segments": segments})})
    with pytest.raises(BadInput, match="A, B, C, D: MAP needs gain_counts_per_electron"):
        solve_map(shot.images, blind, np.zeros((SIZE, SIZE)))
    with pytest.raises(BadInput, match="does not fit images"):
        solve_map(shot.images, instrument, np.zeros((SIZE, SIZE + 1)))
    oblong = instrument_with(scan={"pixel_size_y_m": 7e-9})
    with pytest.raises(BadInput, match="square"):
        solve_map(shot.images, oblong, np.zeros((SIZE, SIZE)))
