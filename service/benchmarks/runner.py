"""Rows and their targets, the table for people and the JSON for programs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from acquisition.errors import BadInput
from service.benchmarks import imprint, live

ROWS_FILE = Path(__file__).parent / "rows.toml"

Benchmark = Callable[[bool, Path | None], Mapping[str, tuple[float, str]]]
"""Measures (quick or not, with a folder of real data or without) and returns value and conditions by row name; rows
that it leaves out count as missed."""

BENCHMARKS: Mapping[str, Benchmark] = {"live": live.measure, "imprint": imprint.measure}


def run_benchmark(what: str, quick: bool, json_file: Path | None, data: Path | None) -> None:
    """Measure, print, and write the rows when asked to."""
    if what not in BENCHMARKS:
        raise BadInput(f"benchmark {what!r} is unknown; known: {', '.join(BENCHMARKS)}")
    targets = tomllib.loads(ROWS_FILE.read_text(encoding="utf-8"))[what]
    measured = BENCHMARKS[what](quick, data)
    rows = [_row(name, target, measured.get(name), quick) for name, target in targets.items()]
    _print(what, rows)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _row(name: str, target: Mapping[str, Any], found: tuple[float, str] | None, quick: bool) -> dict[str, Any]:
    row = {"name": name, "unit": target["unit"], "target": target["target"], "peer": "", "peer_value": None}
    if found is None:
        reason = "not measured with --quick" if quick else "not measured"
        return {**row, "value": None, "ratio": None, "holds": False, "conditions": reason}
    value, conditions = found
    holds = value <= target["target"] if target["better"] == "lower" else value >= target["target"]
    return {**row, "value": value, "ratio": None, "holds": holds, "conditions": conditions}


def _print(what: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"eclips bench {what}")
    table.add_column("row", no_wrap=True)
    for heading in ("value", "unit", "target", "holds", "conditions"):
        table.add_column(heading)
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.3g}"
        holds = "yes" if row["holds"] else "no"
        table.add_row(row["name"], value, row["unit"], f"{row['target']:g}", holds, row["conditions"])
    Console().print(table)
