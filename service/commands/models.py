"""`eclips models`: what is installed, and another set for the workers that run."""

from __future__ import annotations

from typing import Annotated

import typer

from acquisition.errors import BadInput
from acquisition.model_choice import PATIENCE_S
from inference.registry import list_model_sets
from service.commands.shared import AsJson, Config, TakeOver, driving, say, say_json
from service.settings import load_settings


def add_to(app: typer.Typer) -> None:
    app.command()(models)


def models(
    use: Annotated[
        str | None, typer.Option("--use", help="Have the running workers use this set; no frame is lost.")
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Have them go back to the set before.")] = False,
    config: Config = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """The model sets that are installed, with what their cards say; or another one for the workers that run.

    A worker loads it beside the one in use and tries it on the newest frame; where that fails, nothing changes. It
    holds until the programs end; `[inference] model` of the settings is what they begin with.

    Example: eclips models --use unet
    """
    if use is not None and rollback:
        raise BadInput("--use names a set and --rollback means the one before: leave one of the two out")
    if use is not None or rollback:
        name, arguments = ("roll_back_model", {}) if use is None else ("use_model", {"name": use})
        with driving(load_settings(config), "models", take_over=take_over) as node:
            told = node.call(name, arguments, PATIENCE_S + 5.0)
        say_json(told) if as_json else say(f"model set {told['active']} is in use; {told['before']} was before")
        return
    cards = list_model_sets(*load_settings(config).model_folders)
    if as_json:
        say_json([card.tree() for card in cards])
        return
    for card in cards:
        say(f"{card.name}: {card.description}")
        for slot, part in card.parts.items():
            learned = f", {part.hours:.1f} h" if part.hours else ""
            say(f"  {slot:10s} `{part.command}`{learned}; sha256 {part.sha256[:12]}")
            for figure, value in part.figures.items():
                say(f"    {figure:20s} {value:.4g}")
