"""What has come into a folder: which sets are whole, which still wait, and which are given up. No clock, no threads."""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from acquisition.errors import BadInput
from hardware_drivers.tiff.naming import Group, Naming, Order, order_of
from hardware_drivers.tiff.structure import check_whole

SUFFIXES = (".tif", ".tiff")
MOST_REMEMBERED = 1000
State = tuple[int, int]
"""Size in bytes and time of the last change in ns: a file of another state is another file."""

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class FoundSet:
    """Whole files in channel order, with the state that they were found in."""

    key: str
    files: tuple[Path, ...]
    states: tuple[State, ...]

    @property
    def changed_ns(self) -> int:
        """When the last of them was changed, in the file system's UTC."""
        return max(changed_ns for _, changed_ns in self.states)


@dataclass(slots=True)
class Counts:
    """Sets that were found whole, given up because segments did not come in time, or came too late to be in order."""

    found: int = 0
    incomplete: int = 0
    late: int = 0


@dataclass(slots=True)
class _Waiting:
    """`pages` is 0 until it was found whole; `pages_before` are those of a file of its name that it took the place of
    while that still waited."""

    state: State
    since_s: float
    pages: int = 0
    pages_before: int = 0
    reason: str = "it has only just come"


@dataclass(slots=True)
class FolderWatch:
    """`patience_s`: how long a set may lack segments after its last file changed; `settle_s`: how long a file must
    have stayed as it is; `sidecar`: suffix of the text that must stand beside each image, if any (`.txt`).

    Files are never changed, moved or deleted. What there is to say collects in `news`.
    """

    folder: Path
    naming: Naming
    segments: int
    patience_s: float
    settle_s: float
    sidecar: str | None = None
    counts: Counts = field(default_factory=Counts)
    found: deque[FoundSet] = field(default_factory=deque)
    news: list[str] = field(default_factory=list)
    _waiting: dict[str, _Waiting] = field(default_factory=dict)
    _done: dict[str, State] = field(default_factory=dict)
    _ready_s: dict[str, float] = field(default_factory=dict)
    _given_up: dict[str, frozenset[str]] = field(default_factory=dict)
    _last: dict[tuple[str, ...], tuple[tuple[int, ...], int]] = field(default_factory=dict)
    _was_away: bool = False
    _strangers_told: bool = False

    @property
    def waiting(self) -> int:
        """Files that belong to no whole set yet."""
        return len(self._waiting)

    def leave_present(self) -> None:
        """What is there now is none of ours, nor what is being written of it. Raises `OSError` as the file system
        gives it."""
        present = self._present()
        self._done.update(present)
        newest_ns = max((changed_ns for _, changed_ns in present.values()), default=0)
        old = {name for name, (_, changed_ns) in present.items() if newest_ns - changed_ns > self.patience_s * 1e9}
        # A copy, as names of long ago shall not decide how those to come are read.
        for group in copy(self.naming).groups(present.keys()):
            if old.issuperset(group.files.values()):
                continue
            whole = frozenset(channel for channel, name in group.files.items() if name in old or self._pages(name))
            if len(whole) < self.segments:
                _remember(self._given_up, group.key, whole)

    def go_on_after(self, earlier: FolderWatch) -> None:
        """What an earlier watch of the folder has taken or left is not taken again."""
        while earlier.found:
            earlier.put_back(earlier.found.popleft())
        self._done.update(earlier._done)

    def look(self, now_s: float) -> None:
        """Put what has become whole into `found`, in order. Raises `OSError` when the folder cannot be reached; that
        time does not count against anybody's patience."""
        try:
            present = self._present()
        except OSError:
            self._was_away = True
            raise
        if self._was_away:
            self._was_away = False
            for file in self._waiting.values():
                file.since_s = now_s
            self._ready_s.clear()
        self._note(present, now_s)
        groups = list(self._groups())
        self._leave_strangers(groups)
        taken = [list(self._take_series(series, now_s)) for series in _series(groups)]
        # Numbers order what is of one series; only between series does the time of the files decide.
        self.found.extend(heapq.merge(*taken, key=lambda one: one.changed_ns))

    def put_back(self, one: FoundSet) -> None:
        """It could not be read after all: look at its files again."""
        self.counts.found -= 1
        for path in one.files:
            self._done.pop(path.name, None)

    def unchanged(self, one: FoundSet) -> bool:
        """Whether the files are still those that were found. Raises `OSError`."""
        return all(_state(path.stat()) == state for path, state in zip(one.files, one.states, strict=True))

    def _present(self) -> dict[str, State]:
        with os.scandir(self.folder) as entries:
            present = {}
            for entry in entries:
                if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(("~", ".")):
                    try:
                        present[entry.name] = _state((self.folder / entry.name).stat())
                    except FileNotFoundError:
                        continue
        return present

    def _note(self, present: dict[str, State], now_s: float) -> None:
        for name in [name for name in self._waiting if name not in present]:
            del self._waiting[name]
        for name, state in present.items():
            if self._done.get(name) == state:
                continue
            file = self._waiting.get(name)
            if file is None or file.state != state:
                before = 0 if file is None else file.pages or file.pages_before
                self._waiting[name] = _Waiting(state, now_s, pages_before=before)
            elif not file.pages and now_s - file.since_s >= self.settle_s:
                self._examine(name, file)

    def _examine(self, name: str, file: _Waiting) -> None:
        path = self.folder / name
        try:
            pages = check_whole(path)
            if self.sidecar is not None and not path.with_suffix(self.sidecar).is_file():
                file.reason = f"{path.with_suffix(self.sidecar).name} is not there"
            elif pages not in (1, self.segments):
                file.reason = f"it has {pages} pages, not 1 nor one for each of {self.segments} segments"
            else:
                file.pages, file.reason = pages, ""
                if pages <= file.pages_before:
                    self._overwritten(name, file)
        except (BadInput, OSError) as error:
            file.reason = str(error)

    def _pages(self, name: str) -> int:
        try:
            return check_whole(self.folder / name)
        except (BadInput, OSError):
            return 0

    def _overwritten(self, name: str, file: _Waiting) -> None:
        """Not grown by a page, but another one in its place. A set that mixes old files with new ones would be worse
        than none: the old ones that are left of it go."""
        names = next((group.files.values() for group in self._groups() if name in group.files.values()), ())
        self._drop([other for other in names if self._waiting[other].since_s < file.since_s])
        for other in names:
            if other in self._waiting:
                self._waiting[other].pages_before = 0
        self.counts.incomplete += 1
        self.news.append(f"{name} was overwritten before its set was whole: that set is lost")

    def _groups(self) -> Iterator[Group]:
        """Files of one page each by their names, files with a page per segment alone."""
        alone = [name for name, file in self._waiting.items() if file.pages > 1]
        yield from (Group(name, {"": name}) for name in alone)
        yield from self.naming.groups(self._waiting.keys() - set(alone))

    def _leave_strangers(self, groups: list[Group]) -> None:
        """Files that the user's pattern does not mean: said once, as a folder may be full of them."""
        strangers = self._waiting.keys() - {name for group in groups for name in group.files.values()}
        if strangers and not self._strangers_told:
            self._strangers_told = True
            self.news.append(f"files that the pattern does not match are left alone, such as {min(strangers)}")
        self._drop(strangers)

    def _take_series(self, groups: list[Group], now_s: float) -> Iterator[FoundSet]:
        """`groups` in order. A whole set waits for those before it, as long as they may still become whole."""
        earlier: list[Group] = []
        for group in groups:
            if not self._is_whole(group):
                if self._is_remainder(group):
                    self._leave_remainder(group)
                elif now_s - max(self._waiting[name].since_s for name in group.files.values()) >= self.patience_s:
                    self._give_up(group)
                else:
                    earlier.append(group)
                continue
            ready_s = self._ready_s.setdefault(group.key, now_s)
            if earlier and now_s - ready_s < self.patience_s:
                return
            for other in earlier:
                self._give_up(other)
            earlier.clear()
            yield from self._take(group)

    def _is_whole(self, group: Group) -> bool:
        files = [self._waiting[name] for name in group.files.values()]
        whole = len(files) == self.segments or (len(files) == 1 and files[0].pages > 1)
        return whole and not group.doubt and all(file.pages for file in files)

    def _take(self, group: Group) -> Iterator[FoundSet]:
        names = self.naming.in_order(group.files)
        states = tuple(self._waiting[name].state for name in names)
        one = FoundSet(group.key, tuple(self.folder / name for name in names), states)
        self._ready_s.pop(group.key, None)
        self._given_up.pop(group.key, None)
        self._drop(names)
        text, numbers = order_of(group.key)
        last_numbers, last_ns = self._last.get(text, ((), 0))
        if numbers < last_numbers and one.changed_ns < last_ns:
            self.counts.late += 1
            self.news.append(f"{group.key} came after a later set of its series had been taken: it is left out")
            return
        _remember(self._last, text, (numbers, one.changed_ns))
        self.counts.found += 1
        yield one

    def _give_up(self, group: Group) -> None:
        self.counts.incomplete += 1
        reasons = [f"{name}: {reason}" for name in group.files.values() if (reason := self._waiting[name].reason)]
        lacking = f"{len(group.files)} of {self.segments} segments came ({', '.join(sorted(group.files.values()))})"
        because = group.doubt or "; ".join(reasons) or lacking
        self.news.append(
            f"set {group.key} was not whole within {self.patience_s:g} s and is left out: {because}; "
            "raise patience_s where files come slower, or say with a pattern which part of the name is the channel"
        )
        _remember(self._given_up, group.key, frozenset(group.files))
        self._drop(group.files.values())

    def _is_remainder(self, group: Group) -> bool:
        """Only what a set lacked that was given up: to be kept from the next set where names are used again."""
        return group.key in self._given_up and not self._given_up[group.key] & set(group.files)

    def _leave_remainder(self, group: Group) -> None:
        if any(self._waiting[name].pages == 0 for name in group.files.values()):
            return
        self.news.append(f"{', '.join(group.files.values())} came after the set {group.key} was given up: left out too")
        self._given_up[group.key] |= set(group.files)
        self._drop(group.files.values())

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            file = self._waiting.pop(name, None)
            if file is not None:
                self._done[name] = file.state


def _remember(memory: dict[Key, Value], key: Key, value: Value) -> None:
    """As the newest of a bounded number."""
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > MOST_REMEMBERED:
        del memory[next(iter(memory))]


def _series(groups: Iterable[Group]) -> list[list[Group]]:
    """Groups of the same text in the order of their numbers; the series by name."""
    series: dict[tuple[str, ...], list[tuple[Order, Group]]] = {}
    for group in groups:
        order = order_of(group.key)
        series.setdefault(order[0], []).append((order, group))
    return [[group for _, group in sorted(series[text], key=lambda item: item[0])] for text in sorted(series)]


def _state(stat: os.stat_result) -> State:
    return stat.st_size, stat.st_mtime_ns
