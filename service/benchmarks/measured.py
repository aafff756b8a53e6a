"""What a benchmark says about one row, and while it works on it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console


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


def tell_progress(what: str) -> None:
    """One line on stderr: which row, which surface a long benchmark is at."""
    Console(stderr=True).print(f"  {what} ...", style="dim", highlight=False)
