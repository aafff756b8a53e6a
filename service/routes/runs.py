"""Recorded runs: list, look, verify, fetch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Query
from fastapi.responses import FileResponse, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun, find_runs, verify
from acquisition.recording.manifest import MANIFEST, read_manifest
from service.auth import needs
from service.exports import Format, export_run
from service.pictures import npy, png, shrink, side_by_side, tiff
from service.routes.shared import Wired, begun

router = APIRouter(prefix="/runs", tags=["runs"])

Accept = Annotated[str, Header()]
PREVIEW_PX = 1024
PIXEL_SIZE = "Eclips-Pixel-Size-M"
"""Header of a picture: what a pixel of the recording is wide, in metres."""
_BYTES = {"schema": {"type": "string", "format": "binary"}}
MOST_FRAMES = 1000
PICTURES: dict[int | str, dict[str, Any]] = {
    200: {"content": dict.fromkeys(("image/png", "image/tiff", "application/octet-stream"), _BYTES)}
}

FILE: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": _BYTES}}}


class Export(BaseModel):
    """`zip`: the run's folder as it is; the others: its heights, or that of one `frame`. `ome-zarr` comes zipped; it
    and `mp4` need the extra `exports`; `gsf`, `stl` and `ply` hold one height, the last unless `frame` says which."""

    model_config = ConfigDict(extra="forbid")
    format: Format = "zip"
    frame: int | None = Field(None, ge=0)


@router.get("")
def runs(wired: Wired) -> list[dict[str, Any]]:
    """Every run in the runs folder, the newest first; one whose manifest does not hold has the status `damaged`."""
    return [_tree_or_damage(path) for path in find_runs(wired.settings.runs_folder)]


@router.get("/{run_id}")
def run(wired: Wired, run_id: str) -> dict[str, Any]:
    """One run as its manifest tells: whole or not and why, how many frames and heights, size, model."""
    return _tree(path_of(wired.settings.runs_folder, run_id))


@router.get("/{run_id}/frames")
def frames(
    wired: Wired,
    run_id: str,
    after: Annotated[int, Query(ge=-1)] = -1,
    limit: Annotated[int, Query(ge=1, le=MOST_FRAMES)] = MOST_FRAMES,
) -> list[dict[str, Any]]:
    """The recorded frames after number `after`, in order: time, pixel size, flags, and whether the height is there."""
    recorded = RecordedRun(path_of(wired.settings.runs_folder, run_id))
    numbers = [number for number in recorded.sequences if number > after][:limit]
    return [_frame_tree(recorded, number) for number in numbers]


@router.get("/{run_id}/frames/{sequence}", response_class=Response, responses=PICTURES)
def frame(wired: Wired, run_id: str, sequence: int, accept: Accept = "image/png") -> Response:
    """The segment images of a frame as PNG, TIFF or NPY, by the Accept header."""
    recorded = RecordedRun(path_of(wired.settings.runs_folder, run_id))
    found = recorded.read_frame(sequence)
    return _as(accept, found.images, found.header.optics.pixel_size_m, "gray")


@router.get("/{run_id}/heights/{sequence}", response_class=Response, responses=PICTURES)
def height(wired: Wired, run_id: str, sequence: int, accept: Accept = "image/png") -> Response:
    """The height map of a frame in metres as TIFF or NPY, or coloured as PNG, by the Accept header."""
    recorded = RecordedRun(path_of(wired.settings.runs_folder, run_id))
    height_m = recorded.read_height(sequence)
    return _as(accept, height_m, recorded.frames[sequence].header.optics.pixel_size_m, "viridis")


@router.post("/{run_id}/verify", openapi_extra=needs("read"), responses={202: {"description": "A task that does it."}})
def verify_run(wired: Wired, run_id: str, response: Response, prefer: Annotated[str, Header()] = "") -> dict[str, Any]:
    """Read every page and check every checksum and count; with `Prefer: respond-async` as a task."""
    path = path_of(wired.settings.runs_folder, run_id)
    if "respond-async" not in prefer:
        return _verdict(path)
    response.status_code = 202
    return begun(wired.tasks.start("verify", run_id, lambda report, folder: _verdict(path)), response)


@router.post("/{run_id}/export", status_code=202, openapi_extra=needs("read"))
def export(wired: Wired, run_id: str, wanted: Export, response: Response) -> dict[str, Any]:
    """Make one file of a run: `zip` (the folder as it is), or its heights for other programs, or those of one frame.

    Answers at once with a task, whose place is in `Location`; the file is under `/tasks/{id}/file` once it is done.
    """
    path = path_of(wired.settings.runs_folder, run_id)
    task = wired.tasks.start(
        "export", run_id, lambda report, folder: export_run(path, wanted.format, report, folder, wanted.frame)
    )
    return begun(task, response)


@router.post("/{run_id}:report", status_code=202, openapi_extra=needs("read"))
def report(wired: Wired, run_id: str, response: Response) -> dict[str, Any]:
    """Make the run's report, one HTML page that needs nothing else; a task as of `export`."""
    from service.report import report_task  # with SciPy, which no page should wait for when the service starts

    path = path_of(wired.settings.runs_folder, run_id)
    return begun(wired.tasks.start("report", run_id, lambda told, folder: report_task(path, told, folder)), response)


@router.get("/{run_id}/files")
def files(wired: Wired, run_id: str) -> list[dict[str, Any]]:
    """The run's own files, which Fiji and Python open as they are."""
    path = path_of(wired.settings.runs_folder, run_id)
    return [{"name": file.name, "bytes": file.stat().st_size} for file in sorted(path.iterdir()) if file.is_file()]


@router.get("/{run_id}/files/{name}", response_class=FileResponse, responses=FILE)
def file(wired: Wired, run_id: str, name: str) -> FileResponse:
    """One file of a run; `Range` is understood, so that a large one can be fetched in parts."""
    folder = path_of(wired.settings.runs_folder, run_id)
    known = {found.name: found for found in folder.iterdir() if found.is_file() and not found.is_symlink()}
    if name not in known:
        raise BadInput(f"run {run_id[:80]} has no file {name[:80]!r}")
    return FileResponse(known[name], media_type="application/octet-stream", filename=name)


def path_of(runs_folder: Path, run_id: str) -> Path:
    """Only a plain name inside the runs folder will do."""
    path = runs_folder / run_id
    try:
        known = Path(run_id).name == run_id and run_id not in (".", "..") and (path / MANIFEST).is_file()
    except OSError:  # such as a name longer than the system takes
        known = False
    if not known:
        raise BadInput(f"there is no recorded run {run_id[:80]!r}")
    return path


def _verdict(path: Path) -> dict[str, Any]:
    found = verify(path)
    return {"ok": found.ok, "findings": list(found.findings), "frames": found.frames, "heights": found.heights}


def _tree_or_damage(path: Path) -> dict[str, Any]:
    """One damaged run must not hide the others."""
    try:
        return _tree(path)
    except BadInput as error:
        nothing = dict.fromkeys(("frames", "heights", "started_utc_ns"), 0)
        unknown = {
            "shape": [0, 0, 0],
            "pixel_size_m": None,
            "model": "",
            "models": [],
            "notes": "",
            "simulated": False,
            "thumbnail": None,
        }
        told = {"run_id": path.name, "status": "damaged", "reason": str(error), "bytes": _bytes(path)}
        return told | nothing | unknown


def _bytes(path: Path) -> int:
    """Files may come and go while a run is recorded."""
    total = 0
    for file in path.iterdir():
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _tree(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    return {
        "run_id": path.name,
        "status": manifest.status,
        "reason": manifest.reason,
        "frames": manifest.frames,
        "heights": manifest.heights,
        "bytes": _bytes(path),
        "started_utc_ns": manifest.started_utc_ns,
        "shape": manifest.shape,
        "pixel_size_m": manifest.pixel_size_m,
        "model": manifest.model,
        "models": [{"name": use.name, "from_frame": use.from_frame} for use in manifest.models],
        "notes": manifest.notes,
        "simulated": manifest.simulated,
        "thumbnail": f"/api/v1/runs/{path.name}/heights/0" if manifest.heights else None,
    }


def _frame_tree(recorded: RecordedRun, number: int) -> dict[str, Any]:
    header = recorded.frames[number].header
    return {
        "sequence": number,
        "utc_ns": header.utc_ns,
        "pixel_size_m": header.optics.pixel_size_m,
        "flags": sorted(header.flags),
        "has_height": number in recorded.heights,
    }


def _as(accept: str, images: NDArray[Any], pixel_size_m: float, colours: str) -> Response:
    headers = {PIXEL_SIZE: f"{pixel_size_m!r}"}
    if "image/tiff" in accept:
        return Response(tiff(images, pixel_size_m), headers=headers, media_type="image/tiff")
    if "octet-stream" in accept or "npy" in accept:
        return Response(npy(np.asarray(images)), headers=headers, media_type="application/octet-stream")
    if "image/png" in accept or "*/*" in accept or "image/*" in accept:
        flat = side_by_side(images) if images.ndim == 3 else images
        return Response(png(shrink(flat, PREVIEW_PX), colours), headers=headers, media_type="image/png")
    raise BadInput(f"cannot answer with {accept!r}; ask for image/png, image/tiff or application/octet-stream")
