"""The command `eclips`. Bad input ends with one clear line and a status above zero."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from acquisition.errors import EclipsError
from service.logs import tell_terminal

log = logging.getLogger(__name__)

COMMANDS = {
    "up": ("live", "Acquire, infer and serve on this machine, supervised; acquiring and recording start at once."),
    "acquire": ("live", "The part beside the instruments: devices, run, recording, interlocks, stream."),
    "infer": ("live", "The part beside the GPU: asks the node for frames, hands heights back."),
    "serve": ("live", "The part beside the people: page, REST and WebSockets."),
    "replay": ("live", "Play a recording through the live stream, page included; ends with the recording."),
    "step": ("live", "Let the replay that runs at speed `step` play one more frame."),
    "seek": ("live", "Let a replay go on at another frame, which is played at once."),
    "recipe": ("recipe", "Run a recipe on the acquisition node and follow it; Ctrl-C aborts it, into the safe state."),
    "import": ("recordings", "Take image files of any microscope into a recording."),
    "simulate": ("recordings", "Record a run of the simulated microscope with its truth, as fast as it computes."),
    "verify": ("recordings", "Check every checksum and count of a run; ends with status 1 when something is wrong."),
    "repair": ("recordings", "Cut torn tails, rebuild what can be rebuilt, say what is lost."),
    "reprocess": ("recordings", "Reconstruct a recording again; where truth is there, print the errors."),
    "picture": ("recordings", "Draw a height map of a run, levelled on its surroundings"),
    "measure": ("measure", "Measure on the heights of a run: step height and angles along a line"),
    "track": ("track", "Measure drift, steps, spirals, step velocities and kinetics over all frames of a run."),
    "figure": ("track", "Simulate, reconstruct, measure and draw, all in one."),
    "compare": ("compare", "Lay a frame over an AFM's map of the same place"),
    "label": ("label", "Lay an AFM's map over a frame, take out its scan lines and its tip"),
    "export": ("export", "Write a run's heights, or one frame's, for other programs; zip is the run as it is."),
    "report": ("export", "Write a run as one HTML page for the notebook"),
    "plan": ("plan", "What these settings will be able to show: noise, time, tilt, saturation"),
    "models": ("models", "The model sets that are installed, with what their cards say"),
    "calibrate": ("calibrate", "Find gains, dark levels, rotation, offset, working distance and effects from frames"),
    "check": ("calibrate", "Whether frames agree with the instrument file, without any truth"),
    "train": ("train", "Train a network and put it into a model set; needs the extra `train`."),
    "adapt": ("adapt", "Fit the slope network of a set to a run's frames"),
    "emulate": ("emulate", "Serve an emulator of one instrument"),
    "bench": ("tools", "Measure this machine, or a model set, against the fixed list of rows"),
    "doctor": ("tools", "What this machine can do: processors, providers really in use"),
    "keys": ("tools", "Make CURVE keys for a node and its clients, so that they can be on different machines."),
}
"""Each command's module in `service.commands`, imported when it is asked for, and how its help begins."""


class OnDemand(TyperGroup):
    """Imports the one command that is asked for: what all of them import together takes seconds."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known, rest = super().resolve_command(ctx, args)
        if name is None or known is None:
            return name, known, rest
        group = typer.Typer(rich_markup_mode=app.rich_markup_mode)
        import_module(f"service.commands.{COMMANDS[name][0]}").add_to(group)
        return name, get_group(group).commands[name], rest


app = typer.Typer(
    name="eclips",
    help="Real-time height maps from segmented backscattered-electron images.",
    cls=OnDemand,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _name, (_, _begins) in COMMANDS.items():
    app.command(_name, help=_begins)(lambda: None)


def main() -> None:
    """Entry point of the command."""
    # Kernels' threads that spin while they wait take the cores from the programs beside: on two shared cores a small
    # frame is then fused forty times as slowly.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    tell_terminal()
    try:
        app()
    except EclipsError as error:
        log.error("%s", error, extra={"announced": True})
        sys.stderr.write(f"eclips: {error}\n")
        sys.exit(2)
    except Exception:
        log.critical("ended by an error", exc_info=True, extra={"announced": True})
        raise


if __name__ == "__main__":
    main()
