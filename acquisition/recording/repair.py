"""Is a recorded run whole, and if not, what of it can be saved: verify only reads, repair mends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import xxhash

from acquisition.errors import BadInput
from acquisition.recording.manifest import JOURNAL, write_manifest
from acquisition.recording.reader import RecordedRun
from acquisition.recording.tiff_series import Place, cut_after_page


@dataclass(frozen=True, slots=True)
class Verification:
    """`findings` are for people, worst first; empty means that every checksum and count holds."""

    frames: int
    heights: int
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


def verify(path: Path) -> Verification:
    """Read every page, check every checksum and count. Raises `BadInput` when `path` is no run at all."""
    run = RecordedRun(path)
    findings = [*_lost_frames(run), *_lost_heights(run), *_gaps(run)]
    if run.damaged_lines:
        findings.append(f"{run.damaged_lines} journal lines are damaged")
    torn = (path / JOURNAL).stat().st_size - run.journal_bytes
    if torn:
        findings.append(f"the journal ends in {torn} torn bytes")
    if run.manifest.status in ("recording", "incomplete"):
        findings.append(f"status is {run.manifest.status}: {run.manifest.reason or 'the run was not closed'}")
    if run.manifest.status != "recording" and run.manifest.frames != len(run.frames):
        findings.append(f"the manifest counts {run.manifest.frames} frames, the journal {len(run.frames)}")
    if run.missing_heights:
        findings.append(f"{len(run.missing_heights)} frames have no height; make them with `eclips reprocess`")
    if run.finished is not None and run.finished.digest != _digest(run):
        findings.append("the digest over all frames does not match the one at the end of the run")
    return Verification(len(run.frames), len(run.heights), tuple(findings))


def repair(path: Path) -> Verification:
    """Cut torn tails of journal and images so that both end after the last whole frame, and set the manifest right.

    Returns what remains to say afterwards; status becomes `recovered` when the run had not been closed.
    """
    run = RecordedRun(path)
    journal = path / JOURNAL
    if journal.stat().st_size > run.journal_bytes:
        with journal.open("r+b") as file:
            file.truncate(run.journal_bytes)
    _cut_torn_images(run)
    for leftover in path.glob("*.new"):
        leftover.unlink()
    manifest = run.manifest
    changes: dict[str, object] = {
        "frames": len(run.frames),
        "heights": len(run.heights),
        "last_sequence": max(run.frames, default=-1),
        "digest": _digest(run),
    }
    if manifest.status in ("recording", "incomplete"):
        lost = "" if run.finished else "the run was cut off; "
        changes |= {"status": "recovered", "reason": f"{lost}{len(run.frames)} whole frames were recovered"}
    write_manifest(path, manifest.changed(**changes))
    return verify(path)


def _lost_frames(run: RecordedRun) -> list[str]:
    findings = []
    for sequence in run.frames:
        try:
            run.read_frame(sequence)
        except (BadInput, OSError) as error:
            findings.append(str(error))
    return findings


def _lost_heights(run: RecordedRun) -> list[str]:
    findings = []
    for sequence in run.heights:
        try:
            run.read_height(sequence)
        except (BadInput, OSError) as error:
            findings.append(str(error))
    return findings


def _gaps(run: RecordedRun) -> list[str]:
    """Missing sequence numbers, told as spans."""
    sequences = run.sequences
    pairs = zip([-1, *sequences], sequences, strict=False)
    return [f"frames {before + 1} to {after - 1} are missing" for before, after in pairs if after - before > 1]


def _digest(run: RecordedRun) -> str:
    digest = xxhash.xxh3_64()
    for recorded in run.frames.values():
        digest.update(recorded.header.xxh3.encode())
    return digest.hexdigest()


def _cut_torn_images(run: RecordedRun) -> None:
    """Every image file ends after the last page that the journal knows of."""
    segments, height, width = run.manifest.shape
    stacks: dict[str, tuple[int, int]] = {}

    def note(place: Place | None, pages: int, page_bytes: int) -> None:
        if place is not None:
            known_pages, known_end = stacks.get(place.file, (0, 0))
            end = max(place.offsets) + page_bytes
            stacks[place.file] = (max(known_pages, place.page + pages), max(known_end, end))

    for frame in run.frames.values():
        note(frame.place, segments, height * width * 2)
        note(frame.truth, 1, height * width * 4)
    for recorded in run.heights.values():
        note(recorded.place, 1, height * width * 4)
    written_by_us = (path for stem in ("frames", "truth", "heights") for path in run.path.glob(f"{stem}-????.tif"))
    for path in list(written_by_us):
        if path.name not in stacks:
            path.unlink()
        elif run.manifest.status != "complete":
            cut_after_page(path, *stacks[path.name])
