"""`eclips bench accuracy`: one pass over the fixed test set, every method's final height map against the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from inference.registry import MODELS, find_model_set, list_model_sets
from inference.training.held_out import Scene
from service.benchmarks import accuracy_rows
from service.benchmarks.beside_map import network_vs_map
from service.benchmarks.crosschecks import CYCLE_DOSE, cycle
from service.benchmarks.judged import CLASSICAL, SPECIAL, judge, model_sets, seen_cases
from service.benchmarks.judgement import Judgement
from service.benchmarks.measured import Measured, NotMeasured, Report, Request, tell_progress

VFT_WEIGHTS = MODELS / "vft" / "vft.pt"
FINETUNE_WEIGHTS = MODELS / "finetune" / "finetune.pt"
SURROGATE_ROWS = ("dsm_rms_pct", "dsm_contrast_error_pct", "vft_rms_pct", "vft_contrast_error_pct")


def _fusion(model: str, quick: bool) -> Measured | NotMeasured:
    if quick:
        return NotMeasured("not measured with --quick")
    from service.benchmarks.fusion import fusion_16_vs_16x_dose

    return fusion_16_vs_16x_dose(model, quick)


def _draw(folder: Path, judgement: Judgement, quick: bool) -> list[Path]:
    from service.benchmarks import accuracy_pictures, fusion

    found = accuracy_pictures.draw(folder, judgement)
    return found if quick else [*found, *fusion.draw(folder, judgement.model)]


def _of_surrogates(row: str, model: str, quick: bool) -> Measured | NotMeasured:
    if quick and row != "dsm_rms_pct":
        return NotMeasured("not measured with --quick")
    name, learned = ("vft", VFT_WEIGHTS.is_file()) if row.startswith("vft") else (model, _learned(model, "rerender"))
    if not learned:
        return NotMeasured(f"not trained here: eclips train {row[:3]}")
    if find_spec("torch") is None:
        return NotMeasured("needs torch: install eclips-live with the extra `train`")
    from service.benchmarks import surrogates

    measured: Measured = getattr(surrogates, row)(name, quick)
    return measured


def _finetuned(model: str, quick: bool) -> Measured | NotMeasured:
    if quick:
        return NotMeasured("not measured with --quick")
    if not FINETUNE_WEIGHTS.is_file():
        return NotMeasured("not trained here: eclips train finetune")
    if find_spec("torch") is None:
        return NotMeasured("needs torch: install eclips-live with the extra `train`")
    from service.benchmarks import finetuned

    return finetuned.finetune_gap_removed(quick, FINETUNE_WEIGHTS)


def _learned(model: str, slot: str) -> bool:
    return find_model_set(model).parts[slot].hours > 0


FROM_OTHERS: Mapping[str, Callable[[str, bool], Measured | NotMeasured]] = {
    "fusion_16_vs_16x_dose": _fusion,
    **{row: partial(_of_surrogates, row) for row in SURROGATE_ROWS},
    "finetune_gap_removed": _finetuned,
}
"""Rows that a module of their own measures, by name: called with the set's name and whether to be quick."""


def measure(request: Request) -> Report:
    """Rows of [accuracy] for the first of the request's sets. Real maps come from `data`/afm and are one family
    together. A set that is not installed leaves all rows unmeasured; another seed that is not is left out, and told.

    Raises `BadInput` for a data folder without usable maps.
    """
    from service.benchmarks import accuracy_pictures

    usable, missing = installed(request.models)
    if request.models[0] not in usable:
        return Report({}, left_out=missing)
    judgement = judged(request._replace(models=usable))
    rows: dict[str, Measured | NotMeasured] = dict(accuracy_rows.rows(judgement, request.quick, missing))
    if not request.quick:
        rows["network_vs_map"] = network_vs_map(request)
    for name, other in FROM_OTHERS.items():
        tell_progress(name)
        rows[name] = other(judgement.model, request.quick)
    table = accuracy_pictures.table(judgement)
    return Report(rows, table=table, draw=lambda folder: _draw(folder, judgement, request.quick))


def judged(request: Request) -> Judgement:
    """The pass itself; the request's sets are installed."""
    judgement, sets = Judgement(request.models), model_sets(request.models)
    looked_at: set[tuple[str, float]] = set()
    for seen in seen_cases(request.data, request.quick, sets, lambda scene: _is_wanted(scene, request.quick)):
        verdict, seen = judge(seen, sets[CLASSICAL], request.quick)
        judgement.verdicts.append(verdict)
        judgement.keep_if_bad(verdict, seen)
        first = (verdict.family, verdict.dose)
        if request.quick or verdict.family in SPECIAL or first in looked_at:
            continue
        looked_at.add(first)
        if verdict.dose == CYCLE_DOSE:
            for name, model in sets.items():
                judgement.cycles.setdefault(name, []).append(cycle(seen, model))
    return judgement


def installed(models: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Those of them that are, in their order, and in words what is missing."""
    known = {card.name for card in list_model_sets()}
    missing = [name for name in models if name not in known]
    told = ", ".join(f"model set {name} is not installed" for name in missing)
    return tuple(name for name in dict.fromkeys(models) if name in known), told


def _is_wanted(scene: Scene, quick: bool) -> bool:
    """Chirps and known spectra belong to rows that take the full run."""
    return not quick or scene.family not in ("chirp", "known_spectrum")
