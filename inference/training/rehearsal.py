"""Hard examples once more: what a network did worst on, kept for a second look."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.training.batches import Examples


class Rehearsal:
    """At most `most` examples, the hardest of those offered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: Examples = {}
        self._hardness = torch.zeros(0)

    def __len__(self) -> int:
        return len(self._hardness)

    def offer(self, examples: Examples, hardness: Tensor) -> None:
        """`hardness` (B,): larger is harder."""
        together = torch.cat([self._hardness, hardness])
        chosen = together.argsort(descending=True)[: self._most]
        joined = {name: torch.cat([self._kept[name], new]) if self._kept else new for name, new in examples.items()}
        self._hardness = together[chosen]
        self._kept = {name: values[chosen] for name, values in joined.items()}

    def take(self, count: int) -> Examples:
        """The hardest `count`; they are forgotten, so that what can't be learned isn't seen for ever."""
        taken = {name: values[:count] for name, values in self._kept.items()}
        self._kept = {name: values[count:] for name, values in self._kept.items()}
        self._hardness = self._hardness[count:]
        return taken
