"""Which of a microscope's detectors are the segments of the instrument file: told apart by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from acquisition.errors import DeviceFailed

SEGMENT_PATTERN = r"BSE\s+(?P<segment>\S.*)"


def find_segments(names: Sequence[str], listing: str, pattern: re.Pattern[str]) -> list[int]:
    """The number of each named segment's detector; `listing` is the answer to `DtEnumDetectors`.

    A detector whose whole name matches `pattern` is called by that name or by the pattern's group `segment`. Raises
    `DeviceFailed` with what there is and what there should be.
    """
    listed = parse_detectors(listing)
    found: dict[str, int] = {}
    for full_name, number in listed.items():
        if match := pattern.fullmatch(full_name):
            found |= {full_name: number, match["segment"]: number}
    if missing := [name for name in names if name not in found]:
        raise DeviceFailed(
            f"the microscope has no detectors for the segments {missing} of the instrument file; it lists "
            f"{list(listed)}, and those that match {pattern.pattern!r} are called {list(found)}: name the instrument "
            "file's segments so, in the order of their azimuths, or give another pattern"
        )
    return [found[name] for name in names]


def parse_detectors(listing: str) -> dict[str, int]:
    """`det.3.name=BSE Q1` and `det.3.detector=4` -> `{"BSE Q1": 4}`; what is incomplete is left out."""
    parts: dict[str, dict[str, str]] = {}
    for index, key, value in re.findall(r"^det\.(\d+)\.(name|detector)=(.*?)\s*$", listing, re.MULTILINE):
        parts.setdefault(index, {})[key] = value
    return {
        part["name"]: int(part["detector"])
        for part in parts.values()
        if part.get("name") and re.fullmatch(r"\d{1,6}", part.get("detector", ""))
    }
