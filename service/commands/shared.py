"""What commands share: options, one-line output, progress."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import zmq

from acquisition.control import ControlClient
from acquisition.control_lock import TERMINAL
from acquisition.errors import EclipsError
from service.logs import Logs
from service.settings import Settings, load_settings

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", exists=True, dir_okay=False)]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a recorded run.", exists=True, file_okay=False)]
Scene = Annotated[str | None, typer.Option("--scene", help="Scene of the simulated microscope, or a height map file.")]
Size = Annotated[int | None, typer.Option("--size", min=16, max=8192, help="Frame width and height in pixels.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Also while somebody else has control.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]

COMMAND_DEADLINE_S = 5.0


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
    # Most programs show no bar, and need not wait for what draws it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Driving:
    """The acquisition node, driven from this terminal: nobody else drives it meanwhile, and pages see who does."""

    def __init__(self, client: ControlClient, name: str) -> None:
        self._client = client
        self._wanted = {"session": uuid.uuid4().hex, "name": name[:80], "place": TERMINAL}

    def call(self, name: str, arguments: dict[str, Any] | None = None, deadline_s: float | None = None) -> Any:
        """Raises as `ControlClient.call`."""
        return self._client.call(name, arguments, deadline_s=deadline_s or COMMAND_DEADLINE_S)

    def hold(self, *, take_over: bool = False) -> None:
        """To be renewed now and then. Raises `RequestRefused` with the name of whoever has control."""
        self.call("control_hold", {**self._wanted, "take_over": take_over})

    def leave(self) -> None:
        with contextlib.suppress(EclipsError):
            self.call("control_leave", {"session": self._wanted["session"]})


@contextmanager
def driving(settings: Settings, command: str, *, take_over: bool) -> Iterator[Driving]:
    """In control of the node that the settings name, as `eclips COMMAND` of this machine. Raises `RequestRefused` while
    somebody else has control, unless `take_over`."""
    with zmq.Context() as context:
        client = ControlClient(context, settings.stream.endpoints.control, settings.stream.keys)
        node = Driving(client, f"eclips {command} on {socket.gethostname()}")
        try:
            node.hold(take_over=take_over)
            try:
                yield node
            finally:
                node.leave()
        finally:
            client.close()


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
