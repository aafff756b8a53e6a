"""Replacing the height maps of a run as a whole: in frame order, so that page n of the TIFF is frame n."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from acquisition.frames import Result
from acquisition.recording.journal import encode_line
from acquisition.recording.manifest import JOURNAL, read_manifest, replace_path, write_manifest
from acquisition.recording.reader import RecordedRun
from acquisition.recording.tiff_series import TiffSeries
from acquisition.recording.writer import result_line

NEW = ".new"


def replace_heights(run: Path, results: Iterable[Result]) -> int:
    """Write `results` beside the old heights, then put them in place and tell journal and manifest.

    What happens before the last result leaves the old heights as they were. Returns how many heights there are.
    `results` must come in frame order and cover the run.
    """
    recorded = RecordedRun(run)
    series = TiffSeries(run, "heights", recorded.manifest.pixel_size_m, value_unit="metres", suffix=NEW)
    lines: list[bytes] = []
    model = recorded.manifest.model
    try:
        for result in results:
            lines.append(encode_line(result_line(result, series.append(result.height_m[np.newaxis]))))
            model = result.header.model
    except BaseException:
        series.close()
        for name in series.names:
            (run / (name + NEW)).unlink(missing_ok=True)
        raise
    series.close()
    _put_in_place(run, series.names, lines)
    whole = len(lines) == len(recorded.frames) and recorded.finished is not None
    manifest = read_manifest(run).changed(heights=len(lines), model=model)
    if whole and manifest.status != "recovered":
        manifest = manifest.changed(status="complete", frames=len(recorded.frames))
    write_manifest(run, manifest)
    return len(lines)


def put_heights_in_order(run: Path) -> None:
    """Rewrite the heights of a run in frame order, as they are."""
    replace_heights(run, _in_order(RecordedRun(run)))


def _in_order(recorded: RecordedRun) -> Iterator[Result]:
    for sequence in recorded.frames:
        if sequence in recorded.heights:
            yield Result(recorded.heights[sequence].header, {"height": recorded.read_height(sequence)})


def _put_in_place(run: Path, names: list[str], lines: list[bytes]) -> None:
    for name in names:
        replace_path(run / (name + NEW), run / name)
    for stale in sorted(run.glob("heights-????.tif"))[len(names) :]:
        stale.unlink()
    with (run / JOURNAL).open("ab") as journal:
        journal.write(b"".join(lines))
        journal.flush()
        os.fsync(journal.fileno())
