"""Which files belong together, told from their names alone, while more of them keep coming."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
        self._place: int | None = None

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
            return self._pattern.search(name)
        stem, last = name.rpartition(".")[0], None
        for match in self._token.finditer(stem) if self._token else ():
            last = match
        return last

    def _by_one_letter(self, names: Sequence[str]) -> list[Group]:
        masked: dict[tuple[str, int], dict[str, str]] = {}
        of: dict[str, list[tuple[str, int]]] = {name: [] for name in names}
        for name in names:
            for place, key in self._masks(name):
                masked.setdefault((key, place), {})[name[place]] = name
                of[name].append((key, place))
        chosen: dict[tuple[str, int], dict[str, str]] = {}
        doubtful = set[tuple[str, int]]()
        for name in names:
            whole = [mask for mask in of[name] if len(masked[mask]) == len(self._segments)]
            largest = max(of[name], key=lambda mask: (len(masked[mask]), mask[1]), default=(name, 0))
            mask = whole[-1] if whole else largest
            chosen.setdefault(mask, {})[name[mask[1]]] = name
            if len(whole) > 1:
                doubtful.add(mask)
        for (_, place), files in chosen.items():
            if len(files) == len(self._segments) and not doubtful:
                self._place = place
        return [Group(mask[0], files, DOUBT if mask in doubtful else "") for mask, files in chosen.items()]

    def _masks(self, name: str) -> Iterator[tuple[int, str]]:
        """Places counted from the end, since what comes before the channel often grows a digit (frame 9, frame 10)."""
        end = len(name) - len(name.rpartition(".")[0]) if "." in name else 0
        places = range(-len(name), -end) if self._place is None else (self._place,)
        for place in places:
            if -place <= len(name) and name[place].isalnum():
                yield place, f"{name[:place]}*{name[len(name) + place + 1 :]}"


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
