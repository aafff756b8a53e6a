"""Which of a microscope's detectors are the segments of the instrument file: told apart by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from acquisition.errors import DeviceFailed
from hardware_drivers.sharksem.client import SharkSemSession
from hardware_drivers.sharksem.message import Body

SEGMENT_PATTERN = r"BSE\s+(?P<segment>\S.*)"
BITS = 16


async def ask_segments(session: SharkSemSession, names: Sequence[str], pattern: re.Pattern[str]) -> list[int]:
    """The microscope's number of each named segment's detector. Raises `DeviceFailed`."""
    numbers = find_segments(names, await session.ask("DtEnumDetectors", answer=Body.text), pattern)
    channels = await session.ask("DtGetChannels", answer=Body.integer)
    if channels < len(names):
        raise DeviceFailed(f"the microscope has {channels} channels for the instrument file's {len(names)} segments")
    return numbers


async def select_segments(session: SharkSemSession, detectors: Sequence[int]) -> None:
    """Put them on channels 0, 1, ... with 16 bits a pixel. Raises `DeviceFailed` when the microscope does not."""
    for channel, detector in enumerate(detectors):
        await session.order("DtSelect", channel, detector)
        await session.order("DtEnable", channel, 1, BITS)
        selected = await session.ask("DtGetSelected", channel, answer=Body.integer)
        if selected != detector:
            raise DeviceFailed(
                f"channel {channel} stays on detector {selected} and does not take {detector}; is the detector "
                "inserted and switched on at the microscope?"
            )


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
