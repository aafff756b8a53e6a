"""Rows and their targets, the table for people and the JSON for programs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from acquisition.errors import BadInput
from inference.registry import DEFAULT_MODEL
from service.benchmarks.measured import Measured, NotMeasured, Report, Request

ROWS_FILE = Path(__file__).parent / "rows.toml"
WIDEST = 400

Benchmark = Callable[[bool, Path | None], Report]
"""Measures (quick or not, with a folder of real data or without); rows that it leaves out count as missed."""

Judge = Callable[[Request], Report]
"""Measures model sets; what it draws is what it measured."""

Drawing = Callable[[Path, bool, Path | None], list[Path]]
"""Draws pictures into a folder (quick or not, with a folder of real data or without) and returns their files."""


# A benchmark is imported when it runs: what it needs is slow to load and partly an extra.


def _imprint(quick: bool, data: Path | None) -> Report:
    from service.benchmarks import imprint

    return Report(imprint.measure(quick, data))


def _physics(quick: bool, data: Path | None) -> Report:
    from service.benchmarks import physics

    return Report(physics.measure(quick, data))


def _effects(quick: bool, data: Path | None) -> Report:
    from service.benchmarks import effects

    return Report(effects.measure(quick, data))


def _stream(quick: bool, data: Path | None) -> Report:
    from service.benchmarks import stream

    return stream.measure(quick)


def _recorder(quick: bool, data: Path | None) -> Report:
    from service.benchmarks import recorder

    return recorder.measure(quick)


def _page(request: Request) -> Report:
    from service.benchmarks import page

    return page.measure(request.quick, request.seconds)


def _live(request: Request) -> Report:
    from service.benchmarks import live

    return live.measure(request)


def _accuracy(request: Request) -> Report:
    from service.benchmarks import accuracy

    return accuracy.measure(request)


def _map(request: Request) -> Report:
    from service.benchmarks import beside_map

    return beside_map.measure(request)


def _integrators(request: Request) -> Report:
    from service.benchmarks import integrators

    return integrators.measure(request)


def _ablations(request: Request) -> Report:
    from service.benchmarks import ablations

    return ablations.measure(request)


def _lab(request: Request) -> Report:
    from service.benchmarks import lab

    return lab.measure(request)


def _loop(request: Request) -> Report:
    from service.benchmarks import loop

    return loop.measure(request)


def _metrology(request: Request) -> Report:
    from service.benchmarks import metrology

    return metrology.measure(request)


def _afm(request: Request) -> Report:
    from service.benchmarks import afm

    return afm.measure(request)


def _calibration(request: Request) -> Report:
    from service.benchmarks import calibration

    return calibration.measure(request)


def _labels(quick: bool, data: Path | None) -> Report:
    from service.benchmarks import labels

    return labels.measure(quick, data)


def _adaptation(request: Request) -> Report:
    from service.benchmarks import adaptation

    return adaptation.measure(request)


def _refinement(request: Request) -> Report:
    from service.benchmarks import refinement

    return refinement.measure(request)


def _effects_picture(folder: Path, quick: bool, data: Path | None) -> list[Path]:
    from service.benchmarks import effects

    return effects.draw(folder, quick, data)


def _vision_field(folder: Path, quick: bool, data: Path | None) -> list[Path]:
    from service.benchmarks import vision_field

    return vision_field.draw(folder, quick, data)


BENCHMARKS: Mapping[str, Benchmark] = {
    "stream": _stream,
    "recorder": _recorder,
    "imprint": _imprint,
    "physics": _physics,
    "effects": _effects,
    "labels": _labels,
}
JUDGES: Mapping[str, Judge] = {
    "live": _live,
    "page": _page,
    "accuracy": _accuracy,
    "map": _map,
    "integrators": _integrators,
    "ablations": _ablations,
    "adaptation": _adaptation,
    "lab": _lab,
    "loop": _loop,
    "metrology": _metrology,
    "afm": _afm,
    "calibration": _calibration,
    "refinement": _refinement,
}
UNDRAWN = ("live", "page", "map", "ablations", "adaptation", "metrology", "calibration", "refinement")
"""Judges whose figures are no pictures."""
DRAWINGS: Mapping[str, Drawing] = {"physics": _vision_field, "effects": _effects_picture}


def run_benchmark(
    what: str,
    quick: bool,
    json_file: Path | None,
    data: Path | None,
    pictures: Path | None = None,
    models: tuple[str, ...] = (),
    draws: int | None = None,
    seconds: float | None = None,
) -> None:
    """Measure, print, write the rows and draw pictures when asked to. `models`: sets of one recipe to judge, the first
    for the rows and the others for the spread; none is the default one. Raises `BadInput` for what isn't known."""
    if what not in (*BENCHMARKS, *JUDGES):
        raise BadInput(f"benchmark {what!r} is unknown; known: {', '.join((*BENCHMARKS, *JUDGES))}")
    drawn = [name for name in (*DRAWINGS, *JUDGES) if name not in UNDRAWN]
    if pictures is not None and what not in drawn:
        raise BadInput(f"benchmark {what!r} has no pictures; those that have: {', '.join(drawn)}")
    if models and (what not in JUDGES or what == "page"):
        raise BadInput(f"benchmark {what!r} judges no model set; those that do: {', '.join(set(JUDGES) - {'page'})}")
    if draws is not None and what != "calibration":
        raise BadInput(f"benchmark {what!r} draws nothing: --draws is for calibration")
    if seconds is not None and what != "page":
        raise BadInput(f"benchmark {what!r} takes the time that it needs: --seconds is for page")
    targets = tomllib.loads(ROWS_FILE.read_text(encoding="utf-8"))[what]
    report = _report(what, Request(quick, data, models or (DEFAULT_MODEL,), draws, seconds))
    nothing = NotMeasured(report.left_out) if report.left_out else None
    rows = [table_row(name, target, report.rows.get(name, nothing), quick) for name, target in targets.items()]
    if rows:
        _print(what, rows)
    if report.table is not None:
        console = Console()
        # A terminal that is too narrow wraps lines: better than figures cut short.
        wanted = console.measure(report.table, options=console.options.update(max_width=WIDEST)).maximum
        Console(width=max(console.width, wanted)).print(report.table)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if pictures is not None and report.draw is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for file in report.draw(pictures):
            Console().print(f"wrote {file}", highlight=False, soft_wrap=True)


def _report(what: str, request: Request) -> Report:
    if what in JUDGES:
        return JUDGES[what](request)
    quick, data, drawing = request.quick, request.data, DRAWINGS.get(what)
    draw = None if drawing is None else lambda folder: drawing(folder, quick, data)
    return replace(BENCHMARKS[what](quick, data), draw=draw)


def table_row(
    name: str, target: Mapping[str, Any], found: Measured | NotMeasured | None, quick: bool
) -> dict[str, Any]:
    """A row as the JSON has it. `target`: its entry in rows.toml. A row that wasn't measured doesn't hold."""
    row = {"name": name, "value": None, "unit": target["unit"], "target": target["target"]}
    if not isinstance(found, Measured):
        reason = "not measured with --quick" if quick and not target.get("quick") else "not measured"
        reason = reason if found is None else f"not measured: {found.reason}"
        return {**row, "peer": "", "peer_value": None, "ratio": None, "holds": False, "conditions": reason}
    limit = target["target"]
    holds = found.value <= limit if target["better"] == "lower" else found.value >= limit
    peer = {"peer": found.peer, "peer_value": found.peer_value, "ratio": found.ratio}
    return {**row, "value": found.value, **peer, "holds": holds, "conditions": found.conditions}


def _print(what: str, rows: list[dict[str, Any]]) -> None:
    console = Console()
    table = Table(title=f"eclips bench {what}")
    for heading in ("row", "value"):
        table.add_column(heading, no_wrap=True)
    for heading in ("unit", "target", "holds", "peer"):
        table.add_column(heading)
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.3g}"
        peer = row["peer"] if row["peer_value"] is None else f"{row['peer']}: {row['peer_value']:.3g}"
        table.add_row(row["name"], value, row["unit"], f"{row['target']:g}", "yes" if row["holds"] else "no", peer)
    console.print(table)
    for row in rows:
        console.print(f"{row['name']}: {row['conditions']}", highlight=False, markup=False)
