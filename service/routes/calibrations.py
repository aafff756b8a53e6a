"""Calibrations: made from recorded runs as a task, kept, accepted as the instrument file or discarded."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from acquisition.errors import BadInput, RequestRefused
from acquisition.instrument import load_instrument
from service.auth import needs
from service.calibration_book import CalibrationBook
from service.own_program import told_by
from service.routes.runs import path_of
from service.routes.shared import Services, Wired, begun
from service.tasks import Report

router = APIRouter(prefix="/calibrations", tags=["calibrations"])

MOST_STEPS = 25
MOST_RUNS = 16


class Wanted(BaseModel):
    """`runs`: ids of recorded runs of still scenes; `samples` what a run shows, by its id (`flat:tilt_x=10deg`,
    `grating:pitch=2um,depth=200nm`, `vickers:hv_angle=136deg`); `dark` and `pairs`: runs of beam-blanked frames and of
    a still scene; `priors`: standard deviations that replace the stated ones; `frames` are averaged of each run."""

    model_config = ConfigDict(extra="forbid")
    runs: Annotated[list[str], Field(max_length=MOST_RUNS)] = []
    samples: dict[str, str] = {}
    dark: str | None = None
    pairs: str | None = None
    priors: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    frames: Annotated[int, Field(ge=1, le=64)] = 8


@router.post("", status_code=202, openapi_extra=needs("operate"))
def calibrate(wired: Wired, wanted: Wanted, response: Response) -> dict[str, Any]:
    """Calibrate on recorded runs; answers at once with a task, whose place is in `Location`.

    While it runs the task's `result` holds the newest `step`: values, standard errors and reduced chi squared. Done, it
    holds the candidate's `id`, to be accepted or discarded. It works in a program of its own, beside the live ones.
    """
    arguments = _arguments(wired, wanted)
    book = _book(wired)

    def work(report: Report, folder: Path) -> dict[str, Any]:
        out = folder / "instrument.toml"
        _carry_out([*arguments, "--out", str(out), "--json"], report)
        return book.add(load_instrument(out)).tree()

    named = [*wanted.runs, *(run for run in (wanted.dark, wanted.pairs) if run is not None)]
    return begun(wired.tasks.start("calibration", ", ".join(named), work), response)


@router.get("")
def calibrations(wired: Wired) -> list[dict[str, Any]]:
    """Every calibration that was made, the newest first: parameters with standard errors, their runs, its state."""
    return [entry.tree() for entry in _book(wired).all()]


@router.post("/{id}:accept", openapi_extra=needs("hardware", driving=True))
def accept(wired: Wired, id: str) -> dict[str, Any]:
    """Make it the instrument file of the settings; runs have it from the next start of the acquisition program on.

    The file that was there stays beside it as `.before`.
    """
    file = wired.settings.instrument
    if file is None:
        raise RequestRefused(
            'the settings name no instrument file, so there is none to replace: add `instrument = "mine.toml"` to '
            "them and start again",
            permitted=("discard",),
        )
    return _book(wired).accept(id, file).tree() | {"from": "the next start of the acquisition program"}


@router.post("/{id}:discard", openapi_extra=needs("operate"))
def discard(wired: Wired, id: str) -> dict[str, Any]:
    """Mark it as not to be used; it stays in the history."""
    return _book(wired).discard(id).tree()


def _book(wired: Services) -> CalibrationBook:
    runs = wired.settings.runs_folder
    return CalibrationBook(runs.with_name(f"{runs.name}-calibrations"))


def _arguments(wired: Services, wanted: Wanted) -> list[str]:
    if not wanted.runs and wanted.dark is None and wanted.pairs is None:
        raise BadInput("there is nothing to calibrate on: name runs, or dark and pairs")
    strangers = sorted(set(wanted.samples) - set(wanted.runs))
    if strangers:
        raise BadInput(f"samples name {', '.join(strangers)[:200]}, which is none of the runs given")
    folder = wired.settings.runs_folder
    arguments = [str(path_of(folder, run)) for run in wanted.runs]
    arguments += [f"--sample={run}={sample}" for run, sample in wanted.samples.items()]
    arguments += [f"--prior={name}={sigma}" for name, sigma in wanted.priors.items()]
    arguments += [
        f"--{name}={path_of(folder, run)}"
        for name, run in (("dark", wanted.dark), ("pairs", wanted.pairs))
        if run is not None
    ]
    if wired.settings.instrument is not None:
        arguments.append(f"--instrument={wired.settings.instrument}")
    return [*arguments, f"--frames={wanted.frames}"]


def _carry_out(arguments: list[str], report: Report) -> None:
    report(0, MOST_STEPS)
    with closing(told_by(["calibrate", *arguments])) as told:
        for tree in told:
            if "step" in tree:
                report(min(int(tree["step"]), MOST_STEPS), MOST_STEPS, {"step": tree})
