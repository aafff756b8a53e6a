"""`eclips bench map`: a model set beside the offline solver, which may take all its time for the same crops."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from inference.accuracy import compare
from inference.pipeline import Pipeline
from inference.registry import find_model_set
from inference.training.held_out import Scene
from service.benchmarks.frames import frame_of
from service.benchmarks.judged import CLASSICAL, SPECIAL, Seen, model_sets, seen_cases
from service.benchmarks.judgement import worst_of
from service.benchmarks.measured import Measured, NotMeasured, Report, Request
from service.benchmarks.model_sets import ModelSet

CROP_PX = 128
QUICK_DOSE, QUICK_FAMILIES = 10_000.0, ("terraces", "gaussian")
NEAR = 1.3
NEEDS_TORCH = "MAP needs torch: install eclips-live with the extra `train`"

Floats = NDArray[np.float64]


class Beside(NamedTuple):
    """Slope errors in degrees on one crop. The solver starts from classical, so that it inherits nothing."""

    name: str
    family: str
    set_deg: float
    fitted_deg: float
    classical_deg: float

    @property
    def ratio(self) -> float:
        return self.set_deg / self.fitted_deg


def measure(request: Request) -> Report:
    """The row of [map]. Raises `BadInput` for a set that is not installed or a data folder without usable maps."""
    find_model_set(request.models[0])
    if find_spec("torch") is None:
        return Report({}, left_out=NEEDS_TORCH)
    found = list(_crops(request))
    return Report({"network_vs_map": _row(found, request.models[0])}, table=_table(found, request.models[0]))


def network_vs_map(request: Request) -> Measured | NotMeasured:
    """The same row for `eclips bench accuracy`."""
    if find_spec("torch") is None:
        return NotMeasured(NEEDS_TORCH)
    return _row(list(_crops(request)), request.models[0])


def _crops(request: Request) -> Iterator[Beside]:
    """One surface of each family of the fixed test set and every real map, at both doses of its quick part."""
    sets = model_sets(request.models[:1])

    def is_wanted(scene: Scene) -> bool:
        return scene.family in QUICK_FAMILIES if request.quick else scene.family not in SPECIAL

    for seen in seen_cases(request.data, True, sets, is_wanted):
        if not request.quick or seen.case.sample.dose == QUICK_DOSE:
            yield beside_map(seen, sets[request.models[0]])


def beside_map(seen: Seen, model: ModelSet) -> Beside:
    """On the middle of a frame, which is all that either sees."""
    from inference.refinement.reconstruction import MapReconstruction

    sample = seen.case.sample
    middle = tuple(slice(max((side - CROP_PX) // 2, 0), (side + CROP_PX) // 2) for side in sample.height.shape)
    images = np.ascontiguousarray(sample.images[:, *middle])
    frame = frame_of(images, sample.instrument, "map")
    classical = Pipeline(CLASSICAL)
    fitted = MapReconstruction(classical, lambda told: None).reconstruct(frame, sample.instrument).height_m
    start = classical.reconstruct(frame, sample.instrument).height_m
    pixel_m = sample.instrument.scan.pixel_size_m
    heights = (model.answer(images, seen.calibration)[1], fitted / pixel_m, start / pixel_m)
    truth = seen.truth[middle]
    errors = (compare(np.asarray(height, np.float64), truth, 1.0).slope_error_deg for height in heights)
    return Beside(seen.case.name, seen.scene.family, *errors)


def _row(found: list[Beside], model: str) -> Measured:
    worst, ratio = worst_of({one.name: one.ratio for one in found})
    near, families = sum(one.ratio <= NEAR for one in found), len({one.family for one in found})
    conditions = (
        f"set {model}; worst of {len(found)} crops of {CROP_PX} px, {families} families, MAP started from classical: "
        f"{worst}; median {median(one.ratio for one in found):.2f}, {near} of {len(found)} at most {NEAR:g}"
    )
    return Measured(ratio, conditions, "MAP", 1.0)


def _table(found: list[Beside], model: str) -> Table:
    shown = Table("crop", title="slope error in degrees")
    for heading in (CLASSICAL, "MAP", f"set {model}", "over MAP"):
        shown.add_column(heading, justify="right")
    for one in found:
        shown.add_row(
            one.name, f"{one.classical_deg:.2f}", f"{one.fitted_deg:.2f}", f"{one.set_deg:.2f}", f"{one.ratio:.2f}"
        )
    return shown
