"""The self-supervised loop: better on frames it hasn't seen, and what has nothing to teach is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant
from adapted_frames import GAIN, electrons, frames_of, rough_m
from inference.networks.slopes import SlopeNet
from inference.networks.weights import read_slopes
from inference.refinement.adapt import Adaptation, adapt
from inference.refinement.candidate_score import Scores, judge, score, thinned
from inference.refinement.explaining import Explainer, slopes_of, view_of
from inference.registry import MODELS

NAMES, SIGNAL = ("A", "B", "C", "D"), np.full(4, 700.0)


@pytest.fixture(scope="module")
def shipped() -> SlopeNet:
    return read_slopes(MODELS / "unet" / "slopes.onnx")


@pytest.fixture(scope="module")
def wrong() -> Instrument:
    """Stated nearer to the specimen than it is: slopes come out too flat."""
    stated = four_quadrant()
    return stated.model_copy(update={"detector": stated.detector.model_copy(update={"working_distance_m": 6.5e-3})})


@pytest.fixture(scope="module")
def adapted(shipped: SlopeNet) -> Adaptation:
    return adapt(shipped, frames_of(electrons(rough_m(0.8))), four_quadrant(), lambda done, total: None, steps=25)


def test_a_candidate_that_explains_unseen_frames_better_is_accepted_and_is_nearer_to_the_truth(
    shipped: SlopeNet, adapted: Adaptation
) -> None:
    assert adapted.verdict.accepted, adapted.verdict.reason
    assert adapted.verdict.gain > 3.0 * adapted.verdict.scatter > 0.0
    assert set(adapted.held_out).isdisjoint(adapted.adapted_on)
    view = view_of(frames_of(electrons(rough_m(0.8)))[3], four_quadrant())
    true_p = np.diff(rough_m(0.8), axis=1) / four_quadrant().scan.pixel_size_m
    with torch.no_grad():
        before, after = (float(np.std(slopes_of(net, view)[0][0].numpy() - true_p)) for net in (shipped, adapted.net))
    assert after < before


def test_only_the_outermost_layers_have_changed(shipped: SlopeNet, adapted: Adaptation) -> None:
    old = shipped.state_dict()
    changed = {name for name, values in adapted.net.state_dict().items() if not torch.equal(values, old[name])}
    assert changed and all(name.startswith(("net.heads", "net.leave")) for name in changed)


def test_frames_of_nothing_are_refused(shipped: SlopeNet) -> None:
    found = adapt(shipped, frames_of(electrons(0.0 * rough_m())), four_quadrant(), lambda done, total: None, steps=12)
    assert not found.verdict.accepted
    assert "nothing that a plane would not" in found.verdict.reason


def test_a_tilted_plane_is_nothing_too(shipped: SlopeNet) -> None:
    tilted = np.broadcast_to(0.3 * four_quadrant().scan.pixel_size_m * np.arange(64.0), (64, 64))
    found = adapt(shipped, frames_of(electrons(tilted)), four_quadrant(), lambda done, total: None, steps=4)
    assert not found.verdict.accepted


@pytest.mark.parametrize(("part", "why"), [(1.0, "the limit is 20 %: one is broken"), (0.3, "")])
def test_a_segment_that_shows_something_else_teaches_nothing(shipped: SlopeNet, part: float, why: str) -> None:
    seen = electrons(rough_m(0.8))
    seen[2] += part * (seen[2].T[::-1] - seen[2])
    found = adapt(shipped, frames_of(seen), four_quadrant(), lambda done, total: None, steps=12)
    assert not found.verdict.accepted
    assert why in found.verdict.reason


def test_a_dead_segment_is_refused(shipped: SlopeNet) -> None:
    seen = electrons(rough_m())
    seen[1] = 0.0
    with pytest.raises(BadInput, match=r"0 of 4 frames can be adapted on.*frame 0 has 3 of 4 segments"):
        adapt(shipped, frames_of(seen), four_quadrant(), lambda done, total: None, steps=1)


def test_saturated_frames_are_refused(shipped: SlopeNet) -> None:
    bright = electrons(rough_m(), dose=65535 / GAIN * 4)
    with pytest.raises(BadInput, match="are saturated, dark or too steep, the limit is 20 %"):
        adapt(shipped, frames_of(bright), four_quadrant(), lambda done, total: None, steps=1)


def test_one_frame_cannot_be_learned_from_and_judged_by(shipped: SlopeNet) -> None:
    with pytest.raises(BadInput, match="at least 2 are needed"):
        adapt(shipped, frames_of(electrons(rough_m()), 1), four_quadrant(), lambda done, total: None, steps=1)


def test_the_score_tells_an_instrument_that_is_stated_wrong(shipped: SlopeNet, wrong: Instrument) -> None:
    frames = frames_of(electrons(rough_m(0.8)), 1)
    right, off = (
        score(shipped, [view_of(frames[0], stated)], Explainer(stated)).chi2 for stated in (four_quadrant(), wrong)
    )
    assert off > right > 0.8


def test_thinned_electrons_add_up_and_their_noise_is_independent() -> None:
    (frame,) = frames_of(np.full((4, 64, 64), 400.0), 1)
    view = view_of(frame, four_quadrant())
    one, other = thinned(view, 0.75, np.random.default_rng(2))
    torch.testing.assert_close(one.electrons + other.electrons, view.electrons)
    noise = [(part.electrons - part.electrons.mean()).flatten() for part in (one, other)]
    assert abs(float(torch.corrcoef(torch.stack(noise))[0, 1])) < 4.0 / 128.0
    assert float(one.electrons.var() / one.electrons.mean()) == pytest.approx(1.0, abs=0.1)


def test_what_is_better_by_less_than_the_scatter_is_not_accepted() -> None:
    rng = np.random.default_rng(1)
    tiles = rng.normal(2.0, 0.5, (4, 36))
    before, flat = (Scores(tiles + level, tiles.mean(axis=0) + level, SIGNAL) for level in (0.0, 5.0))
    luck = Scores(tiles - 0.001 + rng.normal(0.0, 0.1, (4, 36)), tiles.mean(axis=0), SIGNAL)
    assert not judge(before, luck, flat, NAMES).accepted
    assert "not better by more than 3 times the scatter" in judge(before, before, flat, NAMES).reason
    assert judge(before, Scores(tiles - 0.1, tiles.mean(axis=0), SIGNAL), flat, NAMES).accepted


def test_explaining_left_out_segments_better_and_whole_frames_worse_is_not_accepted() -> None:
    tiles = np.random.default_rng(1).normal(2.0, 0.1, (4, 36))
    before, after = Scores(tiles, tiles[0], SIGNAL), Scores(tiles - 0.5, tiles[0] + 0.5, SIGNAL)
    verdict = judge(before, after, Scores(tiles + 9.0, tiles[0], SIGNAL), NAMES)
    assert not verdict.accepted and "whole frames are explained worse" in verdict.reason
