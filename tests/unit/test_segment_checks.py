"""Frames judged without truth: a segment from the others, and a place seen twice with the specimen turned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from acquisition.frames import Frame, FrameHeader, checksum
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from acquisition.stamping import optics_of
from inference.forward_model import linear_response, render
from inference.rotated_pair import compare_rotated
from inference.segment_score import score_segments

SIZE = 96
DOSE = 20_000.0


def _with(gains: tuple[float, ...] = (1, 1, 1, 1), segments: int = 4, **detector: Any) -> Instrument:
    tree = four_quadrant().model_dump()
    tree["detector"].update(detector)
    tree["detector"]["segments"] = tree["detector"]["segments"][:segments]
    for number, (segment, gain) in enumerate(zip(tree["detector"]["segments"], gains, strict=False)):
        segment["gain_counts_per_electron"] = 2.0 * gain
        if segments == 3:
            segment.update(azimuth_from_deg=120.0 * number, azimuth_to_deg=120.0 * (number + 1))
    return parse_instrument(tree, "the test's instrument")


def _surface(seed: int = 2) -> NDArray[np.float64]:
    rough = gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE)), 5.0, mode="reflect")
    return np.asarray(rough * 0.25 / np.gradient(rough)[0].std() * four_quadrant().scan.pixel_size_m)


def _frame(heights_m: NDArray[np.float64], instrument: Instrument, seed: int = 3) -> Frame:
    images = render(heights_m, instrument, np.random.default_rng(seed), DOSE)
    shape = (images.shape[0], images.shape[1], images.shape[2])
    header = FrameHeader("run", "test", 0, 1, 2, 3, 4, None, shape, "uint16", checksum(images), optics_of(instrument))
    return Frame(header, images)


def test_a_frame_of_the_stated_instrument_is_explained_to_its_noise() -> None:
    score = score_segments(_frame(_surface(), _with()), _with())
    assert all(0.8 < chi2 < 1.25 for chi2 in score.reduced_chi2)
    assert "to its noise" in score.verdict


def test_three_segments_predict_each_other_too() -> None:
    score = score_segments(_frame(_surface(), _with(segments=3)), _with(segments=3))
    assert all(0.7 < chi2 < 1.5 for chi2 in score.reduced_chi2)


def test_a_wrong_gain_and_a_wrong_rotation_are_seen_without_truth() -> None:
    frame = _frame(_surface(), _with())
    good = score_segments(frame, _with())
    for wrong in (_with(gains=(1.1, 1, 1, 1)), _with(rotation_deg=10.0)):
        score = score_segments(frame, wrong)
        assert min(score.reduced_chi2) > 1.5 * max(good.reduced_chi2)
        assert "calibrate" in score.verdict


def test_a_specimen_turned_by_half_a_turn_tells_surface_from_instrument() -> None:
    surface, stated = _surface(), _with()
    turned = np.roll(surface[::-1, ::-1], (3, -5), axis=(0, 1))
    sound = compare_rotated(_frame(surface, stated), _frame(turned, stated, 4), stated)
    assert abs(sound.offset_x_deg) < 0.05 and abs(sound.offset_y_deg) < 0.05
    assert sound.moved_px == pytest.approx((-3.0, 5.0), abs=0.3)
    real = _with(gains=(1.1, 1, 1, 1))
    faulty = compare_rotated(_frame(surface, real), _frame(turned, real, 4), stated)
    # difference over sum of a level specimen whose A segment counts 10 % too much
    shown = 0.1 / 4.1 / _modulation(stated)
    assert faulty.offset_x_deg == pytest.approx(-math.degrees(math.atan(shown)), rel=0.15)
    assert abs(faulty.offset_y_deg) < 0.1
    assert faulty.surface_deg == pytest.approx(sound.surface_deg, rel=0.03)


def test_another_place_is_refused() -> None:
    with pytest.raises(BadInput, match="give the same place"):
        compare_rotated(_frame(_surface(), _with()), _frame(_surface(9), _with()), _with())


def _modulation(instrument: Instrument) -> float:
    """Of (E - W) over the sum, per unit of the normal's component."""
    response = linear_response(instrument)
    return float((response[0, 0] - response[2, 0]) / response[:, 2].sum())
