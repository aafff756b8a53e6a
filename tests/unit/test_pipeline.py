"""A frame becomes a height of the surface that made it, however it was scanned, and the result says how it was made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from acquisition.frames import Frame, FrameHeader, checksum
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from acquisition.stamping import optics_of
from inference.accuracy import compare, without_plane
from inference.forward_model import render
from inference.pipeline import Pipeline
from inference.registry import find_model_set

DOSE = 40_000.0


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline("classical", "cpu", 1)


def instrument_with(**parts: dict[str, Any]) -> Instrument:
    tree = four_quadrant().model_dump()
    for part, values in parts.items():
        tree[part].update(values)
    for segment in tree["detector"]["segments"]:
        segment["gain_counts_per_electron"] = 1.0
    return parse_instrument(tree, "the test's instrument")


def hill(shape: tuple[int, int] = (72, 90), pixel_size_m: float = 5e-9) -> NDArray[np.float64]:
    """Steeper one way than the other, so that a mirrored or turned answer can't pass."""
    y, x = (np.linspace(-1, 1, size) for size in shape)
    wave = np.exp(-6 * (x - 0.3) ** 2 - 12 * (y[:, None] + 0.2) ** 2)
    return np.asarray(wave * 15 * pixel_size_m, np.float64)


def frame_of(images: NDArray[np.uint16], instrument: Instrument) -> Frame:
    shape = (images.shape[0], images.shape[1], images.shape[2])
    header = FrameHeader("run", "test", 3, 1, 2, 3, 4, None, shape, "uint16", checksum(images), optics_of(instrument))
    return Frame(header, images)


def with_optics_of(frame: Frame, **optics: float) -> Frame:
    return Frame(replace(frame.header, optics=replace(frame.header.optics, **optics)), frame.images)


def rendered(instrument: Instrument, height_m: NDArray[np.float64]) -> Frame:
    return frame_of(render(height_m, instrument, np.random.default_rng(0), dose=DOSE), instrument)


@pytest.mark.parametrize(
    "instrument",
    [
        instrument_with(),
        instrument_with(detector={"rotation_deg": 35.0}),
        instrument_with(detector={"offset_x_m": 0.5e-3, "offset_y_m": -0.4e-3}),
        instrument_with(scan={"scan_rotation_deg": 70.0}),
        instrument_with(scan={"mirrored": True}),
    ],
    ids=["plain", "turned detector", "detector off axis", "turned scan", "mirrored"],
)
def test_what_an_instrument_renders_it_reconstructs(pipeline: Pipeline, instrument: Instrument) -> None:
    height = hill()
    found = pipeline.reconstruct(rendered(instrument, height), instrument)
    assert compare(found.height_m, height, 5e-9).height_error_over_std < 0.02
    assert found.header.figures["consistency_residual"] < 1.2


def test_a_frame_that_was_scanned_turned_further_is_read_with_the_detector_turned_back(pipeline: Pipeline) -> None:
    height = hill()
    frame = rendered(instrument_with(detector={"rotation_deg": -25.0}), height)
    turned = with_optics_of(frame, scan_rotation_deg=25.0)
    found = pipeline.reconstruct(turned, instrument_with())
    assert compare(found.height_m, height, 5e-9).height_error_over_std < 0.02


def test_the_optics_of_the_frame_win_over_the_instrument_file(pipeline: Pipeline) -> None:
    height = hill(pixel_size_m=20e-9)
    used = instrument_with(detector={"working_distance_m": 6e-3}, scan={"pixel_size_m": 20e-9})
    found = pipeline.reconstruct(rendered(used, height), instrument_with())
    assert compare(found.height_m, height, 20e-9).height_error_over_std < 0.02
    assert found.header.pixel_size_m == 20e-9


def test_a_wrong_geometry_shows_in_slopes_that_no_height_has(pipeline: Pipeline) -> None:
    frame = rendered(instrument_with(), hill())
    right = pipeline.reconstruct(frame, instrument_with()).header.figures
    wrong = pipeline.reconstruct(frame, instrument_with(detector={"rotation_deg": 90.0})).header.figures
    assert wrong["slope_misfit"] > 3 * right["slope_misfit"]


def test_the_result_says_of_which_frame_and_how_it_was_made(pipeline: Pipeline) -> None:
    frame = rendered(instrument_with(), hill())
    result = pipeline.reconstruct(frame, instrument_with())
    assert result.header.key == frame.header.key
    assert result.header.model_hashes == find_model_set("classical").sha256
    assert result.header.provider == "CPU"
    assert set(result.header.timing_s) == {"calibrate", "slopes", "rerender", "integrate"}
    assert result.header.calibration_hash == instrument_with().calibration_hash
    kinds = [(name, layer.dtype, layer.shape) for name, layer in result.layers.items()]
    shape = frame.images.shape[1:]
    expected = (("height", np.float32), ("residual", np.float16), ("sigma", np.float16))
    assert kinds == [(name, np.dtype(kind), shape) for name, kind in expected]


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(2, 33), columns=st.integers(2, 33), seed=st.integers(0, 2**16))
def test_any_counts_of_any_size_give_a_finite_height_of_zero_mean(
    pipeline: Pipeline, rows: int, columns: int, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 65536, (4, rows, columns), dtype=np.uint16)
    result = pipeline.reconstruct(frame_of(images, four_quadrant()), four_quadrant())
    assert all(np.isfinite(layer).all() for layer in result.layers.values())
    assert all(np.isfinite(value) for value in result.header.figures.values())
    assert abs(result.height_m.mean()) <= 1e-5 * np.ptp(result.height_m)


def test_a_saturated_patch_is_rejected_and_leaves_the_rest_right(pipeline: Pipeline) -> None:
    height = hill()
    frame = rendered(instrument_with(), height)
    images = frame.images.copy()
    images[0, 60:64, 10:18] = 65535
    found = pipeline.reconstruct(frame_of(images, instrument_with()), instrument_with())
    assert found.header.figures["rejected_share"] == pytest.approx(32 / height.size)
    assert found.layers["sigma"][61, 12] > 100 * np.median(found.layers["sigma"])
    away = (slice(0, 50), slice(20, None))
    error = without_plane(found.height_m[away] - height[away])
    assert error.std() < 0.05 * height.std()


def test_a_plane_is_taken_off_whole_and_nothing_else() -> None:
    y, x = np.mgrid[:31, :44]
    rough = np.random.default_rng(1).normal(size=(31, 44))
    np.testing.assert_allclose(without_plane(3 * x - 2 * y + 7.0), 0, atol=1e-9)
    np.testing.assert_allclose(without_plane(rough + 3 * x - 2 * y), without_plane(rough), atol=1e-9)
    assert without_plane(rough).std() == pytest.approx(rough.std(), rel=0.02)


def test_slope_error_is_the_angle_between_the_surfaces() -> None:
    x = np.arange(40) * np.ones((30, 1)) * 5e-9
    tilted = [np.tan(np.radians(angle)) * x for angle in (10.0, 25.0)]
    assert compare(tilted[0], tilted[1], 5e-9).slope_error_deg == pytest.approx(15.0)
