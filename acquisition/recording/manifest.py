"""`run.json`: what a recorded run is and whether it is whole. Replaced atomically, never edited in place."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter
from pydantic_core import from_json

from acquisition.errors import BadInput, RecordingFailed

MANIFEST = "run.json"
JOURNAL = "journal.jsonl"
INSTRUMENT = "instrument.toml"
SCHEMA = 1
MAX_BYTES = 2**20
Status = Literal["recording", "complete", "incomplete", "recovered"]
STATUSES: tuple[Status, ...] = get_args(Status)
_Side = Annotated[int, Field(ge=1, le=65536)]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class ModelUse:
    """`name` made the heights of frame `from_frame` and of those after it, until the next one."""

    name: str
    from_frame: _Count


@dataclass(frozen=True, slots=True)
class Manifest:
    """`status`: recording | complete | incomplete | recovered. `reason` says why a run is not complete. `model` is the
    last of `models`, which recordings of before have not; while a run is recorded they are in order of arrival."""

    schema: int
    run_id: str
    status: Status
    source: str
    started_utc_ns: int
    shape: tuple[_Side, _Side, _Side]
    segment_names: tuple[str, ...]
    pixel_size_m: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    expected_frames: int | None
    notes: str
    simulated: bool
    frames: _Count = 0
    heights: _Count = 0
    last_sequence: int = -1
    digest: str = ""
    reason: str = ""
    model: str = ""
    models: tuple[ModelUse, ...] = ()

    def changed(self, **changes: object) -> Manifest:
        return replace(self, **changes)  # type: ignore[arg-type]


def with_model(models: tuple[ModelUse, ...], name: str, frame: int) -> tuple[ModelUse, ...]:
    """`models` after `name` made the height of `frame`, the next one in order."""
    return models if models and models[-1].name == name else (*models, ModelUse(name, frame))


class DamagedManifest(BadInput):
    """A manifest is missing or does not hold; the journal may say enough to make it again."""


_ADAPTER = TypeAdapter(Manifest)


def read_manifest(run: Path) -> Manifest:
    """Raises `BadInput` when `run` is not a recorded run of a schema this version reads, and `DamagedManifest`, which
    is one too, when its manifest can be made again."""
    path = run / MANIFEST
    try:
        with path.open("rb") as file:
            tree = from_json(file.read(MAX_BYTES))
        schema = tree.get("schema") if isinstance(tree, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise BadInput(
                f"{run} has recording schema {schema}, this version reads up to {SCHEMA}: update eclips-live"
            )
        manifest = _ADAPTER.validate_python(tree)
    except FileNotFoundError:
        raise DamagedManifest(f"{run} is not a recorded run: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise DamagedManifest(f"{path} cannot be read: {error}; try `eclips repair`") from error
    if manifest.schema != SCHEMA:
        raise DamagedManifest(f"{path} has recording schema {manifest.schema}, which never was; try `eclips repair`")
    return manifest


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Atomically. Raises `RecordingFailed` when the disk refuses."""
    replace_file(run / MANIFEST, _ADAPTER.dump_json(manifest, indent=2) + b"\n")


def replace_file(path: Path, content: bytes) -> None:
    """Write beside and rename over, so a reader sees the old content or the new one."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace_path(temporary, path)
    except OSError as error:
        raise RecordingFailed(f"{path} cannot be written: {error}") from error


def replace_path(temporary: Path, path: Path) -> None:
    """Rename over `path`; Windows refuses while a virus scanner or a viewer has it open, so try for two seconds."""
    for attempt in range(20):
        try:
            temporary.replace(path)
            break
        except PermissionError:
            if attempt == 19:
                raise
            time.sleep(0.1)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def find_runs(folder: Path) -> Iterator[Path]:
    """Recorded runs in `folder`, the newest name first."""
    if folder.is_dir():
        for path in sorted(folder.iterdir(), reverse=True):
            if (path / MANIFEST).is_file():
                yield path
