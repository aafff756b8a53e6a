"""The full table by family and dose, as text and CSV, and the pictures of one judgement."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median

import numpy as np
from rich.table import Table

from service.benchmarks.accuracy_rows import HONEST_INSIDE
from service.benchmarks.judged import CLASSICAL, FC, FITTED, SMOOTHED, Verdict
from service.benchmarks.judgement import Judgement, family_medians

COLUMNS = (
    "family",
    "dose",
    "cases",
    "occluded_cases",
    "method",
    "slope_error_deg",
    "slope_vs_classical",
    "slope_vs_oracle_smoothing",
    "height_over_std",
    "height_vs_classical",
    "drift_vs_fc",
    "inside_one_sigma",
    "resolved_px",
    "invented",
    "stated_by_sigma",
)
SHORT = {CLASSICAL: "cl.", SMOOTHED: "oracle", FC: "F.-C."}


def table(judgement: Judgement) -> Table:
    """A line for each family and dose, medians over its cases: slope errors relative to classical by method."""
    methods = [name for name in judgement.verdicts[0].figures if name != CLASSICAL]
    found = Table(
        title="by family and dose: slope error against classical's; height error over std; inside 1 sigma; finest "
        "period resolved; power invented, and in error as the sigmas say"
    )
    found.add_column("family", no_wrap=True)
    headings = ["N", "cases", "cl. deg", *(SHORT.get(name, name) for name in methods)]
    for heading in (*headings, "cl. height %", "height %", "inside %", "res. px", "inv. %", "said %"):
        found.add_column(heading, justify="right")
    for (family, dose), cases in _groups(judgement).items():
        details = zip(*(one.detail[judgement.model] for one in cases), strict=True)
        resolved, invented, stated = (median(values) for values in details)
        heights = (100.0 * _median(cases, name, "height_over_std") for name in (CLASSICAL, judgement.model))
        inside = 100.0 * median(one.coverage[judgement.model].inside for one in cases)
        found.add_row(
            family,
            f"{dose:.0f}",
            f"{len(cases)}",
            f"{_median(cases, CLASSICAL, 'slope_deg'):.2f}",
            *(f"{median(one.ratio(name) for one in cases):.2f}" for name in methods),
            *(f"{height:.2f}" for height in heights),
            f"{inside:.0f}",
            f"{resolved:.1f}",
            f"{100.0 * invented:.1f}",
            f"{100.0 * stated:.1f}",
        )
    return found


def draw(folder: Path, judgement: Judgement) -> list[Path]:
    """Writes `accuracy.csv`, `worst_cases.png`, `error_against_dose.png`, `facet_angles.png`, `coverage.png` and
    `invented_structure.png`."""
    files = (_write_csv, _draw_worst, _draw_doses, _draw_facets, _draw_coverage, _draw_invented)
    return [write(folder, judgement) for write in files]


def _groups(judgement: Judgement) -> dict[tuple[str, float], list[Verdict]]:
    found: dict[tuple[str, float], list[Verdict]] = {}
    for one in judgement.verdicts:
        found.setdefault((one.family, one.dose), []).append(one)
    return found


def _median(cases: list[Verdict], method: str, figure: str) -> float:
    return median(float(getattr(one.figures[method], figure)) for one in cases)


def _write_csv(folder: Path, judgement: Judgement) -> Path:
    """A line for each family, dose and method: medians over the cases."""
    path = folder / "accuracy.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        for (family, dose), cases in _groups(judgement).items():
            occluded = sum(one.occluded for one in cases)
            for method in cases[0].figures:
                inside = [one.coverage[method].inside for one in cases if method in one.coverage]
                numbers = (
                    _median(cases, method, "slope_deg"),
                    median(one.ratio(method) for one in cases),
                    median(one.ratio(method, SMOOTHED) for one in cases),
                    _median(cases, method, "height_over_std"),
                    median(one.figures[method].height_px / one.figures[CLASSICAL].height_px for one in cases),
                    median(one.figures[method].drift / one.figures[FC].drift for one in cases),
                )
                told = [f"{number:.5g}" for number in numbers] + [f"{median(inside):.4f}" if inside else ""]
                details = [one.detail[method] for one in cases if method in one.detail]
                told += [f"{median(values):.4g}" for values in zip(*details, strict=True)] or ["", "", ""]
                lines.writerow([family, f"{dose:g}", len(cases), occluded, method, *told])
    return path


def _draw_worst(folder: Path, judgement: Judgement) -> Path:
    """Image, true and found height on one scale, and where the normals are wrong."""
    import matplotlib.pyplot as plt

    shown = sorted(judgement.worst.values(), key=lambda one: (one.ratio, one.slope_deg), reverse=True)
    figure, axes = plt.subplots(len(shown), 4, figsize=(12, 3 * len(shown)), layout="constrained", squeeze=False)
    for row, one in zip(axes, shown, strict=True):
        low, high = np.percentile(one.truth, [0.5, 99.5])
        dark, bright = np.percentile(one.image, [0.5, 99.5])
        row[0].imshow(one.image, cmap="gray", vmin=dark, vmax=bright)
        true = row[1].imshow(one.truth, cmap="viridis", vmin=low, vmax=high)
        row[2].imshow(one.found - one.found.mean() + one.truth.mean(), cmap="viridis", vmin=low, vmax=high)
        error = row[3].imshow(one.error_deg, cmap="magma", vmin=0.0, vmax=max(3.0 * one.slope_deg, 0.1))
        figure.colorbar(true, ax=row[2], label="px")
        figure.colorbar(error, ax=row[3], label="°")
        titles = (one.name, "true height", "found height", f"{one.slope_deg:.2f}° rms, {one.ratio:.2f} of classical")
        for axis, title in zip(row, titles, strict=True):
            axis.set_title(title, fontsize="small")
            axis.set_xticks([])
            axis.set_yticks([])
    figure.suptitle(f"worst cases of {judgement.model}")
    return _saved(figure, folder / "worst_cases.png")


def _draw_doses(folder: Path, judgement: Judgement) -> Path:
    """Medians over the families; the middle half of the families as a band for classical and for the judged set."""
    import matplotlib.pyplot as plt

    doses = judgement.doses()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, wanted in zip(axes, ("slope_deg", "height_over_std"), strict=True):
        for method in judgement.verdicts[0].figures:
            families = [_of_families(judgement, dose, method, wanted) for dose in doses]
            ours = method in judgement.models
            line = "-" if ours or method == CLASSICAL else "--"
            (drawn,) = axis.loglog(doses, [median(one) for one in families], line, marker="o", ms=3, label=method)
            if method in (CLASSICAL, judgement.model):
                bands = np.array([np.quantile(one, [0.25, 0.75]) for one in families])
                axis.fill_between(doses, bands[:, 0], bands[:, 1], color=drawn.get_color(), alpha=0.15, lw=0)
    axes[0].set(xlabel="N, detected electrons per pixel", ylabel="slope error, °", title="median over families")
    axes[1].set(xlabel="N, detected electrons per pixel", ylabel="height error / std", title="plane removed")
    axes[0].legend(fontsize="small")
    return _saved(figure, folder / "error_against_dose.png")


def _of_families(judgement: Judgement, dose: float, method: str, figure: str) -> list[float]:
    by_family = family_medians(judgement.of_families(dose), lambda one: float(getattr(one.figures[method], figure)))
    return list(by_family.values())


def _draw_facets(folder: Path, judgement: Judgement) -> Path:
    """What is measured minus what is true, every facet a point and every surface's mean a cross."""
    import matplotlib.pyplot as plt

    doses = sorted({one.dose for one in judgement.of_special("facet")})
    figure, axes = plt.subplots(1, len(doses), figsize=(11, 4), layout="constrained", sharey=True, squeeze=False)
    for axis, dose in zip(axes[0], doses, strict=True):
        methods = dict.fromkeys((CLASSICAL, judgement.model, FITTED))
        for method, colour in zip(methods, ("gray", "tab:red", "tab:blue")[-len(methods) :], strict=True):
            for one in judgement.of_special("facet", dose):
                true, found = one.known["angle_deg"], one.facets_deg[method]
                label = method if one is judgement.of_special("facet", dose)[0] else None
                axis.plot(np.full(len(found), true), found - true, ".", ms=2, color=colour, alpha=0.4)
                axis.plot(true, np.nanmean(found) - true, "x", color=colour, label=label)
        for low_index in (35.26, 45.0, 54.74):
            axis.axvline(low_index, color="black", lw=0.5, ls=":")
        axis.axhline(0.0, color="black", lw=0.5)
        axis.set(xlabel="true facet angle, °", title=f"N = {dose:.0f}, facets of 8 px, beam 1 px")
    axes[0, 0].set_ylabel("measured minus true, °")
    axes[0, 0].legend(fontsize="small")
    return _saved(figure, folder / "facet_angles.png")


def _draw_coverage(folder: Path, judgement: Judgement) -> Path:
    """Share of the true slope errors within one stated sigma, by family and dose."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(11, 4), layout="constrained")
    doses = judgement.doses()
    for place, dose in enumerate(doses):
        shares = family_medians(judgement.of_families(dose), lambda one: 100.0 * one.coverage[judgement.model].inside)
        x = np.arange(len(shares)) + 0.12 * (place - 0.5 * (len(doses) - 1))
        axis.plot(x, list(shares.values()), "o", ms=4, label=f"N = {dose:.0f}")
        axis.set_xticks(np.arange(len(shares)), list(shares), rotation=30, ha="right")
    axis.axhspan(100.0 * HONEST_INSIDE - 5.0, 100.0 * HONEST_INSIDE + 5.0, color="tab:green", alpha=0.15, lw=0)
    axis.set(ylabel="errors within 1 sigma, %", ylim=(0, 100), title=f"slopes of {judgement.model}")
    axis.legend(fontsize="small", ncols=len(doses))
    return _saved(figure, folder / "coverage.png")


def _draw_invented(folder: Path, judgement: Judgement) -> Path:
    """Down to which scale the relief is the surface's, and how much of it is not, as it is and as the sigmas say."""
    import matplotlib.pyplot as plt

    doses = judgement.doses()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for method, colour in zip(dict.fromkeys((CLASSICAL, judgement.model)), ("gray", "tab:red"), strict=False):
        medians = [
            [median(values) for values in zip(*(one.detail[method] for one in relief), strict=True)]
            for relief in ([one for one in judgement.of_families(dose) if one.family != "flat"] for dose in doses)
        ]
        resolved, invented, stated = zip(*medians, strict=True)
        axes[0].loglog(doses, resolved, marker="o", ms=3, color=colour, label=method)
        axes[1].loglog(doses, invented, marker="o", ms=3, color=colour, label=f"{method}: invented")
        axes[1].loglog(doses, stated, "--", color=colour, label=f"{method}: error, as its sigmas say")
    axes[0].set(ylabel="finest period that correlates with the truth, pixels", title="median over all relief")
    axes[1].set(ylabel="part of the found slopes' power", title="not the surface's")
    for axis in axes:
        axis.set_xlabel("N, detected electrons per pixel")
        axis.legend(fontsize="small")
    return _saved(figure, folder / "invented_structure.png")


def _saved(figure: object, path: Path) -> Path:
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
