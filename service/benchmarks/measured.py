"""What a benchmark says about one row, and while it works on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measured:
    """`value` in the unit of its row, and under which conditions it was found.

    `peer` names whom it is compared with and `peer_value` is what the peer reached in the same run on the same work,
    in the same unit; without a peer they are empty and None. `ratio` of a peer that reached 0 is None.
    """

    value: float
    conditions: str
    peer: str = ""
    peer_value: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.peer_value if self.peer_value else None


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A row that could not be measured here, and why."""

    reason: str


class Request(NamedTuple):
    """What a benchmark with more than one setting is asked: `models` are sets of one recipe, the first of which the
    rows are about. `draws`: how often what is drawn at random is drawn; None for as often as the rows want.
    `seconds`: how long is watched; None for as long as the rows want."""

    quick: bool
    data: Path | None
    models: tuple[str, ...]
    draws: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Rows, why others are left out, a table to print after them, and what draws the same measurement into a folder."""

    rows: Mapping[str, Measured | NotMeasured]
    left_out: str = ""
    table: Table | None = None
    draw: Callable[[Path], list[Path]] | None = None


def tell_progress(what: str) -> None:
    """One line on stderr: which row, which surface a long benchmark is at."""
    Console(stderr=True).print(f"  {what} ...", style="dim", highlight=False)
