"""A recorded run, or one frame's height map, in a file that other programs open. One file per family of formats."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from service.exports import arrays, folder, gwyddion, movie, ome_zarr, surfaces, tiffs
from service.exports.heights import Heights
from service.tasks import Progress

Format = Literal["zip", "npz", "npy", "tiff", "ome-tiff", "ome-zarr", "gwy", "gsf", "stl", "ply", "mp4"]
FORMATS: tuple[str, ...] = get_args(Format)
OF_ONE_MAP = ("gsf", "stl", "ply")
"""Hold one height map: of a whole run they take the last."""
ENDINGS = {"ome-tiff": "ome.tiff", "ome-zarr": "ome.zarr"}

Maker = Callable[[Heights, Path, Progress], None]
MAKERS: dict[str, Maker] = {
    "npz": arrays.npz,
    "npy": arrays.npy,
    "tiff": tiffs.imagej,
    "ome-tiff": tiffs.ome,
    "ome-zarr": ome_zarr.ome_zarr,
    "gwy": gwyddion.gwy,
    "gsf": gwyddion.gsf,
    "stl": surfaces.stl,
    "ply": surfaces.ply,
    "mp4": movie.mp4,
}


def export(run: Path, format: Format, out: Path, report: Progress, frame: int | None = None) -> None:
    """Write `run`, or one `frame` of it, into `out`: a file, or a new folder for OME-Zarr.

    Raises `BadInput` for a run without heights where those are asked for, for a frame of a zip, and where an extra is
    not installed; `RequestRefused` when the disk has no room.
    """
    if format == "zip":
        if frame is not None:
            raise BadInput("a zip holds the run's folder as it is: leave out the frame, or choose another format")
        folder.zipped(run, out, report)
        return
    if frame is None and format in OF_ONE_MAP:
        frame = max(RecordedRun(run).heights, default=None)
    MAKERS[format](Heights(run, out, frame), out, report)


def export_run(run: Path, format: Format, report: Progress, into: Path, frame: int | None = None) -> dict[str, Any]:
    """The same as a file in the folder `into`, a folder as its zip; tells its name and size."""
    suffix = "" if frame is None else f"-{frame}"
    out = into / f"{run.name}{suffix}.{ENDINGS.get(format, format)}"
    export(run, format, out, report, frame)
    if out.is_dir():
        archive = Path(f"{out}.zip")
        folder.zipped(out, archive, report)
        shutil.rmtree(out)
        out = archive
    return {"file": out.name, "bytes": out.stat().st_size}
