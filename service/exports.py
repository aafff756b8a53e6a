"""A recorded run in one file: the folder as it is (zip), or its heights as arrays (npz), or as TIFF."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from acquisition.errors import BadInput, RequestRefused
from acquisition.recording import RecordedRun
from service.tasks import Report

Format = Literal["zip", "npz", "tiff"]
CHUNK_BYTES = 4 * 2**20
ROOM_BYTES = 100 * 2**20
"""Left free on the disk that holds exports."""


def export_run(run: Path, format: Format, report: Report, folder: Path) -> dict[str, Any]:
    """Write `run` into one file in `folder`; tells its name and size. Raises `BadInput` for a run without heights where
    those are asked for, `RequestRefused` when the disk has no room for them."""
    out = folder / f"{run.name}.{format}"
    makers: dict[Format, Callable[[Path, Path, Report], None]] = {"zip": _zip, "npz": _npz, "tiff": _tiff}
    makers[format](run, out, report)
    return {"file": out.name, "bytes": out.stat().st_size}


def _zip(run: Path, out: Path, report: Report) -> None:
    """Images of electrons do not shrink, so nothing is compressed."""
    files = sorted(path for path in run.iterdir() if path.is_file())
    total = sum(path.stat().st_size for path in files)
    _check_room(out, total)
    done = 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            entry = zipfile.ZipInfo.from_file(path, f"{run.name}/{path.name}", strict_timestamps=False)
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as sink:
                while chunk := source.read(CHUNK_BYTES):
                    sink.write(chunk)
                    done += len(chunk)
                    report(done, max(total, done))


def _npz(run: Path, out: Path, report: Report) -> None:
    """`heights_m` (N, H, W) float32, and by frame `sequence`, `utc_ns` and `pixel_size_m`."""
    recorded = _with_heights(run, out)
    numbers = sorted(recorded.heights)
    heads = [recorded.frames[number].header for number in numbers]
    _, height, width = recorded.manifest.shape
    heights_m = np.empty((len(numbers), height, width), np.float32)
    for index, number in enumerate(numbers):
        heights_m[index] = recorded.read_height(number)
        report(index + 1, len(numbers))
    np.savez(
        out,
        heights_m=heights_m,
        sequence=np.array(numbers),
        utc_ns=np.array([head.utc_ns for head in heads]),
        pixel_size_m=np.array([head.optics.pixel_size_m for head in heads]),
    )


def _tiff(run: Path, out: Path, report: Report) -> None:
    """A page per height, float32 metres, in the order of the frames, with the pixel size that ImageJ reads."""
    recorded = _with_heights(run, out)
    numbers = sorted(recorded.heights)
    pixels_per_cm = 0.01 / recorded.manifest.pixel_size_m
    with tifffile.TiffWriter(out) as writer:
        for index, number in enumerate(numbers):
            writer.write(
                recorded.read_height(number),
                photometric="minisblack",
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
            report(index + 1, len(numbers))


def _with_heights(run: Path, out: Path) -> RecordedRun:
    recorded = RecordedRun(run)
    if not recorded.heights:
        raise BadInput(f"{run.name} has no heights to export; make them with `eclips reprocess`, or export it as zip")
    _, height, width = recorded.manifest.shape
    _check_room(out, 4 * height * width * len(recorded.heights))
    return recorded


def _check_room(out: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(out.parent).free
    if free_bytes - needed_bytes < ROOM_BYTES:
        raise RequestRefused(
            f"the export needs {needed_bytes / 1e6:.0f} MB and {out.parent} has {free_bytes / 1e6:.0f} MB free: set "
            "TMPDIR to a larger disk, or fetch the files one by one"
        )
