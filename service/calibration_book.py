"""Every calibration that was made, kept as instrument files in a folder: candidates, and what was accepted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from acquisition.errors import BadInput, RequestRefused
from acquisition.instrument import Instrument, load_instrument
from service.books import entry_of

State = Literal["candidate", "accepted", "discarded"]
STATES: tuple[State, ...] = ("candidate", "accepted", "discarded")


@dataclass(frozen=True, slots=True)
class Entry:
    """`id` is the calibration hash, which every frame and result taken with the file carries."""

    id: str
    state: State
    path: Path
    instrument: Instrument

    def tree(self) -> dict[str, Any]:
        record = self.instrument.calibration
        told = None if record is None else record.model_dump(mode="json")
        return {"id": self.id, "state": self.state, "calibration": told}


class CalibrationBook:
    """The state is the file's name: `VERSION-HASH.STATE.toml`. Nothing is ever deleted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, instrument: Instrument) -> Entry:
        """Keep a calibrated `instrument` as a candidate. Raises `BadInput` for one without its record."""
        if instrument.calibration is None:
            raise BadInput("this instrument file holds no [calibration]: it was not made by `eclips calibrate`")
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{instrument.calibration.version:04d}-{instrument.calibration_hash}.candidate.toml"
        write_whole(self.folder / name, instrument.to_toml())
        return self.find(instrument.calibration_hash)

    def all(self) -> list[Entry]:
        """The newest first, by date; files that do not hold are left out."""
        found = []
        for path in self.folder.glob("*-*.*.toml"):
            id, state = path.name.split("-", 1)[1].split(".")[:2]
            if state in STATES:
                try:
                    found.append(Entry(id, state, path, load_instrument(path)))
                except BadInput:
                    continue
        dated = [(entry.instrument.calibration.date, entry) for entry in found if entry.instrument.calibration]
        return [entry for _, entry in sorted(dated, key=lambda one: (one[0], one[1].id), reverse=True)]

    def find(self, id: str) -> Entry:
        """Raises `BadInput` for an unknown id."""
        return entry_of(self.all(), id, "calibration")

    def accept(self, id: str, instrument_file: Path) -> Entry:
        """Put it in the place of `instrument_file`, whose former content is in the book as far as it was calibrated,
        and beside it as `.before` else. Raises `RequestRefused` for one that was decided on before."""
        entry = self.find(id)
        self._undecided(entry)
        if instrument_file.is_file():
            before = instrument_file.with_suffix(instrument_file.suffix + ".before")
            write_whole(before, instrument_file.read_text(encoding="utf-8"))
        write_whole(instrument_file, entry.instrument.to_toml())
        return self._become(entry, "accepted")

    def discard(self, id: str) -> Entry:
        """Raises `RequestRefused` for one that was decided on before."""
        entry = self.find(id)
        self._undecided(entry)
        return self._become(entry, "discarded")

    def _undecided(self, entry: Entry) -> None:
        if entry.state != "candidate":
            raise RequestRefused(f"calibration {entry.id} was {entry.state} already: calibrate again for a new one")

    def _become(self, entry: Entry, state: State) -> Entry:
        entry.path.rename(entry.path.with_name(entry.path.name.replace(".candidate.", f".{state}.")))
        return self.find(entry.id)


def write_whole(path: Path, text: str) -> None:
    """All of it or nothing: an instrument file that is half written would stop the next start."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
