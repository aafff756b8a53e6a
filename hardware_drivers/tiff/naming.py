"""Which files belong together, told from their names alone, while more of them keep coming."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from acquisition.errors import BadInput

Order = tuple[tuple[str, ...], tuple[int, ...]]
"""A name's text and its numbers: names of the same text are of one series, which the numbers put in order."""

DOUBT = "it could be of two sets: say with a pattern which part of the name is the channel"


@dataclass(frozen=True, slots=True)
class Group:
    """`key`: the name with the channel masked; `files` by channel. `doubt`: why it is not sure that they belong
    together."""

    key: str
    files: Mapping[str, str]
    doubt: str = ""


class Mask(NamedTuple):
    """A name without the letter at `place`."""

    key: str
    place: int


class Naming:
    """Groups names by the user's pattern, a regular expression with a group `channel`. Without one, the channel is the
    last place in the name that says a segment's name (`x_A_007`, `detectorA`, `Q1-x`); where no segment is named, it
    is the one letter or digit that differs, and the place found first is kept from then on.

    Raises `BadInput` for a pattern that is none.
    """

    def __init__(self, segments: Sequence[str], pattern: str | None = None) -> None:
        self._segments = tuple(segments)
        self._pattern = channel_pattern(pattern) if pattern else None
        tokens = "|".join(re.escape(name) for name in sorted(segments, key=len, reverse=True))
        worded = all(re.search(r"[^\W\d]", name) for name in segments)
        self._token = re.compile(rf"(?<![A-Z])(?P<channel>{tokens})(?![^\W_])") if worded else None
        self._places: set[int] | None = None

    def groups(self, names: Collection[str]) -> list[Group]:
        """Complete groups have one file per segment; names that the pattern does not match are left out."""
        sure: dict[str, dict[str, str]] = {}
        unnamed: list[str] = []
        for name in sorted(names):
            match = self._channel(name)
            if match is not None:
                key = f"{name[: match.start('channel')]}*{name[match.end('channel') :]}"
                sure.setdefault(key, {})[match["channel"]] = name
            elif self._pattern is None:
                unnamed.append(name)
        return [Group(key, files) for key, files in sure.items()] + self._by_one_letter(unnamed)

    def in_order(self, files: Mapping[str, str]) -> list[str]:
        """The files of a group in the order of the segments where they are named so, else in that of their letters."""
        channels = self._segments if set(files) == set(self._segments) else sorted(files)
        return [files[channel] for channel in channels]

    def _channel(self, name: str) -> re.Match[str] | None:
        if self._pattern is not None:
            match = self._pattern.search(name)
            return match if match is not None and match["channel"] else None
        stem, last = name.rpartition(".")[0], None
        for match in self._token.finditer(stem) if self._token else ():
            last = match
        return last

    def _by_one_letter(self, names: Sequence[str]) -> list[Group]:
        masks = {name: list(self._masks(name)) for name in names}
        masked: dict[Mask, int] = Counter(mask for several in masks.values() for mask in several)
        chosen: dict[Mask, dict[str, str]] = {}
        doubtful = set[Mask]()
        for name, several in masks.items():
            whole = [mask for mask in several if masked[mask] == len(self._segments)]
            largest = max(several, key=lambda mask: (masked[mask], mask.place), default=Mask(name, 0))
            mask = whole[-1] if whole else largest
            chosen.setdefault(mask, {})[name[mask.place]] = name
            if len(whole) > 1:
                doubtful.add(mask)
        for mask, files in chosen.items():
            if len(files) == len(self._segments) and not doubtful:
                self._places = {mask.place, mask.place - len(mask.key)}
        return [Group(mask.key, files, DOUBT if mask in doubtful else "") for mask, files in chosen.items()]

    def _masks(self, name: str) -> Iterator[Mask]:
        """Places that were found before are counted from both ends: a number on the other side may grow a digit."""
        stem = len(name.rpartition(".")[0] or name)
        places = range(stem) if self._places is None else sorted({place % len(name) for place in self._places})
        for place in places:
            if place < stem and name[place].isalnum():
                yield Mask(f"{name[:place]}*{name[place + 1 :]}", place)


def order_of(name: str) -> Order:
    """Frame 9 before frame 10."""
    parts = re.split(r"(\d+)", name)
    return tuple(parts[::2]), tuple(int(number) for number in parts[1::2])


def channel_pattern(pattern: str) -> re.Pattern[str]:
    """Raises `BadInput` for what is no regular expression, or has no group `channel`."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise BadInput(f"pattern {pattern!r} is no regular expression: {error}") from error
    if "channel" not in expression.groupindex:
        raise BadInput(f"pattern {pattern!r} has no group (?P<channel>...)")
    return expression
