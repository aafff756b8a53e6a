"""What commands share: options, one-line output, progress."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.logs import Logs
from service.settings import Settings, load_settings

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", exists=True, dir_okay=False)]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a recorded run.", exists=True, file_okay=False)]
Scene = Annotated[str | None, typer.Option("--scene", help="Scene of the simulated microscope, or a height map file.")]
Size = Annotated[int | None, typer.Option("--size", min=16, max=8192, help="Frame width and height in pixels.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]

errors = Console(stderr=True)


def say(line: str) -> None:
    """One line to people or to a supervisor, at once. Nobody there to read it is no reason to fail: a run goes on, or
    ends in order, without its terminal."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def say_json(tree: Any) -> None:
    say(json.dumps(tree, indent=2))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; call what is yielded with (done, total)."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def start_logs(program: str, settings: Settings, *secrets: str) -> Logs:
    """Of one program; `secrets` never get into them."""
    logs = Logs(program, secrets)
    logs.start(settings.logs_folder, settings.logs)
    return logs


def live_settings(
    config: Path | None, scene: str | None = None, size: int | None = None, fuse: int | None = None
) -> Settings:
    """Settings of the file, with what the command line says instead."""
    scan = {"width_px": size, "height_px": size}
    return load_settings(config, {"microscope": {"scene": scene}, "scan": scan, "inference": {"fuse_frames": fuse}})
