"""Any microscope that writes images to a folder: files grouped into sets of one image per segment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from hardware_drivers.tiff_metadata import ImageFile, read_image_file


@dataclass(frozen=True, slots=True)
class ImageSet:
    """`images`: (S, H, W) uint16 in channel order; `instrument` with what the files tell of themselves put in."""

    images: NDArray[np.uint16]
    instrument: Instrument
    files: tuple[Path, ...]


def read_image_sets(files: Sequence[Path], instrument: Instrument, pattern: str | None = None) -> list[ImageSet]:
    """Group `files` into sets and read them; a file of as many pages as there are segments is a set of its own.

    `pattern` is a regular expression with a group `channel`; without one, file names of a set differ in one letter
    or digit. Channels are taken in the order of the instrument's segment names where they match them, else sorted.
    Raises `BadInput` for a missing segment, mixed sizes, or files that cannot be read.
    """
    if not files:
        raise BadInput("no files were given")
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise BadInput(f"no such file: {', '.join(missing)}")
    segments = len(instrument.detector.segments)
    read = {path: read_image_file(path) for path in files}
    if all(len(image.pages) == segments for image in read.values()):
        return [_image_set([image], instrument) for image in read.values()]
    several = [str(path) for path, image in read.items() if len(image.pages) > 1]
    if several:
        raise BadInput(
            f"{several[0]} has {len(read[Path(several[0])].pages)} pages; expected 1, or {segments} segments"
        )
    groups = _by_pattern(files, pattern) if pattern else _by_one_letter(files, segments)
    return [_image_set(_in_order(group, read, instrument, name), instrument) for name, group in groups.items()]


def _image_set(images: Sequence[ImageFile], instrument: Instrument) -> ImageSet:
    first = images[0]
    sizes = {image.pages.shape[1:] for image in images}
    if len(sizes) > 1:
        told = ", ".join(f"{image.path.name} {image.pages.shape[1:]}" for image in images)
        raise BadInput(f"the images of a set differ in size: {told}")
    for name in ("pixel_size_m", "energy_ev", "working_distance_m"):
        values = {getattr(image, name) for image in images}
        if len(values) > 1:
            raise BadInput(f"the images of a set differ in {name}: {sorted(values, key=str)}; are they of one scan?")
    used = instrument.with_scan(
        pixel_size_m=first.pixel_size_m,
        dwell_time_s=first.dwell_time_s,
        energy_ev=first.energy_ev,
        working_distance_m=first.working_distance_m,
        current_a=first.current_a,
    )
    stack = np.ascontiguousarray(np.concatenate([image.pages for image in images]))
    return ImageSet(stack, used, tuple(image.path for image in images))


def _in_order(
    group: Mapping[str, Path], read: Mapping[Path, ImageFile], instrument: Instrument, name: str
) -> list[ImageFile]:
    names = [segment.name for segment in instrument.detector.segments]
    if len(group) != len(names):
        raise BadInput(
            f"set {name!r} has the channels {sorted(group)}, the instrument has the segments {names}: "
            "give one file per segment, or another --pattern or --instrument"
        )
    order = names if set(group) == set(names) else sorted(group)
    return [read[group[channel]] for channel in order]


def _by_pattern(files: Sequence[Path], pattern: str) -> dict[str, dict[str, Path]]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise BadInput(f"pattern {pattern!r} is no regular expression: {error}") from error
    if "channel" not in expression.groupindex:
        raise BadInput(f"pattern {pattern!r} has no group (?P<channel>...)")
    groups: dict[str, dict[str, Path]] = {}
    for path in files:
        match = expression.search(path.name)
        if match is None:
            raise BadInput(f"{path.name} does not match the pattern {pattern!r}")
        rest = path.name[: match.start("channel")] + "*" + path.name[match.end("channel") :]
        _add(groups.setdefault(rest, {}), match["channel"], path, rest)
    return groups


def _by_one_letter(files: Sequence[Path], segments: int) -> dict[str, dict[str, Path]]:
    """The place in the names where masking one letter or digit makes groups of one file per segment."""
    names = [path.name for path in files]
    shortest = min(len(name) for name in names)
    # Counted from the end too, since what comes before the channel often grows a digit (frame 9, frame 10).
    for place in (*range(-1, -shortest - 1, -1), *range(shortest)):
        groups: dict[str, dict[str, Path]] = {}
        for path in files:
            at = place % len(path.name)
            groups.setdefault(path.name[:at] + "*" + path.name[at + 1 :], {})[path.name[at]] = path
        whole = all(len(group) == segments for group in groups.values())
        if whole and all(channel.isalnum() for group in groups.values() for channel in group):
            return dict(sorted(groups.items()))
    raise BadInput(
        f"{len(files)} files do not make sets of {segments} segments whose names differ in one letter or digit "
        f"({', '.join(sorted(names)[:4])}...): is a segment missing? Else say how they differ with --pattern"
    )


def _add(group: dict[str, Path], channel: str, path: Path, rest: str) -> None:
    if channel in group:
        raise BadInput(f"{path.name} and {group[channel].name} are both channel {channel!r} of {rest!r}")
    group[channel] = path
