"""A folder in one file, as it is."""

from __future__ import annotations

import zipfile
from pathlib import Path

from service.exports.heights import check_room
from service.tasks import Progress

CHUNK_BYTES = 4 * 2**20


def zipped(folder: Path, out: Path, report: Progress) -> None:
    """Images of electrons do not shrink, so nothing is compressed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in files)
    check_room(out, total)
    done = 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            entry = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as sink:
                while chunk := source.read(CHUNK_BYTES):
                    sink.write(chunk)
                    done += len(chunk)
                    report(done, max(total, done))
