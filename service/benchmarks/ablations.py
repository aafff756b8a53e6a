"""`eclips bench ablations`: what each part of the method is good for, trained side by side on the same frames."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.table import Table

from service.benchmarks.measured import Measured, NotMeasured, Report, Request, tell_progress

SAMPLES, QUICK_SAMPLES = 2_000, 320

ROWS = {
    "physics_input_gain": ("slopes as they are", "slopes without physics input"),
    "scales_gain": ("slopes as they are", "slopes without scales"),
    "filter_gain": ("slopes without scales", "slopes without scales and filter"),
    "log_variance_gain": ("slopes as they are", "slopes without log-variance"),
    "hard_examples_gain": ("slopes as they are", "slopes without hard examples"),
    "muon_gain": ("slopes as they are", "slopes with AdamW"),
    "solver_gain": ("integrator as it is", "integrator as a pure network"),
}
DCT_ROW = "correction_gain"
SEEDS = ("slopes as they are", "slopes, seed 2", "slopes, seed 3")


def measure(request: Request) -> Report:
    """Rows of [ablations]: the error with a part over the error without it. Needs the extra `train`."""
    try:
        found = _errors(QUICK_SAMPLES if request.quick else SAMPLES)
    except ModuleNotFoundError as missing:
        return Report({}, left_out=f"{missing.name} is not installed: install eclips-live with the extra `train`")
    conditions = f"{QUICK_SAMPLES if request.quick else SAMPLES} frames each, judged on the same frames of another seed"
    seeds = f"three training seeds of slopes as they are: {', '.join(f'{found[name]:.3f}' for name in SEEDS)} deg"
    rows: dict[str, Measured | NotMeasured] = {
        row: Measured(
            found[with_it] / found[without],
            "; ".join([conditions, without, *([seeds] if without.startswith("slopes") else [])]),
            without,
            found[without],
        )
        for row, (with_it, without) in ROWS.items()
    }
    rows[DCT_ROW] = Measured(found["integrator as it is"], f"{conditions}; classical slopes", "pure DCT Poisson", 1.0)
    table = Table("variant", "error", title="ablations: degrees rms (slopes), height error over exact (integrators)")
    for name, error in found.items():
        table.add_row(name, f"{error:.3f}")
    return Report(rows, table=table)


def _errors(samples: int) -> dict[str, float]:
    from inference.training.ablations import own_folder, variants
    from inference.training.run import logged, train

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, variant in variants(samples).items():
            tell_progress(f"training: {name}")
            state = own_folder(Path(folder), name)
            train(variant.lesson, state, variant.recipe, 1, lambda done, total: None)
            found[name] = logged(state)[-1][variant.error]
            tell_progress(f"{name}: {found[name]:.3f}")
    return found
