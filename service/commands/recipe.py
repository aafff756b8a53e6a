"""`eclips recipe`: rehearse a recipe, or run one on the acquisition node and follow it to its end."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from acquisition.errors import BadInput, EclipsError, RequestRefused
from acquisition.recipes.parsing import read_recipe
from acquisition.recipes.runner import ACTIVE
from acquisition.recipes.steps import Recipe
from acquisition.rehearsal import Timeline
from service import wiring
from service.commands.shared import AsJson, Config, Driving, TakeOver, driving, progress_bar, say, say_json
from service.settings import Settings, load_settings
from service.timeline_picture import draw_timeline

FOLLOW_INTERVAL_S = 0.5
ABORT_DEADLINE_S = 10.0
QUIET = ("setpoint", "hold", "transition")


def add_to(app: typer.Typer) -> None:
    app.command()(recipe)


def recipe(
    file: Annotated[Path, typer.Argument(help="Recipe (TOML or JSON).", exists=True, dir_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="On the simulated lab, in leaping time.")] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw the dry run's timeline into this file (PNG).")
    ] = None,
    config: Config = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe on the acquisition node and follow it; Ctrl-C aborts it, into the safe state.

    At a terminal the command counts as a controlling program, whose going takes the laser off after the operator's
    countdown; without one, keep a page open.

    Example: eclips recipe oxidation.toml --dry-run --picture oxidation.png
    """
    settings = load_settings(config)
    wanted = read_recipe(file)
    if picture is not None and not dry_run:
        raise BadInput("--picture draws a dry run: add --dry-run")
    if dry_run:
        _rehearse(settings, wanted, picture, as_json)
        return
    tree = _run(settings, wanted, take_over=take_over)
    if as_json:
        say_json(tree)
    if tree["state"] != "finished":
        raise EclipsError(f"recipe {wanted.name} {tree['state']} at {tree['reason']}")


def _rehearse(settings: Settings, wanted: Recipe, picture: Path | None, as_json: bool) -> None:
    timeline = wiring.dry_run(settings, wanted)
    if picture is not None:
        draw_timeline(timeline, picture)
    say_json(asdict(timeline)) if as_json else _tell(timeline)
    if timeline.state != "finished":
        raise EclipsError(f"the dry run of {timeline.name} {timeline.state} at {timeline.reason}")


def _tell(timeline: Timeline) -> None:
    for told in timeline.events:
        if told.name not in QUIET:
            say(f"{told.time_s:8.1f} s  {'' if told.severity == 'info' else told.severity.upper() + ' '}{told.text}")
    for timeout in timeline.timeouts:
        say(f"timeout: {timeout}")
    for quantity, unit in (("temperature_k", "K"), ("pressure_pa", "Pa")):
        for channel, (_, values) in timeline.channels.items():
            valid = [value for value in values if value is not None]
            if channel.endswith(f".{quantity}") and valid:
                say(f"{channel}: {min(valid):.4g} to {max(valid):.4g} {unit}")
    say(f"dry run of {timeline.name}: {timeline.state} after {timeline.duration_s:.0f} s; nothing real was touched")


def _run(settings: Settings, wanted: Recipe, *, take_over: bool) -> dict[str, Any]:
    with driving(settings, "recipe", take_over=take_over) as node:
        node.call("recipe_start", {"recipe": wanted.tree()})
        try:
            return _follow(node, wanted)
        except KeyboardInterrupt:
            unverified = node.call("recipe_abort", deadline_s=ABORT_DEADLINE_S)["unverified"]
            for complaint in unverified:
                say(f"NOT SAFE: {complaint}")
            if not unverified:
                say("aborted: laser, gas and scan were brought to rest and read back")
            raise typer.Exit(130) from None


def _follow(node: Driving, wanted: Recipe) -> dict[str, Any]:
    """One line for each step, a bar for the whole; the recipe's tree once it has ended. A recipe goes on also where
    somebody else takes over."""
    attended, told, drives = sys.stdin.isatty(), -1, True
    if not attended:
        say("nobody is at this terminal: keep a page open, or the laser goes off when the operator's countdown ends")
    with progress_bar(wanted.name) as show:
        while True:
            if attended:
                node.call("heartbeat")
            if drives:
                try:
                    node.hold()
                except RequestRefused as error:
                    drives = False
                    say(f"{error}; the recipe goes on")
            tree: dict[str, Any] = node.call("status")["recipe"]
            if tree.get("name") != wanted.name:
                raise BadInput(f"the node runs another recipe by now: {tree.get('name')}")
            if tree["step"] != told:
                told = tree["step"]
                say(f"step {told} of {tree['steps']}: {tree['doing']} ({tree['left_s']:.0f} s known to be left)")
            show(tree["step"], tree["steps"])
            if tree["state"] not in ACTIVE:
                say(f"recipe {wanted.name} {tree['state']}" + (f": {tree['reason']}" if tree["reason"] else ""))
                return tree
            time.sleep(FOLLOW_INTERVAL_S)
