"""The judge itself: peers that work, estimators that recover what is known, bounds that are reached."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.accuracy import compare, without_plane
from inference.training.frames import calibration_of, expected_frame, pixel_means
from inference.training.held_out import Case, Scene, exposures, held_out_scenes
from service.benchmarks import accuracy, integrators, judged
from service.benchmarks.accuracy import installed
from service.benchmarks.crosschecks import refined
from service.benchmarks.integrators import Errors, ratio_to_best
from service.benchmarks.judged import CLASSICAL, FC, PCA, SMOOTHED, Seen, judge, model_sets
from service.benchmarks.judgement import Judgement
from service.benchmarks.measured import Measured, NotMeasured, Report, Request
from service.benchmarks.model_sets import ModelSet, Slopes
from service.benchmarks.peers import frankot_chellappa, irls, oracle_smoothed, poisson, weighted
from service.benchmarks.runner import JUDGES, ROWS_FILE, run_benchmark, table_row
from service.benchmarks.theory import (
    coverage,
    drift,
    facet_angles_deg,
    inner_slope_deg,
    occlusion_deg,
    slope_variance,
    transfer,
    wiener_bound_deg,
    wiener_filtered,
)

Floats = NDArray[np.float64]


def _slopes(height: Floats, sigma: float = 0.02) -> Slopes:
    p, q = np.diff(height, axis=1), np.diff(height, axis=0)
    return Slopes(p, q, np.full_like(p, sigma), np.full_like(q, sigma), np.zeros(height.shape, np.uint8))


def _tilted_rough_plane(rows: int = 90, columns: int = 110) -> Floats:
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    waves = np.sin(0.21 * x + 0.13 * y) + 0.5 * np.cos(0.35 * y - 0.1 * x)
    return np.asarray(0.15 * x - 0.08 * y + waves, np.float64)


@pytest.fixture(scope="module")
def classical() -> ModelSet:
    return ModelSet(CLASSICAL)


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    """The quick scenes that are rendered fast, by family; the first facet and chirp of theirs."""
    found: dict[str, Scene] = {}
    for scene in islice(held_out_scenes(quick=True), 20):
        found.setdefault(scene.family, scene)
    return found


@pytest.fixture(scope="module")
def fractal(scenes: dict[str, Scene], classical: ModelSet) -> tuple[Case, Seen]:
    case = next(exposures(scenes["fractal"]))
    calibration = calibration_of(case.sample)
    slopes, height = classical.answer(case.sample.images, calibration)
    truth = case.sample.height.astype(np.float64)
    seen = Seen(case, scenes["fractal"], calibration, truth, False, {CLASSICAL: slopes}, {CLASSICAL: height})
    return case, seen


@pytest.mark.parametrize("integrate", [poisson, weighted, irls])
def test_least_squares_peers_return_the_height_of_true_slopes(integrate: Callable[[Slopes], Floats]) -> None:
    height = _tilted_rough_plane()
    np.testing.assert_allclose(integrate(_slopes(height)), height - height.mean(), atol=1e-6)


def test_frankot_chellappa_returns_tilts_and_waves_to_what_a_pixel_difference_loses() -> None:
    """A difference over one pixel is a derivative times sinc: 0.5 % of these waves."""
    height = _tilted_rough_plane()
    off = frankot_chellappa(_slopes(height)) - height
    assert np.std(off) < 0.01 * np.std(without_plane(height))


def test_frankot_chellappa_loses_as_much_as_its_derivative_predicts() -> None:
    frequency = 0.25
    x = np.arange(128) + 0.5
    height = np.tile(np.cos(2.0 * math.pi * frequency * x), (64, 1))
    found = frankot_chellappa(_slopes(height))
    np.testing.assert_allclose(np.std(found) / np.std(height), np.sinc(frequency), rtol=1e-3)


def test_irls_ignores_outliers_that_bend_least_squares() -> None:
    height, rng = _tilted_rough_plane(), np.random.default_rng(3)
    slopes = _slopes(height)
    p = np.where(rng.random(slopes.p.shape) < 0.02, 3.0, slopes.p)
    spoilt = slopes._replace(p=p)
    bent, robust = (compare(solve(spoilt), height, 1.0).height_error_m for solve in (poisson, irls))
    assert robust < 0.1 * bent


def test_weights_keep_a_bad_stripe_out() -> None:
    height, rng = _tilted_rough_plane(), np.random.default_rng(4)
    slopes = _slopes(height)
    p, sigma_p = slopes.p.copy(), slopes.sigma_p.copy()
    p[:50, 40:44] += rng.normal(0.0, 1.0, p[:50, 40:44].shape)
    sigma_p[:50, 40:44] = 1.0
    told = slopes._replace(p=p, sigma_p=sigma_p)
    plain, trusting = (compare(solve(told), height, 1.0).height_error_m for solve in (poisson, weighted))
    assert trusting < 0.2 * plain


def test_every_peer_judges_a_frame_and_the_oracle_is_never_worse_than_classical(
    fractal: tuple[Case, Seen], classical: ModelSet
) -> None:
    _, seen = fractal
    verdict, with_peers = judge(seen, classical, quick=True)
    assert set(verdict.figures) == {CLASSICAL, SMOOTHED, FC, PCA} == set(with_peers.heights)
    assert verdict.ratio(SMOOTHED) < 0.8
    assert 0.5 < verdict.ratio(PCA) < 1.5
    assert verdict.coverage[CLASSICAL].inside == pytest.approx(0.6827, abs=0.01)


def test_oracle_smoothing_leaves_alone_what_smoothing_would_spoil(
    fractal: tuple[Case, Seen], classical: ModelSet
) -> None:
    """Judged by an error that grows with smoothness, it must choose width 0."""
    case, seen = fractal
    height, told = oracle_smoothed(
        case.sample.images, seen.calibration, classical, lambda found: -float(np.std(np.diff(found)))
    )
    assert told == "slopes, 0 px"
    np.testing.assert_allclose(height, seen.heights[CLASSICAL], atol=2e-3)


def test_facet_angles_come_back_from_the_true_height(scenes: dict[str, Scene]) -> None:
    scene = scenes["facet"]
    angles = facet_angles_deg(pixel_means(scene.surface).astype(np.float64), scene.known)
    assert len(angles) >= 8
    np.testing.assert_allclose(angles, scene.known["angle_deg"], atol=0.02)


def test_transfer_is_the_part_of_the_amplitude_that_is_found(scenes: dict[str, Scene]) -> None:
    known = scenes["chirp"].known
    truth = pixel_means(scenes["chirp"].surface).astype(np.float64)
    drifted = 0.5 * truth + 1e-3 * np.arange(truth.shape[1])
    assert transfer(truth, truth, known) == pytest.approx(1.0)
    assert transfer(drifted, truth, known) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("correlation_px", "sigma"), [(4.0, 0.02), (12.0, 0.1)])
def test_wiener_bound_is_what_a_wiener_filter_reaches(correlation_px: float, sigma: float) -> None:
    """A periodic surface of that spectrum, slopes of its own derivative, filtered with the spectrum known."""
    size, rng = 256, np.random.default_rng(5)
    known = {"deviation_px": 0.1, "correlation_px": correlation_px}
    fx, fy = np.fft.fftfreq(size), np.fft.fftfreq(size)[:, None]
    squares = fx**2 + fy**2
    spectrum = 0.1**2 * math.pi * correlation_px**2 * np.exp(-((math.pi * correlation_px) ** 2) * squares)
    surface = np.fft.fft2(rng.normal(size=(size, size))) * np.sqrt(spectrum)
    by_x, by_y = 2j * np.pi * fx, 2j * np.pi * fy
    measured_x, measured_y = (surface * by + np.fft.fft2(rng.normal(0.0, sigma, (size, size))) for by in (by_x, by_y))
    power = (2.0 * np.pi) ** 2 * squares
    gain = spectrum / (spectrum * power + sigma**2)
    found = (np.conj(by_x) * measured_x + np.conj(by_y) * measured_y) * gain
    truth, height = np.fft.ifft2(surface).real, np.fft.ifft2(found).real
    reached = compare(height, truth, 1.0).slope_error_deg
    assert wiener_bound_deg(known, sigma**2) == pytest.approx(reached, rel=0.05)


def test_a_wiener_filter_on_a_frame_reaches_the_bound_and_the_border_is_left_out(
    scenes: dict[str, Scene], classical: ModelSet
) -> None:
    case = next(exposures(scenes["known_spectrum"]))
    slopes = classical.slopes(case.sample.images, calibration_of(case.sample))
    truth = case.sample.height.astype(np.float64)
    variance = slope_variance(truth, case.sample.instrument)
    reached = inner_slope_deg(wiener_filtered(poisson(slopes), case.known, variance), truth)
    assert wiener_bound_deg(case.known, variance) == pytest.approx(reached, rel=0.03)


def test_noise_of_theory_is_the_noise_of_classical_slopes(fractal: tuple[Case, Seen]) -> None:
    """Slopes between two pixels are the mean of both: half of one's variance."""
    case, seen = fractal
    slopes = seen.slopes[CLASSICAL]
    stated = float(np.mean(np.concatenate([slopes.sigma_p.ravel(), slopes.sigma_q.ravel()]) ** 2))
    assert slope_variance(seen.truth, case.sample.instrument) == pytest.approx(2.0 * stated, rel=0.05)


def test_honest_gaussian_errors_are_covered_and_false_sigmas_are_told() -> None:
    rng = np.random.default_rng(6)
    sigmas = np.exp(rng.normal(0.0, 0.5, 100_000))
    errors = rng.normal(0.0, sigmas)
    honest, timid = coverage(errors, sigmas), coverage(errors, 2.0 * sigmas)
    assert honest.inside == pytest.approx(0.6827, abs=0.005) and honest.gain_nats > 0.1
    assert timid.inside == pytest.approx(0.9545, abs=0.005) and timid.gain_nats < honest.gain_nats


def test_drift_sees_slow_waves_only() -> None:
    x = np.arange(200) + 0.5
    slow, fast = (np.tile(np.cos(2.0 * np.pi * cycles * x / 200), (100, 1)) for cycles in (2.0, 4.0))
    assert drift(slow) == pytest.approx(0.5, rel=0.05)
    assert drift(fast) < 1e-3


def test_walls_occlude_and_gentle_waves_do_not(scenes: dict[str, Scene], classical: ModelSet) -> None:
    found = {}
    for family in ("gaussian", "grains"):
        calibration = calibration_of(next(exposures(scenes[family])).sample)
        found[family] = occlusion_deg(scenes[family], classical, calibration)
    assert found["gaussian"] < 0.1 and found["grains"] > 2.0


def test_a_height_is_refined_onto_the_grid_it_came_from(scenes: dict[str, Scene]) -> None:
    """Its frame by the forward model is that of the surface itself; at the border relief outside is a guess."""
    scene = scenes["gaussian"]
    fine = refined(pixel_means(scene.surface).astype(np.float64))
    assert fine.shape == scene.surface.shape
    again, first = (expected_frame(surface, scene.geometry, 1.0) for surface in (fine, scene.surface))
    off = np.abs(again - first)
    assert off[:, 2:-2, 2:-2].max() < 1e-3 and off.max() < 0.01


def test_the_best_classical_integrator_is_that_of_the_condition() -> None:
    """Not of each case: that would be an oracle."""
    peers = ("DCT Poisson", "Frankot-Chellappa", "IRLS", "weighted")
    cases = [
        Errors(False, dict(zip((*peers, "net"), errors, strict=True)))
        for errors in ((1.0, 2.0, 4.0, 9.0, 1.0), (4.0, 3.0, 2.0, 9.0, 1.0))
    ]
    ratio, best = ratio_to_best(cases, "net")
    assert best == "DCT Poisson" and ratio == pytest.approx(0.5)


@pytest.mark.parametrize("what", ["accuracy", "integrators"])
def test_a_set_that_is_missing_is_told_in_every_row(what: str, tmp_path: Path) -> None:
    run_benchmark(what, True, tmp_path / "rows.json", None, models=("no-such-set", CLASSICAL))
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    told = {row["conditions"] for row in rows}
    assert told == {"not measured: model set no-such-set is not installed"}
    assert installed((CLASSICAL, "seed-2")) == ((CLASSICAL,), "model set seed-2 is not installed")


def test_judges_are_asked_once_for_rows_table_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Request] = []

    def judge_of(request: Request) -> Report:
        asked.append(request)
        return Report({}, draw=lambda folder: [folder / "drawn.png"])

    monkeypatch.setitem(JUDGES, "integrators", judge_of)
    run_benchmark("integrators", True, None, None, tmp_path / "pictures", ("a", "b"))
    assert asked == [Request(True, None, ("a", "b"))]
    assert "drawn.png" in capsys.readouterr().out
    with pytest.raises(BadInput, match="'physics' judges no model set"):
        run_benchmark("physics", True, None, None, models=("a",))


def test_rows_that_could_not_be_measured_say_why() -> None:
    target = {"unit": "", "better": "lower", "target": 1.0, "quick": True}
    row = table_row("some_row", target, NotMeasured("no torch here"), quick=True)
    assert row["value"] is None and not row["holds"] and row["conditions"] == "not measured: no torch here"


def test_worst_cases_are_kept_once_for_each_surface(fractal: tuple[Case, Seen], classical: ModelSet) -> None:
    verdict, seen = judge(fractal[1], classical, quick=True)
    judgement = Judgement((CLASSICAL,))
    for _ in range(2):
        judgement.keep_if_bad(verdict, seen)
    (shown,) = judgement.worst.values()
    assert shown.ratio == 1.0 and math.sqrt(float((shown.error_deg**2).mean())) == pytest.approx(shown.slope_deg)


def test_a_pass_becomes_the_quick_rows_a_table_and_pictures(
    scenes: dict[str, Scene], classical: ModelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged by itself: classical's ratios to itself are 1, and no row is named that the list does not have."""
    few = [scenes["fractal"], scenes["facet"]]
    monkeypatch.setattr(judged, "held_out_scenes", lambda data, quick: iter(few))
    report = accuracy.measure(Request(True, None, (CLASSICAL, "seed-2")))
    targets = tomllib.loads(ROWS_FILE.read_text(encoding="utf-8"))
    assert set(report.rows) <= set(targets["accuracy"]) and set(JUDGES) <= set(targets)
    row = report.rows["slope_vs_classical_n10000"]
    assert isinstance(row, Measured) and row.value == 1.0 and "model set seed-2 is not installed" in row.conditions
    assert report.table is not None and report.table.row_count == 4 and report.draw is not None
    files = report.draw(tmp_path)
    assert len(files) == 6 and all(file.stat().st_size > 500 for file in files)
    lines = (tmp_path / "accuracy.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 4 * len((CLASSICAL, SMOOTHED, FC, PCA))


def test_integrators_are_compared_on_the_same_slopes(
    scenes: dict[str, Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judged, "held_out_scenes", lambda data, quick: iter([scenes["fractal"]]))
    report = integrators.measure(Request(True, None, (CLASSICAL,)))
    row = report.rows["pinn_vs_best_classical_worst"]
    assert isinstance(row, Measured) and 1.0 <= row.value + 1e-5 < 1.05
    assert report.draw is not None and report.draw(tmp_path) == [tmp_path / "integrators.csv"]


def test_sets_are_loaded_once_and_classical_is_always_there() -> None:
    assert list(model_sets((CLASSICAL, CLASSICAL))) == [CLASSICAL] == list(model_sets(()))
