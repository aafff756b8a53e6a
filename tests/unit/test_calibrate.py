"""Joint calibration: instruments found from frames alone, with errors that hold, and what cannot be found is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from inference.forward_model import expected_electrons, linear_response, render
from inference.refinement.calibrate import calibrate
from inference.refinement.calibrated import Calibrated
from inference.refinement.known_samples import parse_sample
from inference.refinement.local_law import derived_response, local_law
from inference.refinement.parameters import Priors
from inference.refinement.pose_search import start_pose
from inference.refinement.views import View, view_of

SIZE, WALLED_PX = 40, 24
DOSE = 20_000.0
GAINS = (1.15, 0.85, 1.1, 0.95)
DARKS = (230.0, 180.0, 215.0, 190.0)
HELD = {"second_scattering": 0.0, "tilt_yield_exponent": 0.0}


def _instrument(gains: tuple[float, ...], darks: tuple[float, ...], **detector: Any) -> Instrument:
    tree = four_quadrant().model_dump()
    tree["detector"].update(detector)
    for segment, gain, dark in zip(tree["detector"]["segments"], gains, darks, strict=True):
        segment.update(gain_counts_per_electron=2.0 * gain, dark_counts=dark)
    return parse_instrument(tree, "the test's instrument")


STATED = _instrument((1, 1, 1, 1), (200, 200, 200, 200))
REAL = _instrument(GAINS, DARKS, rotation_deg=7.0, offset_x_m=0.3e-3, working_distance_m=8.4e-3)
PIXEL_M = STATED.scan.pixel_size_m


def _rough(seed: int = 1) -> NDArray[np.float64]:
    heights = gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE)), 4.0, mode="reflect")
    return np.asarray(heights * 0.3 / np.gradient(heights)[0].std() * PIXEL_M)


def _view(name: str, heights_m: NDArray[np.float64], sample: str | None = None) -> View:
    rng = np.random.default_rng(4)
    frames = [render(heights_m, REAL, rng, DOSE) for _ in range(4)]
    return view_of(name, frames, STATED, None if sample is None else parse_sample(sample))


def _z_scores(fit: Calibrated) -> dict[str, float]:
    truth = {f"gain_counts_per_electron[{n}]": 2.0 * gain for n, gain in enumerate(GAINS)}
    truth |= {f"dark_counts[{n}]": dark for n, dark in enumerate(DARKS)}
    truth |= {"rotation_deg": 7.0, "offset_x_m": 0.3e-3, "offset_y_m": 0.0, "working_distance_m": 8.4e-3}
    return {one.label: (one.value - truth[one.label]) / one.sigma for one in fit.findings if one.label in truth}


def test_one_ordinary_frame_pins_rotation_and_relative_gains() -> None:
    fit = calibrate([_view("rough", _rough())], STATED, Priors(HELD))
    found = {one.label: one for one in fit.findings}
    assert found["rotation_deg"].sigma < 0.3
    assert max(abs(z) for z in _z_scores(fit).values()) < 4.0
    assert fit.reduced_chi2["rough"] < 1.3
    gains = np.array([found[f"gain_counts_per_electron[{n}]"].value for n in range(4)])
    assert gains / gains.mean() == pytest.approx(np.array(GAINS) / np.mean(GAINS), abs=0.06)
    assert fit.history[0].reduced_chi2["rough"] > 20 * fit.reduced_chi2["rough"]


def test_what_one_flat_frame_cannot_tell_is_said_with_the_way_out() -> None:
    fit = calibrate([_view("flat", np.zeros((SIZE, SIZE)))], STATED, Priors(HELD))
    found = {one.label: one for one in fit.findings}
    assert not found["working_distance_m"].identifiable and not found["dark_counts[0]"].identifiable
    assert "known sample" in found["working_distance_m"].way_out
    assert "--dark" in found["dark_counts[0]"].way_out


def test_a_known_grating_gives_the_scale_that_its_prior_left_open() -> None:
    sample = "grating:pitch=80nm,depth=12nm"
    heights = parse_sample(sample).heights_m({"x_m": 6e-9, "azimuth_deg": 25.0}, (SIZE, SIZE), PIXEL_M)
    darks = {"dark_counts": 0.5}
    start = _instrument((1, 1, 1, 1), DARKS)
    view = _view("grating", heights, sample)
    fit = calibrate([view], start, Priors(HELD | darks | {"sigma_px": 0.0}))
    found = {one.label: one for one in fit.findings}
    assert found["working_distance_m"].value == pytest.approx(8.4e-3, rel=0.02)
    assert found["working_distance_m"].sigma < 0.02 * 8.4e-3
    assert fit.surfaces["grating"].pose["azimuth_deg"] == pytest.approx(25.0, abs=1.0)


def test_derivatives_of_a_pixel_are_those_of_finite_differences() -> None:
    p, q = np.array([0.2, -0.7, 0.0]), np.array([-0.4, 0.3, 0.0])
    derived = derived_response(REAL)
    assert derived.response == pytest.approx(linear_response(REAL), abs=1e-12)
    law, step = local_law(p, q, derived, 1.5), 1e-6
    ahead, behind = (local_law(p + s, q, derived, 1.5).level for s in (step, -step))
    assert law.by_p == pytest.approx((ahead - behind) / (2 * step), abs=1e-8)
    ahead, behind = (local_law(p, q + s, derived, 1.5).level for s in (step, -step))
    assert law.by_q == pytest.approx((ahead - behind) / (2 * step), abs=1e-8)


def test_a_vickers_imprint_is_found_where_it_lies_and_how_large_it_is() -> None:
    sample, pixel_m = parse_sample("vickers:hv_angle=136deg"), 200e-9
    truth = {"x_m": 3e-6, "y_m": -2e-6, "azimuth_deg": 30.0, "size_m": 12e-6}
    found = start_pose(sample, sample.heights_m(truth, (96, 96), pixel_m), pixel_m)
    assert found["x_m"] == pytest.approx(3e-6, abs=pixel_m)
    assert found["y_m"] == pytest.approx(-2e-6, abs=pixel_m)
    assert found["azimuth_deg"] % 90.0 == pytest.approx(30.0, abs=1.0)
    assert found["size_m"] == pytest.approx(12e-6, rel=0.06)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cube:side=1um", "give flat:, grating:, vickers: or map:"),
        ("grating:pitch=2um", "needs depth="),
        ("grating:pitch=2um,depth=tall", "no number"),
        ("flat:tilt_z=3deg", "tilt_z"),
        ("map:nowhere.npz", "must be an .npz"),
    ],
)
def test_a_sample_that_says_nothing_useful_is_refused(text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        parse_sample(text)


def test_an_unknown_prior_is_refused_with_the_known_names() -> None:
    with pytest.raises(BadInput, match="working_distance_m"):
        calibrate([_view("flat", np.zeros((SIZE, SIZE)))], STATED, Priors({"distance": 1.0}))


def test_what_walls_send_on_is_that_of_the_instrument_found_not_of_the_file() -> None:
    """Without noise, and for a file turned by 7 degrees: nothing but the fit's own short cuts can leave an error."""
    sample, finer = parse_sample("grating:pitch=60nm,depth=14nm"), REAL.with_scan(pixel_size_m=PIXEL_M / 2)
    real = finer.model_copy(update={"effects": finer.effects.model_copy(update={"second_scattering": 0.3})})
    heights = sample.heights_m({"azimuth_deg": 25.0}, (2 * WALLED_PX, 2 * WALLED_PX), PIXEL_M / 2)
    electrons = expected_electrons(heights, real, DOSE).reshape(4, WALLED_PX, 2, WALLED_PX, 2).mean(axis=(2, 4))
    counts = electrons * 2.0 * np.array(GAINS)[:, None, None] + np.array(DARKS)[:, None, None]
    inner = np.zeros(counts.shape, np.bool_)
    inner[:, 2:-2, 2:-2] = True
    view = View("grating", counts, inner, 16, 1, PIXEL_M, sample, sample.poses(PIXEL_M))
    start = _instrument(GAINS, DARKS)
    priors = Priors({"tilt_yield_exponent": 0.0, "gain_counts_per_electron": 0.01, "dark_counts": 0.1, "sigma_px": 0.0})
    fit = calibrate([view], start, priors)
    found = {one.label: one for one in fit.findings}["second_scattering"]
    assert fit.settled
    assert found.sigma < 0.02
    assert abs(found.value - 0.3) < 0.5 * found.sigma
