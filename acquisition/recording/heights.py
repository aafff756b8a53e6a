"""Replacing the height maps of a run as a whole: in frame order, so that page n of the TIFF is frame n."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from acquisition.errors import EclipsError
from acquisition.frames import Result
from acquisition.recording.journal import Journal, encode_line
from acquisition.recording.manifest import JOURNAL, ModelUse, read_manifest, replace_path, with_model, write_manifest
from acquisition.recording.reader import RecordedRun
from acquisition.recording.tiff_series import TiffSeries
from acquisition.recording.writer import result_line

NEW = ".new"


def replace_heights(run: Path, results: Iterable[Result]) -> int:
    """Write `results` beside the old heights, then tell the journal and put them in place.

    What happens before the last result leaves the old heights as they were; what happens after it, `repair` carries
    through. Returns how many heights there are. `results` must come in frame order and cover the run.
    Raises `BadInput` while the run is being written, OSError when the disk refuses.
    """
    with Journal(run / JOURNAL) as journal:
        recorded = RecordedRun(run)
        journal.cut(recorded.journal_bytes)
        series = TiffSeries(run, "heights", recorded.manifest.pixel_size_m, value_unit="metres", suffix=NEW)
        lines: list[bytes] = []
        models: tuple[ModelUse, ...] = ()
        try:
            for result in results:
                lines.append(encode_line(result_line(result, series.append(result.height_m[np.newaxis]))))
                models = with_model(models, result.header.model, result.header.sequence)
            series.close()
            journal.append(b"".join(lines))
            journal.sync()
        except BaseException:
            journal.cut(recorded.journal_bytes)
            with suppress(OSError):
                series.close()
            for name in series.names:
                (run / (name + NEW)).unlink(missing_ok=True)
            raise
        for name in series.names:
            replace_path(run / (name + NEW), run / name)
        for stale in sorted(run.glob("heights-*.tif"))[len(series.names) :]:
            stale.unlink()
    model = models[-1].name if models else recorded.manifest.model
    manifest = recorded.manifest.changed(heights=len(lines), model=model, models=models)
    if len(lines) == len(recorded.frames) and recorded.finished is not None and manifest.status != "recovered":
        reason = recorded.finished.reason
        manifest = manifest.changed(status="complete", frames=len(recorded.frames), reason=reason)
    write_manifest(run, manifest)
    return len(lines)


def put_heights_in_order(run: Path) -> None:
    """Rewrite the heights of a run in frame order, as they are. What fails leaves the run `incomplete`, and says why;
    raises as `replace_heights` does."""
    try:
        replace_heights(run, _in_order(RecordedRun(run)))
    except (EclipsError, OSError) as error:
        reason = f"its heights could not be put in order: {error}; make them again with `eclips reprocess`"
        write_manifest(run, read_manifest(run).changed(status="incomplete", reason=reason))
        raise


def _in_order(recorded: RecordedRun) -> Iterator[Result]:
    for sequence in recorded.frames:
        if sequence in recorded.heights:
            yield Result(recorded.heights[sequence].header, {"height": recorded.read_height(sequence)})
