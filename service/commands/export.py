"""A run in a file for other programs, and as a page for people."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from acquisition.errors import BadInput
from service import exports
from service.commands.shared import RunArgument, progress_bar, say
from service.report import write_report
from service.report.facts import TRACK
from service.report.printing import print_pdf

Format = StrEnum("Format", {name.replace("-", "_"): name for name in exports.FORMATS})  # type: ignore[misc]


def add_to(app: typer.Typer) -> None:
    for command in (export, report):
        app.command()(command)


def export(
    run: RunArgument,
    format: Annotated[Format, typer.Option("--format", help="What to write.")],
    out: Annotated[Path, typer.Option("--out", help="File to write; a new folder for ome-zarr.")],
    frame: Annotated[int | None, typer.Option("--frame", min=0, help="One frame alone, by sequence number.")] = None,
) -> None:
    """Write a run's heights, or one frame's, for other programs; zip is the run as it is. gsf, stl and ply hold one
    height: the last, or --frame. ome-zarr and mp4 need the extra `exports`.

    Example: eclips export spiral --format gwy --frame 3 --out spiral.gwy
    """
    try:
        with progress_bar("exporting") as progress:
            exports.export(run, cast(exports.Format, str(format)), out, progress, frame)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error}") from error
    say(f"wrote {out}")


def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option("--out", help="HTML file to write; else RUN-report.html here.")] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print it to a PDF of that name too, by Chromium.")] = False,
) -> None:
    """Write a run as one HTML page for the notebook: settings, calibration, heights, areal parameters with their
    scatter, state, figures, models, events. It needs no network, and prints to PDF from any browser.

    Example: eclips report spiral --out spiral.html
    """
    page = Path(f"{run.resolve().name}-report.html") if out is None else out
    with progress_bar("measuring") as progress:
        write_report(run, page, progress)
    say(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if pdf:
        print_pdf(page, paper := page.with_suffix(".pdf"))
        say(f"wrote {paper} ({paper.stat().st_size / 1e6:.1f} MB)")
    if not (run / TRACK).exists():
        say(f"without motion: `eclips track {run}` first adds drift, steps, spirals and velocities")
