"""Every installed model set takes any frame: odd sizes, many segments, faults, darkness; what comes out is finite."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.frames import Result
from acquisition.instrument import Instrument, Segment, four_quadrant
from inference.forward_model import render
from inference.pipeline import Pipeline
from inference.registry import list_model_sets
from service.benchmarks.frames import frame_of

SETS = [card.name for card in list_model_sets()]
Images = NDArray[np.uint16]


def pipeline_of(name: str, kept: dict[str, Pipeline] = {}) -> Pipeline:  # noqa: B006 - one of each for all tests
    return kept.setdefault(name, Pipeline(name, "cpu", 1))


def seen(shape: tuple[int, int], instrument: Instrument, seed: int = 1) -> Images:
    rng = np.random.default_rng(seed)
    row, column = np.indices(shape)
    heights_m = 4e-9 * np.sin(0.2 * column + 0.1 * row) + 2e-10 * rng.normal(size=shape)
    return render(heights_m, instrument, rng)


def ring_of(count: int, rotation_deg: float = 0.0) -> Instrument:
    detector, span_deg = four_quadrant().detector, 360.0 / count
    first = detector.segments[0]
    segments = tuple(
        Segment.model_validate(
            first.model_dump()
            | {"name": f"S{n}", "azimuth_from_deg": span_deg * n, "azimuth_to_deg": span_deg * (n + 1)}
        )
        for n in range(count)
    )
    turned = detector.model_copy(update={"segments": segments, "rotation_deg": rotation_deg})
    return four_quadrant().model_copy(update={"detector": turned})


def height_of(name: str, images: Images, instrument: Instrument | None = None) -> Result:
    instrument = instrument or four_quadrant()
    result = pipeline_of(name).reconstruct(frame_of(images, instrument, "any"), instrument)
    for layer, values in result.layers.items():
        assert np.isfinite(values.astype(np.float32)).all(), layer
    assert result.height_m.shape == images.shape[1:]
    return result


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("shape", [(64, 64), (2, 2), (3, 90), (65, 97), (31, 257), (700, 401)])
def test_any_size_gives_a_height(name: str, shape: tuple[int, int]) -> None:
    height_of(name, seen(shape, four_quadrant()))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("count", range(3, 9))
def test_any_number_of_segments_at_any_rotation_gives_the_same_surface(name: str, count: int) -> None:
    instrument = ring_of(count, rotation_deg=17.0 * count)
    found = height_of(name, seen((64, 80), instrument), instrument).height_m
    usual = height_of(name, seen((64, 80), four_quadrant())).height_m
    assert np.corrcoef(found.ravel(), usual.ravel())[0, 1] > 0.93


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("level", [0, 65535])
def test_a_dark_or_white_frame_is_rejected_as_a_whole(name: str, level: int) -> None:
    result = height_of(name, np.full((4, 50, 70), level, np.uint16))
    assert result.header.figures["rejected_share"] == 1.0
    assert np.median(result.layers["sigma"].astype(float)) > 0.3


@pytest.mark.parametrize("name", SETS)
def test_a_saturated_patch_is_rejected_and_uncertain(name: str) -> None:
    images = seen((96, 96), four_quadrant())
    images[:, 30:60, 30:60] = 65535
    result = height_of(name, images)
    assert result.header.figures["rejected_share"] == pytest.approx(900 / 96**2)
    sigma = result.layers["sigma"].astype(float)
    assert np.median(sigma[35:55, 35:55]) > 2.0 * np.median(sigma[:20])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("level", "why"), [(0, "less than 1%"), (65535, "full scale")])
def test_a_faulty_segment_is_left_out_and_named(name: str, level: int, why: str) -> None:
    images = seen((64, 80), four_quadrant())
    usual = height_of(name, images).height_m
    images[1] = level
    result = height_of(name, images)
    assert np.corrcoef(result.height_m.ravel(), usual.ravel())[0, 1] > 0.95
    second = four_quadrant().detector.segments[1].name
    assert any(f"segment {second}" in told and why in told for told in result.header.estimated)


def test_too_few_working_segments_are_an_error_that_names_the_faulty() -> None:
    images = seen((64, 64), four_quadrant())
    images[[0, 2]] = 0
    with pytest.raises(BadInput, match=r"(?s)segment .* the 2 left of 4 cannot tell"):
        height_of("classical", images)
