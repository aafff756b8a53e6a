"""Every adaptation that was tried, kept in a folder: what it scored, its model set where it was better, its fate."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from acquisition.errors import RequestRefused
from inference.registry import MODELS
from service.books import entry_of

State = Literal["candidate", "no_better", "accepted", "discarded"]
ABOUT = "adaptation.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """`no_better` was refused by its scores. `folder` holds the set under its `name` where there is one; `told` are the
    scores and why."""

    id: str
    state: State
    run_id: str
    utc_ns: int
    name: str | None
    told: dict[str, Any]
    folder: Path

    def tree(self) -> dict[str, Any]:
        names = ("id", "state", "run_id", "utc_ns", "name")
        return {one: getattr(self, one) for one in names} | {"scores": self.told}


class AdaptationBook:
    """One folder for each, named by its id. Scores are never deleted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new_folder(self) -> Path:
        """For one that begins, named by a new id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()), default=0)
        made = self.folder / f"{number:04d}"
        made.mkdir()
        return made

    def add(self, folder: Path, run_id: str, told: dict[str, Any]) -> Entry:
        """What came of the one in `folder`."""
        state: State = "candidate" if told.get("name") else "no_better"
        entry = Entry(folder.name, state, run_id, time.time_ns(), told.get("name"), told, folder)
        _write(entry)
        return entry

    def all(self) -> list[Entry]:
        """The newest first; those that still run, or were cut short, are left out."""
        found = []
        for path in self.folder.glob(f"*/{ABOUT}"):
            try:
                found.append(_read(path))
            except (OSError, ValueError, KeyError):
                continue
        return sorted(found, key=lambda entry: entry.id, reverse=True)

    def find(self, id: str) -> Entry:
        """Raises `BadInput` for an unknown id."""
        return entry_of(self.all(), id, "adaptation")

    def install(self, id: str, models: Path) -> Entry:
        """Copy its set into `models`, to be chosen like any other. Raises `RequestRefused` for one that was decided on,
        or was no better, and where a set of its name is installed."""
        entry = self._undecided(id)
        assert entry.name is not None
        target = models / entry.name
        if target.exists() or (MODELS / entry.name).exists():
            raise RequestRefused(f"a model set {entry.name!r} is installed already: adapt again under another name")
        models.mkdir(parents=True, exist_ok=True)
        beside = models / f".{entry.name}.new"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(entry.folder / entry.name, beside)
        beside.rename(target)
        return self._become(entry, "accepted")

    def discard(self, id: str) -> Entry:
        """Delete its set and keep its scores. Raises `RequestRefused` for one that was decided on."""
        entry = self._undecided(id)
        shutil.rmtree(entry.folder / str(entry.name), ignore_errors=True)
        return self._become(entry, "discarded")

    def _undecided(self, id: str) -> Entry:
        entry = self.find(id)
        if entry.state == "no_better":
            raise RequestRefused(f"adaptation {id} was not accepted: {entry.told.get('reason', 'it was no better')}")
        if entry.state != "candidate":
            raise RequestRefused(f"adaptation {id} was {entry.state} already: adapt again for a new one")
        return entry

    def _become(self, entry: Entry, state: State) -> Entry:
        changed = replace(entry, state=state)
        _write(changed)
        return changed


def _write(entry: Entry) -> None:
    beside = entry.folder / f".{ABOUT}"
    beside.write_text(json.dumps(entry.tree(), indent=2) + "\n", encoding="utf-8")
    beside.replace(entry.folder / ABOUT)


def _read(path: Path) -> Entry:
    tree = json.loads(path.read_text(encoding="utf-8"))
    return Entry(
        tree["id"], tree["state"], tree["run_id"], int(tree["utc_ns"]), tree["name"], tree["scores"], path.parent
    )
