"""Which model set the workers are to use: an order that the node gives, and what each worker says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acquisition.errors import MessageRejected

KIND = "model"
MAX_NAME_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """`number` tells two orders of one set apart, over restarts of the node too. A worker says the number of the last
    order that it has carried out or refused as `order` of itself, and as `refused` why not, empty when it did."""

    model: str
    number: int

    @property
    def note(self) -> dict[str, Any]:
        return {"kind": KIND, "model": self.model, "order": self.number}

    def is_answered(self, about: Mapping[str, str]) -> bool:
        return about.get("order") == str(self.number)


def read_order(note: Mapping[str, Any]) -> ModelOrder:
    """The order that a note of kind `model` holds. Raises `MessageRejected` for anything else."""
    model, number = note.get("model"), note.get("order")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_NAME_CHARACTERS or type(number) is not int:
        raise MessageRejected(f"an order of a model set needs a name and a whole number, not {str(note)[:80]}")
    return ModelOrder(model, number)
