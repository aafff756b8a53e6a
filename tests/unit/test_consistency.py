"""A residual lies in its band while the calibration is right, whatever the dose; wrong gains and faults leave it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from acquisition.alarms import AlarmBook
from acquisition.frames import ResultHeader
from acquisition.instrument import four_quadrant, parse_instrument
from acquisition.residual_watch import SEVERAL, ResidualWatch
from inference.calibration import USUAL_BAND
from inference.consistency import CHECKED_EVERY
from inference.forward_model import render
from inference.pipeline import Pipeline
from recordings import result
from service.benchmarks.frames import frame_of
from service.checking import ROOM, consistency_of, residual_band

SIDE = 96
STATED = four_quadrant()


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline("classical", "cpu", 1)


def rough_m(steepness: float = 0.35) -> NDArray[np.float64]:
    rough = gaussian_filter(np.random.default_rng(5).normal(size=(SIDE, SIDE)), 4.0)
    return np.asarray(rough * (steepness / np.gradient(rough)[0].std() * STATED.scan.pixel_size_m))


def seen(dose: float, factors: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> NDArray[np.uint16]:
    """By an instrument whose gains are `factors` times those of the file."""
    tree = STATED.model_dump()
    for segment, factor in zip(tree["detector"]["segments"], factors, strict=True):
        segment["gain_counts_per_electron"] *= factor
    return render(rough_m(), parse_instrument(tree, "the real one"), np.random.default_rng(8), dose=dose)


def judged(pipeline: Pipeline, images: NDArray[np.uint16]) -> dict[str, float]:
    return dict(pipeline.reconstruct(frame_of(images, STATED, "test"), STATED).header.figures)


@pytest.mark.parametrize("dose", [300.0, 3_000.0, 30_000.0])
def test_the_right_calibration_lies_in_its_band_at_any_dose(pipeline: Pipeline, dose: float) -> None:
    figures = judged(pipeline, seen(dose))
    assert figures["residual_low"] < figures["residual_median"] < figures["residual_high"]
    assert figures["residual_median"] == pytest.approx(figures["residual_expected"], rel=0.08)


@pytest.mark.parametrize(
    ("what", "dose", "factors"),
    [
        ("gains 20 % wrong", 608.0, (1.2, 0.8, 1.2, 0.8)),
        ("one gain 20 % wrong", 608.0, (1.2, 1.0, 1.0, 1.0)),
        ("one gain 5 % wrong", 20_000.0, (1.05, 1.0, 1.0, 1.0)),
        ("one segment charges", 608.0, (1.0, 1.3, 1.0, 1.0)),
        ("one segment is contaminated", 608.0, (1.0, 1.0, 0.75, 1.0)),
    ],
)
def test_faults_of_a_segment_lie_above_the_band(
    pipeline: Pipeline, what: str, dose: float, factors: tuple[float, ...]
) -> None:
    figures = judged(pipeline, seen(dose, factors))
    assert figures["residual_median"] > figures["residual_high"], what


def test_gains_that_are_all_too_high_in_the_file_lie_below_the_band(pipeline: Pipeline) -> None:
    figures = judged(pipeline, seen(608.0, (0.6, 0.6, 0.6, 0.6)))
    assert figures["residual_median"] < figures["residual_low"]


def test_the_same_frame_tells_the_same_and_others_are_not_checked(pipeline: Pipeline) -> None:
    frame = frame_of(seen(608.0), STATED, "test")
    assert judged(pipeline, frame.images) == judged(pipeline, frame.images)
    numbers = {number: replace(frame, header=replace(frame.header, sequence=number)) for number in (1, CHECKED_EVERY)}
    told = {n: pipeline.reconstruct(one, STATED).header.figures for n, one in numbers.items()}
    assert "residual_high" not in told[1] and "residual_high" in told[CHECKED_EVERY]


def test_a_band_from_own_frames_replaces_the_usual_one(pipeline: Pipeline) -> None:
    frames = [frame_of(render(rough_m(), STATED, np.random.default_rng(n), dose=3e3), STATED, "own") for n in range(3)]
    band = residual_band(frames, STATED, pipeline)
    assert band is not None
    assert USUAL_BAND[0] < band[0] < 1.0 < band[1] < USUAL_BAND[1] and band[1] - band[0] >= 2.0 * ROOM
    assert residual_band([], STATED, pipeline) is None


def test_the_cycle_is_small_on_relief_and_falls_with_the_noise(pipeline: Pipeline) -> None:
    cycles = [
        consistency_of(frame_of(seen(dose), STATED, "test"), STATED, pipeline).cycle for dose in (300.0, 30_000.0)
    ]
    assert 0.0 < cycles[1] < cycles[0] < 0.1


class Watched:
    """A watch whose run has begun, and what it told."""

    def __init__(self) -> None:
        self.alarms = AlarmBook()
        self.told: list[str] = []
        self.watch = ResidualWatch(self.alarms, lambda name, text, severity, **details: self.told.append(text))
        self.watch.begin("run")
        self.sequence = 0

    def see(self, median: float, count: int = SEVERAL, run_id: str = "run") -> None:
        for _ in range(count):
            figures = {"residual_median": median}
            if self.sequence % CHECKED_EVERY == 0:
                figures |= {"residual_low": 0.5, "residual_high": 0.7, "cycle_height": 0.02}
            self.watch.take(self._header(figures, run_id))
            self.watch.look(0)
            self.sequence += 1

    def _header(self, figures: dict[str, float], run_id: str) -> ResultHeader:
        return replace(result(self.sequence).header, run_id=run_id, figures=figures)

    @property
    def standing(self) -> list[bool]:
        """Whether the cause of each standing alarm lasts."""
        return [bool(alarm["active"]) for alarm in self.alarms.tree()]


def test_several_frames_outside_sound_an_alarm_that_names_value_band_and_way_out() -> None:
    watched = Watched()
    watched.see(0.6, 10)
    watched.see(0.9, SEVERAL - 1)
    assert not watched.standing and not watched.told
    watched.see(0.9, 3)
    (alarm,) = watched.alarms.tree()
    assert "0.9 times the noise" in alarm["text"] and "0.5 to 0.7 is expected" in alarm["text"]
    assert "eclips check" in alarm["way_out"] and len(watched.told) == 1


def test_the_alarm_stands_until_its_cause_is_gone_and_it_was_acknowledged() -> None:
    watched = Watched()
    watched.see(0.3)
    assert watched.standing == [True] and "below" in watched.told[0]
    watched.alarms.acknowledge("residual")
    assert watched.standing == [True]
    watched.see(0.6)
    assert watched.standing == []


def test_heights_of_earlier_frames_that_come_late_change_nothing() -> None:
    watched = Watched()
    watched.see(0.6, 1)
    watched.sequence = 20
    watched.see(0.9, SEVERAL)
    watched.sequence = 2
    watched.see(0.6, 10)
    assert watched.standing == [True]


def test_single_frames_and_those_of_other_runs_sound_nothing() -> None:
    watched = Watched()
    watched.see(0.6, 1)
    for _ in range(4):
        watched.see(0.9, SEVERAL - 1)
        watched.see(0.6, 1)
    watched.see(0.9, 20, run_id="before")
    assert watched.standing == []
