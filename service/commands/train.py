"""`eclips train`: build the networks, stop and go on at any time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from acquisition.errors import BadInput
from inference.registry import CARD, MODELS
from service.commands.shared import progress_bar, say


def add_to(app: typer.Typer) -> None:
    app.command()(train)


def train(
    net: Annotated[str, typer.Argument(help="classical, slopes, pinn, dsm, vft or finetune.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the model sets.")] = MODELS,
    name: Annotated[str, typer.Option("--name", help="Name of the set that it becomes part of.")] = "unet",
    state: Annotated[Path | None, typer.Option("--state", help="Folder of the run; it goes on there.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=64, help="Simulated frames in all.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of weights and frames.")] = 1,
    minutes: Annotated[float, typer.Option("--minutes", help="Stop by then; call again to go on.")] = math.inf,
    processes: Annotated[int, typer.Option("--processes", min=0, help="That make frames meanwhile.")] = 1,
    instrument: Annotated[
        Path | None, typer.Option("--instrument", help="File of the instrument that finetune learns; else an example.")
    ] = None,
    labels: Annotated[
        list[Path] | None, typer.Option("--labels", help="Labelled frames of `eclips label`; may be repeated.")
    ] = None,
    labels_share: Annotated[float, typer.Option("--labels-share", help="Of labelled frames among all.")] = 0.25,
    quick: Annotated[bool, typer.Option("--quick", help="A small network in about a minute.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Nothing is trained: write the installed graph anew from its weights.")
    ] = False,
) -> None:
    """Train a network and put it into a model set; needs the extra `train`.

    The run's folder holds its log (log.jsonl) and a picture of it (progress.png), drawn anew every two minutes.
    finetune learns what one instrument does beyond the model, from the [effects] and beam tail of its file.
    slopes and pinn also learn from frames that `eclips label` has labelled, beside the simulated ones.
    Example: eclips train slopes --state ~/slopes-run --minutes 60
    Example: eclips train slopes --again --name unet
    """
    try:
        if net == "classical":
            from inference.training.classical import export_classical

            for path in export_classical(out / net):
                say(f"wrote {path}")
            return
        from inference.training.nets import find_net, train_and_install, write_again

        if again:
            card = write_again(net, out, name)
            say(f"wrote {card.graph(find_net(net).slot)}: the same weights, sha256 in {card.folder / CARD}")
            return

        known = find_net(net)
        recipe = replace(known.quick if quick else known.recipe, seed=seed)
        recipe = replace(recipe, samples=samples or recipe.samples)
        folder = state or Path("training") / f"{instrument.stem if instrument else name}-{net}"
        with progress_bar(f"training {net}") as progress:
            until_s = 60.0 * minutes
            card = train_and_install(
                net, folder, recipe, out, name, processes, progress, until_s, instrument, labels or (), labels_share
            )
    except ModuleNotFoundError as error:
        raise BadInput(f"{error.name} is not installed: install eclips-live with the extra `train`") from error
    say(f"wrote {card.folder}; the run is in {folder}; on frames that were never trained on:")
    for what, value in card.parts[known.slot].figures.items():
        say(f"  {what:20s} {value:.4g}")
