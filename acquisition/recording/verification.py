"""Is a recorded run whole? Every page read, every checksum and count checked; nothing is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import xxhash

from acquisition.errors import BadInput
from acquisition.recording.manifest import JOURNAL
from acquisition.recording.reader import RecordedRun
from acquisition.recording.tiff_chain import walk_pages
from acquisition.recording.tiff_series import Place

STEMS = ("frames", "truth", "heights")

Span = tuple[int, int]
"""First and last, both included."""


@dataclass(frozen=True, slots=True)
class Verification:
    """`findings` are for people, worst first, each with its way out; empty means that every checksum and count holds.
    `sequences` are the frames that the journal has, `mended` what `repair` did before it looked, `ended` what ended the
    run, as far as that is known."""

    sequences: tuple[int, ...]
    heights: int
    findings: tuple[str, ...]
    mended: tuple[str, ...] = ()
    ended: str = ""

    @property
    def frames(self) -> int:
        return len(self.sequences)

    @property
    def ok(self) -> bool:
        return not self.findings


def verify(path: Path) -> Verification:
    """Read every page, check every checksum and count. Raises `BadInput` when `path` is no run at all."""
    run = RecordedRun(path)
    findings = [*_lost_frames(run), *_missing_frames(run), *_journal(run), *_lost_truth(run), *_lost_heights(run)]
    findings += [*_chains(run), *_counts(run)]
    if run.manifest.status in ("recording", "incomplete"):
        findings.append(f"status is {run.manifest.status}: {run.manifest.reason or 'the run was not closed'}")
    return Verification(tuple(run.sequences), len(run.heights), tuple(findings), ended=_ended(run))


def gaps(run: RecordedRun, first: int = 0, last: int | None = None) -> list[Span]:
    """Frames from `first` to `last` (to the end that the run once had, if None) that were not recorded."""
    end = last_sequence(run) if last is None else last
    sequences = [first - 1, *(number for number in run.frames if first <= number <= end), end + 1]
    return [(before + 1, after - 1) for before, after in pairwise(sequences) if after - before > 1]


def name_spans(numbers: Iterable[int], what: str = "frame") -> str:
    """Numbers as people say them: `frame 3`, `frames 3, 7 to 9`."""
    spans: list[Span] = []
    for number in sorted(numbers):
        if spans and number - spans[-1][1] <= 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return told_spans(spans, what)


def told_spans(spans: Sequence[Span], what: str = "frame") -> str:
    """Spans as people say them, first and last included."""
    one = len(spans) == 1 and spans[0][0] == spans[0][1]
    named = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in spans)
    return f"{what}{'' if one else 's'} {named}"


def known_pages(run: RecordedRun) -> dict[str, int]:
    """How many pages of each image file the journal knows of."""
    known: dict[str, int] = defaultdict(int)
    for place in places(run):
        known[place.file] = max(known[place.file], place.page + len(place.offsets))
    return known


def places(run: RecordedRun) -> Iterable[Place]:
    """Where everything lies that the journal knows of."""
    for frame in run.frames.values():
        yield frame.place
        if frame.truth is not None:
            yield frame.truth
    for height in run.heights.values():
        yield height.place


def digest_of(run: RecordedRun) -> str:
    """xxh3 over the checksums of all frames in order."""
    digest = xxhash.xxh3_64()
    for recorded in run.frames.values():
        digest.update(recorded.header.xxh3.encode())
    return digest.hexdigest()


def last_sequence(run: RecordedRun) -> int:
    """The last frame that was recorded, as far as anything in the run still says so; -1 for none."""
    finished = -1 if run.finished is None else run.finished.last_sequence
    return max(finished, run.manifest.last_sequence, max(run.frames, default=-1))


def _unreadable(
    read: Callable[[int], Any], sequences: Iterable[int], file_of: Callable[[int], str]
) -> dict[str, list[int]]:
    """Sequence numbers of what cannot be read, by file."""
    lost: dict[str, list[int]] = defaultdict(list)
    for sequence in sequences:
        try:
            read(sequence)
        except BadInput:
            lost[file_of(sequence)].append(sequence)
    return lost


def _lost_frames(run: RecordedRun) -> list[str]:
    lost = _unreadable(run.read_frame, run.frames, lambda n: run.frames[n].place.file)
    return [
        f"{name_spans(sequences)}: {_fault(run.path / file)}; they are lost unless you have a copy of {file} to put in "
        "its place"
        for file, sequences in lost.items()
    ]


def _lost_truth(run: RecordedRun) -> list[str]:
    kept = {n: frame.truth.file for n, frame in run.frames.items() if frame.truth is not None}
    lost = _unreadable(run.read_truth, kept, kept.__getitem__)
    return [
        f"truth of {name_spans(sequences)}: {_fault(run.path / file)}; reconstruction does not need it"
        for file, sequences in lost.items()
    ]


def _lost_heights(run: RecordedRun) -> list[str]:
    lost = _unreadable(run.read_height, run.heights, lambda n: run.heights[n].place.file)
    findings = [
        f"{name_spans(sequences, 'height')}: {_fault(run.path / file)}; make them again with `eclips reprocess`"
        for file, sequences in lost.items()
    ]
    if run.missing_heights:
        named = name_spans(run.missing_heights)
        findings.append(
            f"{len(run.missing_heights)} frames have no height ({named}); make them with `eclips reprocess`"
        )
    return findings


def _fault(path: Path) -> str:
    return f"{path.name} does not hold what the journal says of them" if path.is_file() else f"{path.name} is missing"


def _missing_frames(run: RecordedRun) -> list[str]:
    """Gaps between the recorded frames, and before the end that the run once had."""
    lacking = gaps(run)
    if not lacking:
        return []
    one = len(lacking) == 1 and lacking[0][0] == lacking[0][1]
    why = "journal lines are damaged or gone" if run.damaged_lines else "never recorded, or their journal lines gone"
    return [f"{told_spans(lacking)} {'is' if one else 'are'} missing: {why}"]


def _journal(run: RecordedRun) -> list[str]:
    findings = []
    if run.damaged_lines:
        lines = "1 journal line is" if run.damaged_lines == 1 else f"{run.damaged_lines} journal lines are"
        findings.append(
            f"{lines} damaged: what they said is lost unless you have a copy of {JOURNAL}; pixels that they located "
            "are still in the image files, for Fiji and tifffile"
        )
    torn = (run.path / JOURNAL).stat().st_size - run.journal_bytes
    if torn:
        findings.append(f"the journal ends in {torn} torn bytes; `eclips repair` cuts them")
    if run.run is None:
        findings.append("the journal does not say how the run started: it can be read, but not replayed")
    return findings


def _chains(run: RecordedRun) -> list[str]:
    """Whether programs that know only the TIFF files see the pages that the journal knows, and no others."""
    findings = []
    known_by_file = known_pages(run)
    for path in sorted(path for stem in STEMS for path in run.path.glob(f"{stem}-*.tif")):
        file, known = path.name, known_by_file.get(path.name, 0)
        linked = list(walk_pages(path))
        end = linked[-1].end if linked else 0
        if len(linked) < known:
            findings.append(
                f"{file}: only {len(linked)} of {known} pages can be reached from its beginning, so Fiji shows no "
                "more; `eclips` finds the others by the journal, and `eclips replay RUN --record --speed max` makes a "
                "new run of all frames when they are sound"
            )
        elif len(linked) > known:
            named = name_spans(range(known, len(linked)), "page")
            findings.append(f"{file} has {named}, unknown to the journal: open them in Fiji or with tifffile")
        if len(linked) >= known and path.stat().st_size > max(end, 8):
            findings.append(f"{file} ends in {path.stat().st_size - end} torn bytes; `eclips repair` cuts them")
    return findings


def _ended(run: RecordedRun) -> str:
    if run.finished is None:
        return ""
    expected, reason = run.manifest.expected_frames, run.finished.reason
    few = expected is not None and run.finished.frames < expected
    return f"{reason} ({run.finished.frames} of the {expected} frames that were asked for)" if few else reason


def _counts(run: RecordedRun) -> list[str]:
    findings = []
    if run.manifest.status != "recording" and run.manifest.frames != len(run.frames):
        findings.append(f"the manifest counts {run.manifest.frames} frames, the journal {len(run.frames)}")
    if run.finished is not None and run.finished.digest != digest_of(run):
        findings.append("the digest over all frames does not match the one at the end of the run")
    return findings
