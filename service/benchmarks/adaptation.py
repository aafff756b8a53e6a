"""The self-supervised loop before an instrument that isn't what its file says, and before one that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from acquisition.errors import BadInput
from acquisition.frames import Frame
from acquisition.instrument import Instrument
from inference.accuracy import Accuracy, compare
from inference.forward_model import render
from inference.registry import DEFAULT_MODEL, MODELS, find_model_set
from service.benchmarks.adaptation_live import recording_row
from service.benchmarks.frames import frame_of
from service.benchmarks.measured import Measured, Report, Request, tell_progress
from service.benchmarks.surfaces import made_surface

if TYPE_CHECKING:
    from inference.networks.finetune import FinetuneNet
    from inference.networks.slopes import SlopeNet

SURFACES = ("roughness, 20 deg", "facets of 20 to 55 deg", "terraces, 12 px walls")
SIZE, FRAMES, DOSE = 96, 8, 3_000.0
STEPS, QUICK_STEPS = 300, 150

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Adapted:
    """Of one surface before one instrument: errors before and after on a frame that was held out, and whether the
    scores, which know no truth, accepted the candidate."""

    surface: str
    instrument: str
    before: Accuracy
    after: Accuracy
    chi2: tuple[float, float]
    moved_sigma: float
    accepted: bool


def measure(request: Request) -> Report:
    """Rows of [adaptation], judged against the truth that the loop never sees."""
    try:
        found = _adapted(request)
    except ModuleNotFoundError as error:
        return Report({}, f"{error.name} is not installed: install the extra `train`")
    wrong, right = ([one for one in found if one.instrument == name] for name in ("mismatched", "true"))
    conditions = (
        f"{SIZE} px, {FRAMES} frames at N = {DOSE:g}, {QUICK_STEPS if request.quick else STEPS} steps each: "
        + _told(wrong)
    )
    rows = {
        "slope_error_removed_pct": Measured(_removed(wrong, "slope_error_deg"), conditions),
        "height_error_removed_pct": Measured(_removed(wrong, "height_error_m"), "median of the same surfaces"),
        "moved_true_instrument_sigma": Measured(
            float(np.median([one.moved_sigma for one in right])), f"the floor, the true instrument: {_told(right)}"
        ),
    }
    rows["recording_p99_vs_median"] = recording_row(request.quick)
    return Report(rows, table=_table(found))


def _adapted(request: Request) -> list[Adapted]:
    from inference.networks.finetune import load_finetune
    from inference.networks.weights import read_slopes
    from inference.training.mismatched import mismatched

    name = "unet" if request.models[0] == DEFAULT_MODEL else request.models[0]
    parent = read_slopes(find_model_set(name).graph("slopes"))
    gap = mismatched()
    finetune = load_finetune(MODELS / "finetune" / "finetune.pt")
    found = []
    for surface in SURFACES[:1] if request.quick else SURFACES:
        height_m = made_surface(surface, SIZE).heights_m
        for what, real, known in (("mismatched", gap.real, finetune), ("true", gap.stated, None)):
            tell_progress(f"adapting to {surface}, {what} instrument")
            steps = QUICK_STEPS if request.quick else STEPS
            found.append(_one(parent, surface, what, height_m, (real, gap.stated), known, steps))
    return found


def _one(
    parent: SlopeNet,
    surface: str,
    what: str,
    height_m: Floats,
    instruments: tuple[Instrument, Instrument],
    finetune: FinetuneNet | None,
    steps: int,
) -> Adapted:
    from inference.refinement.adapt import adapt

    real, stated = instruments
    rng = np.random.default_rng(23)
    frames = [_frame(render(height_m, real, rng, dose=DOSE), stated, number) for number in range(FRAMES)]
    found = adapt(parent, frames, stated, lambda done, total: None, finetune, steps)
    last = frames[found.held_out[-1]]
    before, after = (errors_of(net, last, stated, height_m) for net in (parent, found.net))
    chi2 = (found.before.chi2, found.after.chi2)
    return Adapted(surface, what, before, after, chi2, found.moved_sigma, found.verdict.accepted)


def _frame(images: NDArray[np.uint16], stated: Instrument, number: int) -> Frame:
    frame = frame_of(images, stated, "adaptation")
    return Frame(replace(frame.header, sequence=number), images)


def errors_of(net: SlopeNet, frame: Frame, stated: Instrument, height_m: Floats) -> Accuracy:
    """Of the surface that the slopes integrate to."""
    from inference.networks.poisson import integrate
    from inference.refinement.explaining import slopes_of, view_of

    p, q, _, _ = slopes_of(net, view_of(frame, stated))
    pixel_m = stated.scan.pixel_size_m
    return compare(integrate(p, q)[0].detach().numpy() * pixel_m, height_m, pixel_m)


def _removed(found: Sequence[Adapted], figure: str) -> float:
    if not found:
        raise BadInput("nothing was adapted")
    shares = [1.0 - getattr(one.after, figure) / getattr(one.before, figure) for one in found]
    return 100.0 * float(np.median(shares))


def _told(found: Sequence[Adapted]) -> str:
    return "; ".join(
        f"{one.surface} {one.before.slope_error_deg:.2f} -> {one.after.slope_error_deg:.2f}°, "
        f"{1e9 * one.before.height_error_m:.2f} -> {1e9 * one.after.height_error_m:.2f} nm, "
        f"moved {one.moved_sigma:.2f} sigma, {'accepted' if one.accepted else 'refused'}"
        for one in found
    )


def _table(found: Sequence[Adapted]) -> Table:
    table = Table(title="adaptation, judged on a frame that was held out")
    for heading in (
        "surface",
        "instrument",
        "slope error in °",
        "height error in nm",
        "left-out chi²",
        "moved",
        "verdict",
    ):
        table.add_column(heading)
    for one in found:
        table.add_row(
            one.surface,
            one.instrument,
            f"{one.before.slope_error_deg:.2f} -> {one.after.slope_error_deg:.2f}",
            f"{1e9 * one.before.height_error_m:.2f} -> {1e9 * one.after.height_error_m:.2f}",
            f"{one.chi2[0]:.3g} -> {one.chi2[1]:.3g}",
            f"{one.moved_sigma:.2f} sigma",
            "accepted" if one.accepted else "refused",
        )
    return table
