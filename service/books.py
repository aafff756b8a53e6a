"""What the books of calibrations and of adaptations share: an entry is found by its id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from acquisition.errors import BadInput

MOST_NAMED = 5


class Kept(Protocol):
    """What stands in a book."""

    @property
    def id(self) -> str: ...


Entry = TypeVar("Entry", bound=Kept)


def entry_of(known: Sequence[Entry], id: str, what: str) -> Entry:
    """The one of `known`, the newest first, with this id; `what` they are is told. Raises `BadInput` for an unknown
    id."""
    for entry in known:
        if entry.id == id:
            return entry
    told = ", ".join(entry.id for entry in known[:MOST_NAMED]) or "none"
    raise BadInput(f"there is no {what} {id[:80]!r}; the newest: {told}")
