"""The differentiable twin shows what the forward model shows, and its gradients are those of finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from inference.forward_model import acceptance, captured_fractions, expected_counts
from inference.networks.gradient_check import largest_gradient_error
from inference.networks.twin import Twin
from inference.networks.twin_tables import Tables

PIXEL_M = 5e-9
SCALARS = ("working_distance_m", "rotation_deg", "offset_x_m", "offset_y_m")
PER_SEGMENT = ("inner_radius_m", "outer_radius_m", "gap_m")


def instrument_with(**parts: dict[str, Any]) -> Instrument:
    tree = four_quadrant().model_dump()
    for part, values in parts.items():
        tree[part].update(values)
    return parse_instrument(tree, "the test's instrument")


ASKEW = instrument_with(
    detector={"rotation_deg": 7.0, "offset_x_m": 0.3e-3, "offset_y_m": -0.2e-3}, specimen={"tilt_x_deg": 4.0}
)


BIASED = instrument_with(
    detector={"rotation_deg": 7.0, "offset_x_m": 0.2e-3, "offset_y_m": 0.1e-3}, specimen={"bias_v": -5000.0}
)


def rough(shape: tuple[int, int] = (22, 18), seed: int = 0) -> NDArray[np.float64]:
    """Steep from pixel to pixel, so that most of them are shadowed from somewhere."""
    return np.asarray(np.random.default_rng(seed).normal(size=shape) * 1.5 * PIXEL_M)


def weighted(twin: Twin, heights_px: torch.Tensor, weights: torch.Tensor, tables: Tables | None = None) -> torch.Tensor:
    return (twin(heights_px * PIXEL_M, tables) * weights).sum()


def without_radii() -> Instrument:
    tree = four_quadrant().model_dump()
    for segment in tree["detector"]["segments"]:
        segment.update(inner_radius_m=None, outer_radius_m=None, modulation=0.5)
    return parse_instrument(tree, "the test's instrument")


@pytest.mark.parametrize("instrument", [four_quadrant(), ASKEW, BIASED], ids=["default", "askew", "biased"])
def test_twin_renders_what_the_forward_model_renders(instrument: Instrument) -> None:
    heights = rough()
    twin = Twin(instrument, dose=1000.0)
    found = twin.fractions(torch.from_numpy(heights)).detach().numpy()
    np.testing.assert_allclose(found, captured_fractions(heights, instrument), atol=2e-7)
    counts = twin(torch.from_numpy(heights)).detach().numpy()
    np.testing.assert_allclose(counts, expected_counts(heights, instrument, 1000.0), rtol=2e-5)


@pytest.mark.parametrize("instrument", [ASKEW, BIASED], ids=["askew", "biased"])
def test_tables_in_torch_are_the_tables(instrument: Instrument) -> None:
    ours, theirs = Twin(instrument).geometry.tables(), acceptance(instrument)
    np.testing.assert_allclose(ours.response.detach().numpy(), theirs.response, atol=1e-12)
    np.testing.assert_allclose(ours.blocked.detach().numpy(), theirs.blocked, atol=1e-8)
    np.testing.assert_allclose(ours.azimuth_rad.detach().numpy(), theirs.azimuth_rad, atol=1e-12)
    assert ours.occluding_slope == pytest.approx(theirs.occluding_slope, rel=1e-12)


def test_beam_width_blurs_as_the_forward_model_does() -> None:
    instrument = instrument_with(beam={"sigma_px": 1.3})
    heights = rough((40, 36))
    found = Twin(instrument, dose=1000.0)(torch.from_numpy(heights)).detach().numpy()
    np.testing.assert_allclose(found, expected_counts(heights, instrument, 1000.0), rtol=2e-5)


def test_gradient_by_heights_is_that_of_finite_differences() -> None:
    heights = torch.from_numpy(rough() / PIXEL_M).requires_grad_()
    twin = Twin(ASKEW, dose=1000.0).requires_grad_(False)
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(4, *heights.shape)))
    tables = twin.geometry.tables()
    weighted(twin, heights, weights, tables).backward()
    assert heights.grad is not None
    largest = float(heights.grad.abs().max())
    step = 1e-6
    for row, column in np.random.default_rng(2).integers(0, heights.shape, (40, 2)):
        nudge = torch.zeros_like(heights)
        nudge[row, column] = step
        with torch.no_grad():
            up, down = (weighted(twin, heights + sign * nudge, weights, tables) for sign in (1, -1))
        assert float(up - down) / (2 * step) == pytest.approx(float(heights.grad[row, column]), abs=1e-4 * largest)


@pytest.mark.parametrize(
    "name",
    [f"geometry.{name}" for name in (*SCALARS, *PER_SEGMENT)]
    + ["tilt_x_deg", "tilt_y_deg", "gain_counts_per_electron", "dark_counts", "sigma_px", "emitted"],
)
def test_gradient_by_every_number_of_the_instrument_is_that_of_finite_differences(name: str) -> None:
    instrument = ASKEW.model_copy(update={"beam": ASKEW.beam.model_copy(update={"sigma_px": 0.8})})
    twin = Twin(instrument, dose=1000.0)
    heights = torch.from_numpy(rough() / PIXEL_M)
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(4, *heights.shape)))
    weighted(twin, heights, weights).backward()
    parameter = twin.get_parameter(name)
    assert parameter.grad is not None
    gradient, values = parameter.grad.view(-1), parameter.data.view(-1)
    for index in range(values.numel()):
        value = float(values[index])
        step = 1e-6 * max(abs(value), 1e-3 if name.endswith("_m") else 1.0)
        sums = []
        for moved in (value + step, value - step):
            values[index] = moved
            with torch.no_grad():
                sums.append(float(weighted(twin, heights, weights)))
        values[index] = value
        assert (sums[0] - sums[1]) / (2 * step) == pytest.approx(float(gradient[index]), rel=1e-3)


@pytest.mark.parametrize("name", PER_SEGMENT)
def test_gradient_holds_where_all_segments_end_at_the_same_angle(name: str) -> None:
    """On the axis every ray's limits are the table's own ends, where its steps leave some tenths of a per cent."""
    twin = Twin(four_quadrant(), dose=1000.0)
    heights = torch.from_numpy(rough() / PIXEL_M)
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(4, *heights.shape)))
    weighted(twin, heights, weights).backward()
    parameter = twin.geometry.get_parameter(name)
    assert parameter.grad is not None
    largest = float(parameter.grad.abs().max())
    for index, value in enumerate(parameter.tolist()):
        sums = []
        for moved in (value * (1 + 1e-6), value * (1 - 1e-6)):
            parameter.data[index] = moved
            sums.append(float(weighted(twin, heights, weights).detach()))
        parameter.data[index] = value
        assert (sums[0] - sums[1]) / (2e-6 * value) == pytest.approx(float(parameter.grad[index]), abs=1e-2 * largest)


def test_gradient_by_geometry_holds_for_curved_paths() -> None:
    assert largest_gradient_error(BIASED, (20, 22), pixels=5) < 1e-3


def test_what_the_twin_does_not_model_is_refused() -> None:
    for instrument, named in (
        (instrument_with(beam={"tail_fraction": 0.2}), "tail_fraction"),
        (without_radii(), "outer_radius_m of every segment"),
    ):
        with pytest.raises(BadInput, match=named):
            Twin(instrument)
    with pytest.raises(BadInput, match="at least 2 x 2"):
        Twin(four_quadrant()).fractions(torch.zeros(1, 5))
