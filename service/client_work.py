"""Long work of a lab, as the client hands it out: tasks, and what is made from recorded runs to be accepted or not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput, ComponentFailed, EclipsError
from service.client_line import Line

POLL_S = 0.25
Progress = Callable[[int, int | None], object]


def untold(done: int, total: int | None) -> None:
    """For those who do not look how far a task is."""


class Tasks:
    """What is at work and what was."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def all(self) -> list[dict[str, Any]]:
        """The newest first; also heights that the node still makes of ended runs."""
        return list(self._line.get("tasks"))

    def find(self, id: str) -> dict[str, Any]:
        """Its `state`, `done` of `total`, and its `result` or the `reason` why it failed. Raises `BadInput`."""
        return dict(self._line.get(f"tasks/{path_name(id)}"))

    def cancel(self, id: str) -> None:
        """It ends at its next step."""
        self._line.delete(f"tasks/{path_name(id)}")

    def save_file(self, id: str, to: Path | str) -> Path:
        """What it made, such as an export."""
        return self._line.save(f"tasks/{path_name(id)}/file", Path(to))


class Candidates:
    """Adaptations or calibrations: made from recorded runs, kept with their figures, accepted or discarded."""

    def __init__(self, line: Line, path: str) -> None:
        self._line = line
        self._path = path

    def all(self) -> list[dict[str, Any]]:
        """Every one that was made, the newest first."""
        return list(self._line.get(self._path))

    def make(self, progress: Progress = untold, **wanted: Any) -> dict[str, Any]:
        """A new one, once it is made; its `id` is what `accept` and `discard` take.

        An adaptation wants `run_id`, and takes `model`, `minutes`, `name`; a calibration wants `runs`, or `dark` and
        `pairs`, and takes `samples`, `priors`, `frames`. Raises `ComponentFailed` when it fails.
        """
        return dict(done(self._line, self._line.post(self._path, wanted), progress)["result"])

    def accept(self, id: str) -> dict[str, Any]:
        """Put it to use: an adaptation's model set at once, a calibration at the acquisition program's next start.
        Raises `RequestRefused` for one that was no better, or has no place to go to."""
        return dict(self._line.post(f"{self._path}/{path_name(id)}:accept"))

    def discard(self, id: str) -> dict[str, Any]:
        """It is not to be used; its figures stay in the history."""
        return dict(self._line.post(f"{self._path}/{path_name(id)}:discard"))


class Workplace:
    """What a lab has beside its devices and runs."""

    _line: Line

    @property
    def alive(self) -> bool:
        """Whether the service itself answers, whatever the node does. Raises `ComponentFailed` where it does not."""
        return bool(self._line.get("health")["status"] == "ok")

    @property
    def adaptations(self) -> Candidates:
        """Model sets that were fitted to runs' own frames."""
        return Candidates(self._line, "adaptations")

    @property
    def calibrations(self) -> Candidates:
        """Instrument files that were fitted to recorded runs."""
        return Candidates(self._line, "calibrations")

    @property
    def tasks(self) -> Tasks:
        """Long work, whoever asked for it."""
        return Tasks(self._line)

    def colormaps(self) -> list[str]:
        return list(self._line.get("colormaps"))

    def colormap(self, name: str) -> NDArray[np.uint8]:
        """(256, 3) RGB. Raises `BadInput` for an unknown name."""
        return np.array(self._line.get(f"colormaps/{path_name(name)}")["rgb"], np.uint8)


def done(line: Line, task: dict[str, Any], progress: Progress = untold) -> dict[str, Any]:
    """The task once it is; called off when the waiting is broken off. Raises `ComponentFailed` when it fails."""
    place = f"tasks/{task['id']}"
    try:
        while task["state"] in ("waiting", "running"):
            progress(task["done"], task["total"])
            time.sleep(POLL_S)
            task = line.get(place)
    except BaseException:
        with contextlib.suppress(EclipsError):
            line.delete(place)
        raise
    progress(task["done"], task["total"])
    if task["state"] != "done":
        raise ComponentFailed(f"the {task['kind']} of {task['run_id']} was {task['state']}: {task['reason']}")
    return task


def path_name(name: str) -> str:
    """A name as one part of a path, whatever is in it. Raises `BadInput` for what would lead elsewhere."""
    if name in ("", ".", ".."):
        raise BadInput(f"{name!r} is no name")
    return quote(name, safe="")
