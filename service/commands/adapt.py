"""`eclips adapt`: a model set fitted to the frames of one instrument and session, without any truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from acquisition.errors import BadInput
from acquisition.instrument import load_instrument
from inference.registry import MODELS
from service.commands.new_recordings import InstrumentFile
from service.commands.shared import Config, RunArgument, progress_bar, say
from service.settings import load_settings


def add_to(app: typer.Typer) -> None:
    app.command()(adapt)


def adapt(
    run: RunArgument,
    model: Annotated[str, typer.Option("--model", help="Set to begin with; its slopes must be learned.")] = "unet",
    out: Annotated[str | None, typer.Option("--out", help="Name of the new set; else SET-RUN.")] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0.0, help="Stop by then.")] = 5.0,
    finetune: Annotated[
        Path | None, typer.Option("--finetune", help="Weights of finetune of this instrument (.pt).", exists=True)
    ] = None,
    instrument: InstrumentFile = None,
    config: Config = None,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of sets of your own; else the settings'.")
    ] = None,
    into: Annotated[Path | None, typer.Option("--into", help="Folder for the new set, elsewhere.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per line: progress, then result.")] = False,
) -> None:
    """Fit the slope network of a set to a run's frames, and install it as a new set only if it is better.

    Judged on frames that it was not adapted on: each segment predicted from the others. Where it isn't better by more
    than the scatter of that, where the frames show nothing, or a segment is broken, the reason is told and nothing is
    installed. Needs the extra `train`.

    Example: eclips adapt spiral --model unet --minutes 10 --out unet-spiral
    """
    name = out or f"{model}-{run.resolve().name}"
    own = models or load_settings(config).own_models_folder
    folder = (into or own) / name
    if Path(name).name != name or folder.exists() or (MODELS / name).exists():
        raise BadInput(f"--out {name!r} is there already or no plain name: sets are never overwritten, choose another")
    try:
        from inference.refinement.adapted_set import Asked, adapt_to_run, install
    except ModuleNotFoundError as error:
        raise BadInput(f"{error.name} is not installed: install eclips-live with the extra `train`") from error
    base = None if instrument is None else load_instrument(instrument)
    asked = Asked(run, model, 60.0 * minutes, base, finetune, (MODELS, own))
    if as_json:
        found = adapt_to_run(asked, lambda done, total: say(json.dumps({"done": done, "total": total})))
    else:
        with progress_bar(f"adapting {model}") as progress:
            found = adapt_to_run(asked, progress)
    if found.verdict.accepted:
        more = f" --finetune {finetune}" if finetune else ""
        install(found, asked, folder, f"eclips adapt {run.name} --model {model} --minutes {minutes:g}{more}")
    if as_json:
        say(json.dumps({"result": found.tree() | {"name": name if found.verdict.accepted else None, "parent": model}}))
        return
    say(f"{found.steps} steps in {found.seconds:.0f} s on {len(found.adapted_on)} frames of {run}, judged on others:")
    for what, scores in (("before", found.before), ("after", found.after), ("a plane", found.flat)):
        told = scores.tree()
        say(f"  {what:8s} left-out chi² {told['left_out_chi2']:.4g}, whole frames {told['consistency_chi2']:.4g}")
    say(f"slopes moved by {found.moved_sigma:.2g} of their sigma")
    for one in found.left_out_frames:
        say(f"not used: {one}")
    if found.verdict.accepted:
        say(f"installed {folder}; use it with `eclips models --use {name}`: {found.verdict.reason}")
    else:
        say(f"nothing was installed: {found.verdict.reason}")
