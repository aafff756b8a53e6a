"""Where journal lines begin, by sequence number: 16 bytes a line, however long it is and whatever it says."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class LineIndex(Mapping[int, T]):
    """What lines tell, in order of their sequence numbers; each is read from the journal again when it is asked for,
    by `read`, which is given the byte where it begins. One thread may put while others look."""

    def __init__(self, read: Callable[[int], T]) -> None:
        self._read = read
        self._sequences = array("q")
        self._begins = array("q")
        self._lock = Lock()

    def put(self, sequence: int, begin: int) -> None:
        """The line of `sequence` begins at byte `begin`: from now on this one counts, no earlier one. Raises
        OverflowError beyond 63 bits."""
        with self._lock:
            place = bisect_left(self._sequences, sequence)
            if self._holds(place, sequence):
                self._begins[place] = begin
            else:
                self._sequences.insert(place, sequence)
                self._begins.insert(place, begin)

    def __getitem__(self, sequence: int) -> T:
        with self._lock:
            place = bisect_left(self._sequences, sequence)
            if not self._holds(place, sequence):
                raise KeyError(sequence)
            begin = self._begins[place]
        return self._read(begin)

    def __contains__(self, sequence: object) -> bool:
        with self._lock:
            return isinstance(sequence, int) and self._holds(bisect_left(self._sequences, sequence), sequence)

    def __iter__(self) -> Iterator[int]:
        with self._lock:
            return iter(self._sequences[:])

    def __len__(self) -> int:
        return len(self._sequences)

    def _holds(self, place: int, sequence: int) -> bool:
        return place < len(self._sequences) and self._sequences[place] == sequence
