"""The command `eclips`. Bad input ends with one clear line and a status above zero."""

from __future__ import annotations

import logging
import os
import sys

import typer

from acquisition.errors import EclipsError
from service.commands import emulate, live, plan, recipe, recordings, tools, train
from service.logs import tell_terminal

log = logging.getLogger(__name__)

app = typer.Typer(
    name="eclips",
    help="Real-time height maps from segmented backscattered-electron images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in (live, recipe, recordings, plan, train, emulate, tools):
    group.add_to(app)


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
