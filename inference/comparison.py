"""The same recorded frame through several model sets: what each makes of it, and how far they lie apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.recording import RecordedRun
from inference.accuracy import compare, without_plane
from inference.pipeline import Pipeline

TIMED = 3


def compare_sets(
    run: Path,
    sequence: int,
    names: Sequence[str],
    load: Callable[[str], Pipeline],
    report: Callable[[int, int], None],
) -> dict[str, Any]:
    """By name in `sets`: `figures` of the height, `chi2` (mean over accepted pixels and segments of the squared
    residual in units of expected noise; below 1 where slopes fit noise), `seconds` (median of three, after one to
    warm up), and `accuracy` where the run has the frame's truth, else None; in `apart_m`, rms of the
    differences of two heights with their plane taken off. Raises `BadInput` for a frame that there is not, and what
    `load` raises.
    """
    recorded = RecordedRun(run)
    frame, truth_m = recorded.read_frame(sequence), recorded.read_truth(sequence)
    heights, sets = {}, {}
    for done, name in enumerate(dict.fromkeys(names), start=1):
        pipeline = load(name)
        result, seconds = pipeline.reconstruct(frame, recorded.instrument), []
        for _ in range(TIMED):
            began = time.perf_counter()
            pipeline.reconstruct(frame, recorded.instrument)
            seconds.append(time.perf_counter() - began)
        heights[name] = result.height_m
        errors = None if truth_m is None else compare(result.height_m, truth_m, frame.header.optics.pixel_size_m)
        sets[name] = {
            "figures": dict(result.header.figures),
            "chi2": result.header.figures["consistency_residual"] ** 2,
            "seconds": float(np.median(seconds)),
            "provider": pipeline.provider,
            "sha256": dict(result.header.model_hashes),
            "accuracy": None if errors is None else asdict(errors),
        }
        report(done, len(set(names)))
    apart_m = {
        f"{one} {other}": float(np.std(without_plane(heights[one] - heights[other])))
        for one, other in combinations(heights, 2)
    }
    return {"sequence": sequence, "sets": sets, "apart_m": apart_m}
