"""Fusion that was never compiled on a machine keeps no height waiting, and what is prepared is all that it needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from acquisition.frames import Frame
from inference.fused_pipeline import FusedPipeline
from inference.fusion import merging, preparation, registration, resampling
from inference.pipeline import Pipeline
from programs import wait_until
from service.benchmarks.fusion import Scene, film

KERNELS = [
    merging.excess_of,
    merging.unlikeness,
    merging.merge,
    merging.counts_of,
    merging.block_sums,
    merging.brighten,
    registration._binned,
    resampling._filtered,
]


def signatures() -> list[int]:
    return [len(kernel.signatures) for kernel in KERNELS]  # type: ignore[attr-defined]


def test_frames_of_the_stream_need_nothing_that_was_not_prepared() -> None:
    preparation.prepare()
    prepared = signatures()
    assert min(prepared) > 0
    fused = FusedPipeline(Pipeline("classical", "cpu", 1), 4)
    for frame, instrument, _ in film(Scene("drift", "cu2o-spiral", drift_px=(2.4, -1.7)), 96, 600.0, 4):
        images = np.frombuffer(frame.images.tobytes(), np.uint16).reshape(frame.images.shape)
        assert not images.flags.writeable
        result = fused.reconstruct_both(Frame(replace(frame.header), images), instrument)
    assert result.header.figures["frames_held"] > 2
    assert signatures() == prepared


def test_what_takes_long_to_prepare_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "PATIENCE_S", 0.0)
    prepared = preparation.Preparation()
    assert not prepared.is_done()
    wait_until(prepared.is_done, lambda: "never prepared")
    prepared.close()


def test_closing_ends_what_is_still_being_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "PATIENCE_S", 0.0)
    prepared = preparation.Preparation()
    assert not prepared.is_done()
    prepared.close()
    assert prepared.is_done()
