"""Hard examples once more: what a network did worst on, kept for a second look."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.training.batches import Examples


class Rehearsal:
    """At most `most` examples, the hardest of those offered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[float, Examples]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def offer(self, examples: Examples, hardness: Tensor) -> None:
        """`hardness` (B,): larger is harder."""
        for place, hard in enumerate(hardness.tolist()):
            if len(self._kept) == self._most and hard <= self._kept[-1][0]:
                continue
            own = {name: values[place].clone() for name, values in examples.items()}
            self._kept.append((hard, own))
            self._kept.sort(key=lambda kept: -kept[0])
            del self._kept[self._most :]

    def take(self, count: int) -> Examples:
        """The hardest `count`; they are forgotten, so that what can't be learned isn't seen for ever."""
        taken, self._kept = self._kept[:count], self._kept[count:]
        return {name: torch.stack([example[name] for _, example in taken]) for name in taken[0][1]}
