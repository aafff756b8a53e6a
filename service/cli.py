"""The command `eclips`. Bad input ends with one clear line and a status above zero."""

from __future__ import annotations

import logging
import sys

import typer

from acquisition.errors import EclipsError
from service.commands import live, plan, recordings, tools, train

app = typer.Typer(
    name="eclips",
    help="Real-time height maps from segmented backscattered-electron images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in (live, recordings, plan, train, tools):
    group.add_to(app)


def main() -> None:
    """Entry point of the command."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        app()
    except EclipsError as error:
        sys.stderr.write(f"eclips: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
