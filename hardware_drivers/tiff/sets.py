"""Image files grouped into sets of one image per segment, whatever microscope wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from hardware_drivers.tiff.image_file import ImageFile, read_image_file
from hardware_drivers.tiff.naming import channel_pattern, order_of


@dataclass(frozen=True, slots=True)
class ImageSet:
    """`images`: (S, H, W) uint16 in channel order; `instrument` with what the files tell of themselves put in.

    `taken`: when, in the microscope's own time of day, if the files say it. `assumed`: what they leave to the
    instrument file, in words for people.
    """

    images: NDArray[np.uint16]
    instrument: Instrument
    files: tuple[Path, ...]
    taken: datetime | None = None
    assumed: tuple[str, ...] = ()


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
    names = [segment.name for segment in instrument.detector.segments]
    read = {path: read_image_file(path) for path in files}
    if all(len(image.pages) == len(names) for image in read.values()):
        return [image_set([image], instrument) for image in read.values()]
    for path, image in read.items():
        if len(image.pages) > 1:
            raise BadInput(f"{path} has {len(image.pages)} pages; expected 1, or one for each of {len(names)} segments")
    groups = _by_pattern(files, pattern) if pattern else _by_one_letter(files, names)
    return [image_set(_in_order(group, read, instrument, name), instrument) for name, group in groups.items()]


def image_set(images: Sequence[ImageFile], instrument: Instrument) -> ImageSet:
    """One set of the images of one scan, in this order unless they say themselves of which segments they are.

    Raises `BadInput` where they differ in size or settings, or say that they are of the same segment.
    """
    images = _as_they_say(images, instrument)
    sizes = {image.pages.shape[1:] for image in images}
    if len(sizes) > 1:
        shown = ", ".join(f"{image.path.name} {image.pages.shape[1:]}" for image in images)
        raise BadInput(f"the images of a set differ in size: {shown}")
    for name in ("pixel_size_m", "energy_ev", "working_distance_m"):
        values = {getattr(image.told, name) for image in images}
        if len(values) > 1:
            raise BadInput(f"the images of a set differ in {name}: {sorted(values, key=str)}; are they of one scan?")
    told = images[0].told
    used = instrument.with_scan(
        pixel_size_m=told.pixel_size_m,
        dwell_time_s=told.dwell_time_s,
        energy_ev=told.energy_ev,
        working_distance_m=told.working_distance_m,
        current_a=told.current_a,
    )
    stack = np.ascontiguousarray(np.concatenate([image.pages for image in images]))
    assumed = () if told.pixel_size_m else (_told_pixel_size(images[0], used),)
    return ImageSet(stack, used, tuple(image.path for image in images), told.taken, assumed)


def _as_they_say(images: Sequence[ImageFile], instrument: Instrument) -> Sequence[ImageFile]:
    """A file knows better than its name of which segment it is, where it speaks of the instrument's segments."""
    names = [segment.name for segment in instrument.detector.segments]
    if len(images) == 1:
        (image,) = images
        if set(image.told.channels) != set(names) or len(image.told.channels) != len(names):
            return images
        order = [image.told.channels.index(name) for name in names]
        return [replace(image, pages=image.pages[order])]
    said: dict[str, ImageFile] = {}
    for image in images:
        for channel in image.told.channels:
            if channel in names and said.setdefault(channel, image) is not image:
                raise BadInput(
                    f"{image.path.name} and {said[channel].path.name} both say that they are of segment {channel}: "
                    "are they of one scan?"
                )
    return [said[name] for name in names] if set(said) == set(names) else images


def _told_pixel_size(image: ImageFile, used: Instrument) -> str:
    return f"pixel size {used.scan.pixel_size_m:g} m is the instrument file's: {image.path.name} does not tell its own"


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
    expression = channel_pattern(pattern)
    groups: dict[str, dict[str, Path]] = {}
    for path in files:
        match = expression.search(path.name)
        if match is None:
            raise BadInput(f"{path.name} does not match the pattern {pattern!r}")
        rest = path.name[: match.start("channel")] + "*" + path.name[match.end("channel") :]
        _add(groups.setdefault(str(path.with_name(rest)), {}), match["channel"], path)
    return _in_natural_order(groups)


def _by_one_letter(files: Sequence[Path], names: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The place in the names where masking one letter or digit makes groups of one file per segment.

    Where several places do, the one whose letters are the segments' names is meant; else it is not guessed.
    """
    found: dict[frozenset[frozenset[Path]], dict[str, dict[str, Path]]] = {}
    shortest = min(len(path.name) for path in files)
    # Counted from the end too, since what comes before the channel often grows a digit (frame 9, frame 10).
    for place in (*range(-1, -shortest - 1, -1), *range(shortest)):
        groups = _masked(files, place)
        if all(len(group) == len(names) for group in groups.values()):
            found.setdefault(frozenset(frozenset(group.values()) for group in groups.values()), groups)
    named = [groups for groups in found.values() if all(set(group) == set(names) for group in groups.values())]
    candidates = named or list(found.values())
    told = ", ".join(sorted(path.name for path in files)[:4])
    if not candidates:
        raise BadInput(
            f"{len(files)} files do not make sets of {len(names)} segments whose names differ in one letter or digit "
            f"({told}...): is a segment missing? Else say how they differ with --pattern"
        )
    if len(candidates) > 1:
        raise BadInput(
            f"the files make sets of {len(names)} in {len(candidates)} ways ({told}...): "
            "say which part of the name is the channel with --pattern"
        )
    return _in_natural_order(candidates[0])


def _masked(files: Sequence[Path], place: int) -> dict[str, dict[str, Path]]:
    """Groups by the name without the character at `place`; files where it is no letter or digit stand alone."""
    groups: dict[str, dict[str, Path]] = {}
    for path in files:
        at = place % len(path.name)
        masked = path.name[:at] + "*" + path.name[at + 1 :] if path.name[at].isalnum() else path.name
        groups.setdefault(str(path.with_name(masked)), {})[path.name[at]] = path
    return groups


def _in_natural_order(groups: Mapping[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
    """Frame 9 before frame 10."""
    return dict(sorted(groups.items(), key=lambda item: order_of(item[0])))


def _add(group: dict[str, Path], channel: str, path: Path) -> None:
    if channel in group:
        raise BadInput(f"{path} and {group[channel]} are both channel {channel!r} of one set")
    group[channel] = path
