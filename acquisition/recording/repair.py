"""What of a torn or damaged run can be saved: ends are cut clean, what can be made again is, the rest is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from acquisition import wire
from acquisition.errors import BadInput
from acquisition.frames import RunStarted, checksum
from acquisition.instrument import load_instrument, parse_instrument
from acquisition.recording.journal import Journal, scan_journal
from acquisition.recording.manifest import (
    INSTRUMENT,
    JOURNAL,
    MANIFEST,
    SCHEMA,
    DamagedManifest,
    Manifest,
    read_manifest,
    replace_file,
    replace_path,
    write_manifest,
)
from acquisition.recording.reader import RecordedRun
from acquisition.recording.tiff_chain import cut_after_page, walk_pages
from acquisition.recording.tiff_series import read_pages
from acquisition.recording.verification import (
    STEMS,
    Verification,
    digest_of,
    known_pages,
    last_sequence,
    name_spans,
    places,
    verify,
)

NEW = ".new"


def repair(path: Path) -> Verification:
    """Cut torn tails of journal and images so that both end after the last whole frame, make manifest and instrument
    file again where they are damaged, carry an interrupted replacement of heights through, and set the counts right.

    Returns what was done and what remains to say afterwards; status becomes `recovered` when the run had not been
    closed. Raises `BadInput` when `path` is no run, is being written, or nothing in it can be located.
    """
    if not (path / JOURNAL).is_file():
        raise BadInput(f"{path} has no {JOURNAL}: it is no recorded run, or nothing in it can be located")
    with Journal(path / JOURNAL):
        mended = [*_make_again(path), *_put_heights_in_place(RecordedRun(path)), *cut_torn_tails(path)]
        for leftover in path.glob(f"*{NEW}"):
            leftover.unlink()
        run = RecordedRun(path)
        manifest = run.manifest.changed(
            frames=len(run.frames),
            heights=len(run.heights),
            last_sequence=last_sequence(run),
            digest=run.finished.digest if run.finished else digest_of(run),
        )
        if manifest.status in ("recording", "incomplete"):
            lost = "" if run.finished else "the run was cut off; "
            reason = f"{lost}{len(run.frames)} whole frames were recovered"
            mended.append(f"status was {manifest.status} ({manifest.reason or 'never closed'}), is recovered: {reason}")
            manifest = manifest.changed(status="recovered", reason=reason)
        write_manifest(path, manifest)
    return replace(verify(path), mended=tuple(mended))


def cut_torn_tails(path: Path) -> list[str]:
    """Make journal and images end after what is whole; returns what was cut, in words. Whoever calls holds the run."""
    run = RecordedRun(path)
    cut = []
    journal = path / JOURNAL
    torn = journal.stat().st_size - run.journal_bytes
    if torn:
        with journal.open("r+b") as file:
            file.truncate(run.journal_bytes)
        cut.append(f"{JOURNAL}: {torn} bytes of a torn line were cut")
    if run.manifest.status != "complete":
        known = known_pages(run)
        for stem in STEMS:
            for image in sorted(path.glob(f"{stem}-*.tif")):
                cut += _cut_torn_image(run, image, known.get(image.name, 0))
    return cut


def _cut_torn_image(run: RecordedRun, image: Path, known: int) -> list[str]:
    """Cut what a kill or a full disk leaves behind the pages that the journal knows: less than two frames. Whole
    frames stay where journal lines were lost, and so does everything where the page chain does not reach it."""
    pages = list(walk_pages(image))
    size = image.stat().st_size
    a_page = run.manifest.shape[1] * run.manifest.shape[2] * (2 if image.name.startswith("frames") else 4)
    ends = (offset + a_page for place in places(run) if place.file == image.name for offset in place.offsets)
    readable_end = max((end for end in ends if end <= size), default=0)
    if (pages[-1].end if pages else 0) < readable_end:
        return []
    of_a_frame = run.manifest.shape[0] if image.name.startswith("frames") else 1
    unknown = max(0, len(pages) - known) // of_a_frame
    lines_lost = run.damaged_lines or run.run is None or last_sequence(run) > max(run.frames, default=-1)
    if image.name.startswith("heights") or (unknown < 2 and not lines_lost):
        unknown = 0
    kept = min(len(pages), known) + unknown * of_a_frame
    if not kept:
        if not known:
            image.unlink()
            return [f"{image.name}: no whole frame was in it, it was removed"]
        return []
    cut = cut_after_page(image, kept)
    if not cut:
        return []
    last = max((n for n, frame in run.frames.items() if frame.place.file == image.name), default=None)
    after = f"page {kept - 1}" if last is None or unknown else f"page {kept - 1}, the end of frame {last},"
    return [f"{image.name}: {cut} bytes were cut after {after} of a frame that was never acknowledged"]


def _put_heights_in_place(run: RecordedRun) -> list[str]:
    """The journal is told of new heights before they replace the old ones: what it knows by heart is put in place."""
    mended = []
    for new in sorted(run.path.glob(f"heights-*.tif{NEW}")):
        name = new.name.removesuffix(NEW)
        told = [n for n, height in run.heights.items() if height.place.file == name]
        if told and all(_is_whole(run, sequence) for sequence in told):
            replace_path(new, run.path / name)
            mended.append(f"{name}: {name_spans(told, 'height')} were put in place")
    return mended


def _is_whole(run: RecordedRun, sequence: int) -> bool:
    height = run.heights[sequence]
    place = replace(height.place, file=height.place.file + NEW)
    try:
        return checksum(read_pages(run.path, place, run.manifest.shape, "float32")) == height.xxh3
    except BadInput:
        return False


def _make_again(path: Path) -> list[str]:
    """Manifest and instrument file from what the journal says of the start of the run."""
    mended = []
    try:
        read_manifest(path)
    except DamagedManifest as error:
        write_manifest(path, _manifest_of(*_started(path, error)))
        mended.append(f"{MANIFEST} was made again from the journal")
    try:
        load_instrument(path / INSTRUMENT)
    except BadInput as error:
        instrument = parse_instrument(dict(_started(path, error)[0].instrument), f"the journal of {path}")
        replace_file(path / INSTRUMENT, instrument.to_toml().encode())
        mended.append(f"{INSTRUMENT} was made again from the journal")
    return mended


def _started(path: Path, error: BadInput) -> tuple[RunStarted, bool]:
    """How the run started, and whether its frames are simulated."""
    lines = scan_journal(path / JOURNAL).lines
    simulated = any("simulated" in tree.get("flags", ()) for tree in lines if tree.get("kind") == "frame")
    for tree in lines:
        if tree.get("kind") == "run_started":
            started: RunStarted = wire.from_tree(tree)
            return started, simulated
    raise BadInput(f"{error}; the journal does not say how the run started either: bring one of them back from a copy")


def _manifest_of(run: RunStarted, simulated: bool) -> Manifest:
    segments: list[Mapping[str, Any]] = run.instrument.get("detector", {}).get("segments", [])
    return Manifest(
        schema=SCHEMA,
        run_id=run.run_id,
        status="recording",
        source=run.source,
        started_utc_ns=run.utc_ns,
        shape=run.shape,
        segment_names=tuple(str(segment.get("name")) for segment in segments),
        pixel_size_m=run.optics.pixel_size_m,
        expected_frames=run.expected_frames,
        notes=run.notes,
        simulated=simulated,
    )
